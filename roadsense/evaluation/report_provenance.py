"""Where a run's report comes from: commits, versions, digests, seeds."""

from __future__ import annotations

from typing import Any

from roadsense.evaluation.gates import shipped_gates
from roadsense.evaluation.report_run import RunRecord, SuiteResult
from roadsense.evaluation.report_text import Markup, element, missing, number

_MOST_RADIOS = 8
"""More are not listed one by one."""


def provenance(run: RunRecord) -> Markup:
    """What the run and its verdict were made from."""
    pairs: list[tuple[str, object]] = [("run", run.path.name)]
    if run.command:
        pairs.append(("command", run.command))
    config, manifest = run.records["config.json"], run.records["manifest.json"]
    pairs += [(name, config[name]) for name in ("seed", "preset", "dataset_id") if name in config]
    pairs += [(f"dataset {name}", manifest[name]) for name in ("dataset_id", "seed", "git_commit") if name in manifest]
    pairs += [(f"dataset {name}", value) for name, value in manifest.items() if name.endswith("digest")]
    pairs += _machine("trained", run.records["environment.json"] or _trained_with(run)) + _machine(
        "judged", run.gates.get("environment", {})
    )
    gates = run.gates.get("gates")
    if isinstance(gates, dict):
        told = f"{gates.get('name')}, version {gates.get('version')}, {gates.get('digest')}"
        pairs.append(("gates", told if shipped_gates(gates) else f"{told}; not those that are shipped"))
    parity = run.records["parity.json"]
    formats = parity.get("formats")
    for name, facts in (formats if isinstance(formats, dict) else {}).items():
        pairs.append((f"{name} against the network", _format(facts)))
    for name, weights in _weights(run).items():
        pairs.append((f"weights in {name}", weights))
    pairs += [(f"suite {suite.stem}", _suite(suite)) for suite in run.suites.values()]
    inside = [element("dt", name) + element("dd", value) for name, value in pairs]
    return element("dl", *map(Markup, inside))


def _format(facts: Any) -> str:
    """What was found of an exported format."""
    if not isinstance(facts, dict) or not facts.get("available", True):
        return f"not exported: {facts.get('why')}" if isinstance(facts, dict) else "unknown"
    told = f"largest difference {number(facts.get('largest'))} of {facts.get('observations', 'unknown')} observations"
    return told if facts.get("passed") else f"{told}; not kept: {facts.get('why')}"


def _weights(run: RunRecord) -> dict[str, str]:
    """Digest of the judged weights; by suite where suites were played by different ones."""
    found = {name: str(suite.policies[suite.judged].get("weights_digest")) for name, suite in run.suites.items()}
    return {"all suites": next(iter(found.values()))} if len(set(found.values())) == 1 else found


def _trained_with(run: RunRecord) -> Any:
    """Commit and versions of the last part of a training that no pipeline began."""
    made = run.records["training.json"].get("made_with")
    return made[-1] if isinstance(made, list) and made else made


def _machine(what: str, found: Any) -> list[tuple[str, object]]:
    if not isinstance(found, dict) or not found:
        return [(what, missing("environment not recorded"))]
    changed = " with changes" if found.get("git_dirty") else ""
    versions = found.get("versions") or {}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [
        (f"{what} at commit", f"{found.get('git_commit')}{changed}"),
        (f"{what} on", f"Python {found['python']}, {found.get('platform')}" if "python" in found else "not recorded"),
        (f"{what} with", shown or "versions not recorded"),
    ]


def _suite(suite: SuiteResult) -> str:
    document, about = suite.document, suite.document.get("suite") or {}
    confirmed = document["policies"][suite.judged].get("confirmed") or {}
    radios = document.get("radios") or {}
    shown = ", ".join(f"{name} {str(digest)[:12]}" for name, digest in radios.items())
    return (
        f"version {about.get('version')}, digest {about.get('digest')}, {document.get('episodes')} episodes, engine"
        f" {document.get('engine')}, {len(confirmed.get('episodes') or ())} played again on SUMO of which"
        f" {len(confirmed.get('differing') or ())} differ, root seed {document.get('root_seed')}, events version"
        f" {document.get('events_version')}; radios "
        + (shown if len(radios) <= _MOST_RADIOS else f"{len(radios)}, their digests in suites/{suite.stem}.json")
    )
