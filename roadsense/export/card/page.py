"""The page and the record that go with a policy: what it is for, what is proven of it, and where it comes from."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from roadsense.errors import InputMismatchError
from roadsense.evaluation.gates import Verdict, shipped_gates
from roadsense.evaluation.promotion import GATES_NAME
from roadsense.evaluation.report_text import counted, verdict_figure
from roadsense.evaluation.report_text import plain as words
from roadsense.export.card.evidence import TRAINING_NAME, Evidence, Judgement, read_evidence, reading
from roadsense.export.card.figures import did, limits
from roadsense.export.card.formats import formats, loading
from roadsense.export.card.policy import action, inputs, purpose
from roadsense.export.card.text import bare, bullets, code, paragraph, plain, section
from roadsense.export.card.training import most_peers, saw
from roadsense.files import write_text
from roadsense.manifest import MANIFEST_NAME
from roadsense.markdown import table
from roadsense.runs import CARD, CHECKSUMS, METADATA, RunFolder

SCHEMA_VERSION = 1


def write_card(run_dir: Path) -> Path:
    """Writes ``CARD.md``: what a reader must know of a policy who has only this page.

    It is made of the run's own files. What the run lacks, or what is of other weights, is said to be missing. The same
    files give the same bytes.

    Args:
        run_dir: the run folder, with at least its policy.

    Returns:
        The path of the page.

    Raises:
        RoadsenseError: there is no policy, a file is damaged, or the page cannot be written.
        InputMismatchError: the policy reads another layout of observations.
    """
    evidence = read_evidence(run_dir)
    signature = evidence.signature
    parts = [
        f"# Policy {code(evidence.name)}", *_verdict(evidence), purpose(signature), inputs(signature),
        action(signature, evidence.fallback), saw(evidence), did(evidence), limits(evidence), formats(evidence),
        loading(evidence), _origin(evidence),
    ]  # fmt: skip
    write_text(run_dir / CARD, "\n\n".join(parts) + "\n")
    return run_dir / CARD


def write_metadata(run_dir: Path) -> Path:
    """Writes ``metadata.json``: where a policy comes from and what was found of it, for programs.

    Keys are sorted and there is no date; what the run does not tell is null, or ``"not judged"``.

    Args:
        run_dir: the run folder, with at least its policy.

    Returns:
        The path of the record.

    Raises:
        RoadsenseError: as :func:`write_card`.
        InputMismatchError: as :func:`write_card`.
    """
    document = _metadata(read_evidence(run_dir))
    with reading(run_dir):
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(run_dir / METADATA, text + "\n")
    return run_dir / METADATA


def renew_card(run_dir: Path) -> None:
    """Writes both anew in a run that nobody else works in, and keeps its checksums true; signs nothing changed.

    Raises:
        RoadsenseError: as :func:`write_card`; or another process is at work in the run.
    """
    folder = RunFolder(run_dir)
    with folder.locked():
        intact = (run_dir / CHECKSUMS).is_file()
        try:
            if intact:
                folder.verify(but=(CARD, METADATA))
        except InputMismatchError:
            intact = False
        write_metadata(run_dir)
        write_card(run_dir)
        if intact:
            folder.write_checksums()


# ---- the verdict -----------------------------------------------------------------------------------------------------


def _verdict(evidence: Evidence) -> list[str]:
    """The first lines of the page."""
    found = evidence.judgement
    with reading(evidence.run / GATES_NAME):
        return [_word(found), *_remarks(found), *_failures(found), *_others(evidence)]


def _word(found: Judgement) -> str:
    total = len(found.verdicts)
    if not total:
        return paragraph("**not judged**: no gate was asked about this policy. Treat it as one that was rejected.")
    by = f"(gates {code(found.gates['name'])}, version {found.gates['version']})"
    passed = f"{total - len(found.failed)} of {counted(total, 'gate')} passed"
    if found.word == "not judged":
        return paragraph(f"**not judged**: {passed} {by}, but it is not sure that this verdict is of these weights.")
    if found.word == "rejected":
        failed = f", {len(found.failed)} failed" if found.failed else ", and the verdict says no"
        return paragraph(f"**REJECTED: {passed}{failed}** {by}. Do not use this policy but for research.")
    return paragraph(f"**accepted: {passed}** {by}. That is a result of simulation and no permission to drive.")


def _remarks(found: Judgement) -> list[str]:
    said = [f"{doubt}; judge the run again." for doubt in found.doubts]
    if found.verdicts and not shipped_gates(found.gates):
        said.append("The gates are not those that this version ships under that name.")
    most = (found.gates.get("config") or {}).get("episodes_per_bucket")
    if most is not None:
        said.append(f"At most {counted(most, 'episode')} of each bucket were played, not all that the suites state.")
    return [bullets(said)] if said else []


def _failures(found: Judgement) -> list[str]:
    return ["Failed:", bullets([_failure(one) for one in found.failed])] if found.failed else []


def _failure(one: Verdict) -> str:
    """A gate in words: its value, what was asked, and why that is not it."""
    # the name says what a summary's figure is; what is no key of one is said in words already
    about = "" if re.fullmatch(r"\w+(\.\w+)+", one.figure) else f"{plain(one.figure.partition(' (')[0])} "
    n = "" if one.n is None else f" (n {one.n:,})"
    why = (
        "" if not one.why or re.fullmatch(r"\S+ is (above|below) \S+", one.why) else f": {bare(plain(words(one.why)))}"
    )
    value, asked = bare(verdict_figure(one.model_dump())), bare(plain(words(one.bound)))
    return f"**{plain(one.group)}: {plain(one.name)}**: {about}{value}{n}, where {asked} was asked{why}."


def _others(evidence: Evidence) -> list[str]:
    if not evidence.others:
        return []
    return [paragraph(f"Of other weights or another dataset, and left out: {', '.join(map(code, evidence.others))}.")]


# ---- where it comes from ---------------------------------------------------------------------------------------------


def _origin(evidence: Evidence) -> str:
    found = _metadata(evidence)
    rows = [("weights", code(evidence.signature.weights_digest)), ("layout", code(evidence.signature.layout_hash))]
    for part in ("trained", "judged"):
        for one in found["made_with"][part] or [None]:
            rows.append((part, _stated(one) if one else "not recorded"))
    told = paragraph(f"{code(METADATA)} has this and more for programs. All digests are SHA-256.")
    return section("Where it comes from", table(("What", "Is"), rows), told)


def _stated(part: dict[str, Any]) -> str:
    version = (part.get("versions") or {}).get("roadsense", "of an unknown version")
    changed = ", with uncommitted changes" if part.get("git_dirty") else ""
    return f"roadsense {plain(version)}, commit {code(part.get('git_commit', 'unknown'))}{changed}"


def _metadata(evidence: Evidence) -> dict[str, Any]:
    signature, judged = evidence.signature, evidence.judgement
    low, high = signature.bounds
    return {
        "schema_version": SCHEMA_VERSION,
        "name": evidence.name,
        "policy": {
            "weights_digest": signature.weights_digest, "layout_hash": signature.layout_hash,
            "control": signature.control, "low": low, "high": high, "dead_band": signature.dead_band,
            "fallback": evidence.fallback, "messages_per_peer": signature.messages_per_peer,
            "widths": dataclasses.asdict(signature.widths),
        },
        "training": _training(evidence),
        "dataset": _dataset(evidence),
        "made_with": {
            "trained": _trained(evidence) or None,
            "judged": [_made(judged.environment)] if judged.environment else None,
        },
        "gates": {
            "verdict": judged.word, "doubts": judged.doubts, "gates": len(judged.verdicts) or None,
            "failed": [f"{one.group}: {one.name}" for one in judged.failed] if judged.verdicts else None,
            **{key: judged.gates.get(key) for key in ("name", "version", "digest")},
        },
        "formats": {
            one.name: {"passed": False if one.facts.get("passed") is False else None, "why": one.why} if one.why
            else {"passed": True, **{key: one.facts.get(key) for key in ("file", "digest", "largest", "bound")},
                  "closed_loop_passed": (one.facts.get("closed_loop") or {}).get("passed")}
            for one in evidence.formats
        },
    }  # fmt: skip


def _training(evidence: Evidence) -> dict[str, Any] | None:
    if not evidence.training:
        return None
    with reading(evidence.run / TRAINING_NAME):
        config = evidence.config
        own = {key: config[key] for key in ("seed", "algorithm")}
        asked = {key: config.get(key) for key in ("emulator_params", "further_radios")}
        found = {key: evidence.training.get(key) for key in ("timesteps", "finished", "dataset_digest", "radio_digest")}
        return {**own, **asked, **found, "kept_after_timesteps": (evidence.training.get("best") or {}).get("timesteps")}


def _dataset(evidence: Evidence) -> dict[str, Any] | None:
    manifest = evidence.manifest
    if not manifest:
        return None
    with reading(evidence.run / MANIFEST_NAME):
        return {
            "id": manifest["dataset_id"], "digest": manifest["content_digest"], "seed": manifest.get("seed"),
            "base_scenarios": manifest.get("base_scenarios"), "most_peers_in_training": most_peers(evidence),
            "base_scenario_hash": manifest.get("base_scenario_hash"), "git_commit": manifest.get("git_commit"),
            "emulator_params_hash": manifest.get("emulator_params_hash"), "radio": evidence.radio or None,
        }  # fmt: skip


def _trained(evidence: Evidence) -> list[dict[str, Any]]:
    """What each part of the training was made with; a training that was stopped has several."""
    with reading(evidence.run / TRAINING_NAME):
        return [_made(one) for one in evidence.training.get("made_with") or []]


def _made(part: dict[str, Any]) -> dict[str, Any]:
    return {key: part.get(key) for key in ("from_step", "git_commit", "git_dirty", "versions") if key in part}
