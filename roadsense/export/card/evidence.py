"""What a run holds for its card: only what is of the weights that lie in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roadsense.errors import RoadsenseError
from roadsense.evaluation.gates import Verdict
from roadsense.evaluation.promotion import GATES_NAME, SUITES_NAME, accepted
from roadsense.evaluation.report_run import SuiteResult
from roadsense.export.formats import FORMATS, PARITY_NAME, known_formats
from roadsense.export.latency import LATENCY_NAME
from roadsense.manifest import MANIFEST_NAME
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature
from roadsense.runs import read_record

METRICS_NAME, TRAINING_NAME = "metrics.json", "training.json"

Word = Literal["accepted", "rejected", "not judged"]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Says of a file which is JSON, but not of the kind that its name promises, that it is not.

    Raises:
        RoadsenseError: names the file.
    """
    try:
        yield
    except RoadsenseError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise RoadsenseError(
            f"{path}: does not hold what a file of that name should ({type(error).__name__}: {error}); restore it, or"
            " make it again."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What gates said of the policy."""

    word: Word
    verdicts: list[Verdict]
    doubts: list[str]
    """Why the verdict may not be of these weights, a clause each."""
    gates: Mapping[str, Any]
    """Name, version, digest and configuration of the gates."""
    environment: dict[str, Any]
    """Commit and versions that it was judged with."""

    @property
    def failed(self) -> list[Verdict]:
        """The gates that were not passed."""
        return [one for one in self.verdicts if not one.passed]


@dataclass(frozen=True, kw_only=True)
class FormatState:
    """A form of the policy as the run has it."""

    name: str
    facts: Mapping[str, Any]
    """What ``parity.json`` says of it; empty where that is nothing, or not of this file."""
    why: str
    """Why nobody should load it; empty where it is there and proven."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records of a run; what is of other weights is left out, and ``others`` names it."""

    run: Path
    signature: Signature
    fallback: float
    """What to do where there is no decision."""
    training: dict[str, Any]
    config: dict[str, Any]
    """Of the training."""
    manifest: dict[str, Any]
    """Of the dataset that it was trained on."""
    radio: str
    """Name of the dataset's radio, from the evaluation on that dataset; empty where nothing tells."""
    metrics: dict[str, Any]
    latency: dict[str, Any]
    suites: dict[str, SuiteResult]
    judgement: Judgement
    formats: list[FormatState]
    others: list[str]
    """Files of the run that are of other weights, or of another dataset."""

    @property
    def name(self) -> str:
        """That of the run when it was evaluated, else its folder's."""
        return str(self.metrics.get("run_id") or self.run.resolve().name)

    def lacks(self, name: str) -> str:
        """Why nothing is said of what a file would tell, in a clause."""
        return f"{name} is of other weights or another dataset" if name in self.others else f"no {name}"


def read_evidence(run: Path) -> Evidence:
    """Reads a run.

    Raises:
        RoadsenseError: there is no policy, or a file is damaged.
        InputMismatchError: the policy reads another layout of observations.
    """
    policy, others = Policy.load(run), []
    signature = policy.signature

    def own(name: str, document: dict[str, Any], digest: object, of: str = signature.weights_digest) -> dict[str, Any]:
        if document and digest != of:
            others.append(name)
            return {}
        return document

    records = {name: read_record(run / name) for name in (TRAINING_NAME, MANIFEST_NAME, METRICS_NAME, LATENCY_NAME)}
    training, manifest = records[TRAINING_NAME], records[MANIFEST_NAME]
    training = own(TRAINING_NAME, training, training.get("weights_digest"))
    if records[TRAINING_NAME]:
        manifest = own(MANIFEST_NAME, manifest, manifest.get("content_digest"), str(training.get("dataset_digest")))
    metrics = records[METRICS_NAME]
    with reading(run / METRICS_NAME):
        played = metrics["evaluation"]["policies"][metrics["policy"]] if metrics else {}
        metrics = own(METRICS_NAME, metrics, played.get("weights_digest"))
        radio = _radio(metrics.get("evaluation") or {}, manifest)
    with reading(run / TRAINING_NAME):
        config = dict(training.get("config") or {})
    suites, every = {}, _suites(run)
    for stem, suite in every.items():
        with reading(run / SUITES_NAME / f"{stem}.json"):
            if own(f"{SUITES_NAME}/{stem}.json", suite.document, _weights(suite)):
                suites[stem] = suite
    judgement = _judgement(run, every, signature)
    return Evidence(
        run=run, signature=signature, fallback=policy.fallback, training=training, config=config, manifest=manifest,
        radio=radio, metrics=metrics, latency=records[LATENCY_NAME], suites=suites, judgement=judgement,
        formats=_formats(run), others=others,
    )  # fmt: skip


def _radio(played: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    same = bool(manifest) and played.get("dataset_digest") == manifest.get("content_digest")
    radios = list(played.get("radios") or {})
    return radios[0] if same and len(radios) == 1 and played["config"].get("radio") is None else ""


def _suites(run: Path) -> dict[str, SuiteResult]:
    return {
        file.stem: SuiteResult(file.stem, read_record(file), []) for file in sorted((run / SUITES_NAME).glob("*.json"))
    }


def _weights(suite: SuiteResult) -> object:
    return suite.policies[suite.judged].get("weights_digest")


def _judgement(run: Path, suites: Mapping[str, SuiteResult], signature: Signature) -> Judgement:
    """The verdict. One that may be of other weights accepts nothing, but rejects."""
    document = read_record(run / GATES_NAME)
    with reading(run / GATES_NAME):
        verdicts = [Verdict.model_validate(one) for one in document["verdicts"]] if document else []
        if not verdicts:
            return Judgement(word="not judged", verdicts=[], doubts=[], gates={}, environment={})
        doubts = [] if document["suites"] else ["the verdict rests on no suite, so nothing ties it to these weights"]
        for name, stated in document["suites"].items():
            stem = Path(name).stem
            doubts += [f"{SUITES_NAME}/{stem}.json {said}" for said in _differs(suites.get(stem), stated, signature)]
        word: Word = "accepted" if document["accepted"] is True and accepted(verdicts) else "rejected"
        word = "not judged" if word == "accepted" and doubts else word
        return Judgement(
            word=word, verdicts=verdicts, doubts=doubts, gates=dict(document["gates"]),
            environment=document.get("environment") or {},
        )  # fmt: skip


def _differs(suite: SuiteResult | None, stated: Mapping[str, Any], signature: Signature) -> Iterator[str]:
    if suite is None:
        yield "is not in the run"
    elif (suite.document.get("suite") or {}).get("digest") != stated.get("digest"):
        yield "is not what the verdict rests on"
    elif _weights(suite) != signature.weights_digest:
        yield "was played by other weights"


def _formats(run: Path) -> list[FormatState]:
    with reading(run / PARITY_NAME):
        document = read_record(run / PARITY_NAME)
        stated, known = document.get("formats") or {}, known_formats(run)
        same = known.get("safetensors", {}).get("passed") is True
        return [
            FormatState(name=name, facts=known.get(name, {}) if same else {}, why=_why(run, name, stated, known, same))
            for name in dict.fromkeys([*FORMATS, *stated])
        ]


def _why(run: Path, name: str, stated: Mapping[str, Any], known: Mapping[str, Any], same: bool) -> str:
    """Why a format is not to be loaded."""
    if name not in FORMATS:
        return "this version does not know it"
    there = FORMATS[name].path(run) is not None
    if name not in stated:
        return "not compared with the network" if there else "not exported"
    facts = known.get(name)
    if facts is None:
        return "its file is not the one that was compared" if there else "its file is not in the run"
    if not facts.get("available", True):
        return f"not exported: {facts.get('why')}"
    if facts.get("passed") is not True:
        return f"refused: {facts.get('why')}"
    return "" if same else "compared with other weights"
