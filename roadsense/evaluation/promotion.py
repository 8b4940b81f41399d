"""Judges a run: plays the suites that its gates need, answers every gate, and writes the verdict into the run."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roadsense.convoy.observation import Observation
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.evaluation.controls import SHUFFLED, Shuffled
from roadsense.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from roadsense.evaluation.gates import RUN, GateSpec, Judge, Verdict, read_gates, table
from roadsense.evaluation.journal import write_episodes
from roadsense.evaluation.rollout import record_observations
from roadsense.evaluation.suites import read_suite
from roadsense.files import write_json, write_text
from roadsense.manifest import file_digest
from roadsense.policies.base import BatchPolicy
from roadsense.policies.baselines import BASELINES, make_baseline
from roadsense.policies.runtime import Policy
from roadsense.runs import (
    CARD,
    CHECKSUMS,
    COMPLETE,
    METADATA,
    REJECTED,
    STATUS,
    RunFolder,
    environment,
    read_record,
)

GATES_NAME, TABLE_NAME, SUITES_NAME = "gates.json", "gates.txt", "suites"
REPORT_NAME, REPLAYS_NAME = "report.html", "replays"
"""Page of a verdict; a new verdict removes that of the earlier one."""
_OWN = (STATUS, GATES_NAME, TABLE_NAME, f"{SUITES_NAME}/", REPORT_NAME, f"{REPLAYS_NAME}/", CARD, METADATA)
"""What a verdict writes, or makes untrue, and what a report writes: they say nothing of what is judged."""
_WORK = ".gates"
"""Folder in a run where episodes are kept until the verdict is written."""

EXACT = ("safetensors", "onnx")
"""Formats that must decide as the network does."""

_TIMED, _WARM = 2000, 200
"""Decisions that are timed, after these that are not."""

Answer = tuple[float | None, int | None, str]


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """How a run is judged."""

    gates: str = "default"
    """Gates by name or file."""
    engine: str = "native"
    """Who moves the cars."""
    confirm: int = 20
    """So many episodes of each policy and suite are played once more on SUMO and must come out the same."""
    episodes_per_bucket: int | None = None
    """At most so many episodes of each bucket of a suite, to see that all works; gates that need more then fail. None:
    all that the suites state."""


def judge_run(run: Path, config: GateConfig, *, progress: bool = True) -> list[Verdict]:
    """Judges a packaged run (:func:`judge`), and states the verdict in its STATUS and its checksums.

    Raises:
        RoadsenseError: another process is at work in the run; see :func:`judge`.
    """
    folder = RunFolder(run)
    Policy.load(run)  # refuses what is no run before a lock lies in it
    with folder.locked():
        intact = not _integrity(folder)[2]
        verdicts = judge(folder, config, progress=progress)
        if (run / CHECKSUMS).is_file():
            folder.set_status(COMPLETE if accepted(verdicts) else REJECTED)
        if intact:  # or a file that was changed would be among them from now on
            folder.write_checksums()
    return verdicts


def accepted(verdicts: Iterable[Verdict]) -> bool:
    """Whether every gate was passed."""
    return all(verdict.passed for verdict in verdicts)


def judge(
    folder: RunFolder, config: GateConfig, *, may_differ: Collection[str] = (), progress: bool = True
) -> list[Verdict]:
    """Answers every gate for a run that nobody else works in; writes ``gates.json``, its table and all suites' figures.

    Stopped, the same call goes on where it was.

    Args:
        folder: of the run.
        config: gates, and how their suites are played.
        may_differ: files that may have changed since the run was packaged, beside those that a verdict writes.
        progress: whether to show bars on stderr.

    Raises:
        UsageError: there is no policy in the folder, or gates or a suite are unknown.
        InputMismatchError: the policy reads another layout of observations.
        RoadsenseError: engines disagree, or something cannot be written.
    """
    spec = read_gates(config.gates)
    run = folder.path
    policy = Policy.load(run)
    _verify(spec, run, policy, config)
    checks = {"integrity": _integrity(folder, may_differ), "learning": _learning(run), "latency": _latency(policy),
              **_parity(run)}  # fmt: skip
    evaluations = _play(run, spec, policy, config, progress)
    answers = Judge(evaluations, policy.name, checks)
    verdicts = [answers.judge(gate) for gate in spec.gates]
    _write(run, spec, config, evaluations, policy.name, verdicts)
    return verdicts


def _verify(spec: GateSpec, run: Path, judged: BatchPolicy, config: GateConfig) -> None:
    """Refuses what would only be found at the end: a suite, policy, radio, bucket or figure that is not there."""
    if judged.name in BASELINES:
        raise UsageError(f"{run}: a run may not be named like a baseline; rename its folder.")
    with contextlib.ExitStack() as stack:
        suites = {name: stack.enter_context(read_suite(name, config.episodes_per_bucket)) for name in spec.needs()}
        spec.verify(suites)
    for name in itertools.chain.from_iterable(spec.needs().values()):
        _policy(name, judged)


def _policy(name: str, judged: BatchPolicy) -> BatchPolicy:
    kind, shuffled, _ = name.partition(SHUFFLED)
    policy = judged if kind == RUN else make_baseline(kind)
    return Shuffled(policy) if shuffled else policy


def _play(run: Path, spec: GateSpec, judged: BatchPolicy, config: GateConfig, progress: bool) -> dict[str, Evaluation]:
    """The evaluations that the gates need, by suite."""
    found = {}
    for suite, names in spec.needs().items():
        policies = [_policy(name, judged) for name in names]
        asked = EvaluationConfig(
            suite=suite, engine=config.engine, confirm=config.confirm, episodes_per_bucket=config.episodes_per_bucket
        )
        found[suite] = evaluate(policies, asked, folder=run / _WORK / Path(suite).stem, progress=progress)
        if found[suite].disagreements:
            raise RoadsenseError(f"suite {suite}: {found[suite].disagreements[0]}")
    return found


def _integrity(folder: RunFolder, may_differ: Collection[str] = ()) -> Answer:
    if not (folder.path / CHECKSUMS).is_file():
        return None, None, "the run has no checksums, finish it first"
    try:
        folder.verify(but=[*may_differ, *_OWN])
    except InputMismatchError as error:
        return 0.0, None, str(error)
    return 1.0, None, ""


def _learning(run: Path) -> Answer:
    """The median over the training of the explained variance: of returns by the critic, of the teacher's actions by the
    student, the lesser where there are both."""
    found = read_record(run / "training.json")
    explained = [found.get(name) for name in ("explained_variance", "imitation_explained_variance")]
    medians = [one.get("median") for one in explained if isinstance(one, dict) and one.get("n") != 0]
    known = [float(one) for one in medians if isinstance(one, int | float) and math.isfinite(one)]
    if not known or len(known) < len(medians):
        return None, None, ""
    return min(known), None, ""


def _parity(run: Path) -> dict[str, Answer]:
    """What the comparison of exported formats with the network found: the weights and ONNX exactly, all as sets."""
    stated = read_record(run / "parity.json").get("formats")
    found = {name: facts for name, facts in (stated if isinstance(stated, dict) else {}).items()
             if isinstance(facts, dict) and facts.get("passed") is True}  # fmt: skip

    def worst(names: Iterable[str], *figures: str) -> Answer:
        values = [found.get(name, {}).get(figure) for name in names for figure in figures]
        if not values or not all(isinstance(value, int | float) for value in values):
            return None, None, ""
        compared = min(int(found[name].get("observations") or 0) for name in names)
        files = {run / str(found[name].get("file")): found[name].get("digest") for name in names}
        others = [file for file, digest in files.items() if not file.is_file() or file_digest(file) != digest]
        why = f"{others[0].name} is not the file that was compared" if others else ""
        return float(np.max(np.array(values, float))), compared, why

    return {"parity": worst(EXACT, "largest"), "set_laws": worst([*found], "permuted", "padded")}


def _latency(policy: BatchPolicy) -> Answer:
    """99th percentile of the time of one decision [ms], on this machine, of observations of one episode."""
    from roadsense.convoy.player import Player

    player = Player(1, split="val", engine="native", control=policy.control, messages_per_peer=policy.messages_per_peer)
    try:
        seen = record_observations(policy, player, 1)
    finally:
        player.close()
    if len(seen.ego) == 0:
        return None, 0, "the policy made no decision that could be timed"
    policy.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64))
    taken = []
    for turn in range(_WARM + _TIMED):
        one = Observation._make(np.ascontiguousarray(array[[turn % len(array)]]) for array in seen)
        begun = time.perf_counter()
        policy.act_many(one, None)
        taken.append(time.perf_counter() - begun)
    return 1000.0 * float(np.percentile(taken[_WARM:], 99)), _TIMED, ""


def _write(
    run: Path, spec: GateSpec, config: GateConfig, evaluations: Mapping[str, Evaluation], name: str,
    verdicts: list[Verdict],
) -> None:  # fmt: skip
    """Figures of every suite and the judged policy's episodes, then the verdict."""
    for suite, evaluation in evaluations.items():
        write_json(run / SUITES_NAME / f"{Path(suite).stem}.json", evaluation.document())
        write_episodes(
            run / SUITES_NAME / f"{Path(suite).stem}.csv", [row for row in evaluation.rows if row.policy == name]
        )
    document: dict[str, Any] = {
        "schema_version": 1,
        "gates": {"name": spec.name, "version": spec.version, "digest": spec.digest, "config": asdict(config)},
        "accepted": accepted(verdicts),
        "suites": {suite: evaluation.identity["suite"] for suite, evaluation in evaluations.items()},
        "environment": environment(),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
    }
    write_json(run / GATES_NAME, document)
    write_text(run / TABLE_NAME, table(verdicts) + "\n")
    shutil.rmtree(run / _WORK, ignore_errors=True)
    for told in (REPORT_NAME, CARD, METADATA):  # of an earlier verdict
        (run / told).unlink(missing_ok=True)
