"""Everything that leaves a run with its policy: formats, their proof, their speed, and the card that says so."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError
from roadsense.export.card.page import write_card, write_metadata
from roadsense.export.closed_loop import ClosedLoopConfig, play_formats
from roadsense.export.formats import FORMATS, check_formats, known_formats, write_parity
from roadsense.export.latency import LATENCY_NAME, measure_latency, outside
from roadsense.export.make import Exported, make, settle, workplace
from roadsense.export.recording import Recording, record
from roadsense.files import write_json
from roadsense.manifest import read_dataset
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import SIGNATURE_NAME, read_signature
from roadsense.runs import CARD, CHECKSUMS, METADATA, RunFolder, read_record

LEAST_OBSERVATIONS = 10_000
"""Fewer prove nothing."""
_EPISODES = ".closed_loop"
"""Folder in a run where episodes are kept until all are played: stopped, the same command goes on there."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ClosedLoopConfig):
    """What is exported, and how it is proven."""

    formats: tuple[str, ...] = ()
    """onnx, fp16, int8, c, tensorrt, with commas or blanks between; default: all that can be had on this machine."""
    closed_loop: bool = True
    """Also play every format over the suite `matrix`, and compare its collisions, reactions and false brakes with the
    network's."""
    latency: bool = True
    """Also time every format on one core of this machine."""

    @property
    def names(self) -> list[str]:
        """The formats, each once.

        Raises:
            UsageError: one is unknown.
        """
        return check_formats([name for word in self.formats for name in word.split(",") if name])


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """What came of it."""

    files: list[Path]
    """That were written, the card last."""
    refused: list[str]
    """A sentence for each format that is not kept."""
    absent: list[str]
    """A sentence for each format that cannot be had here."""
    remarks: list[str]
    """What has to be said beside, a sentence each."""


def export_run(run_dir: Path, config: ExportConfig, *, progress: bool = True) -> Packaged:
    """Exports the policy of a run that nobody else works in, and keeps its checksums true.

    Raises:
        UsageError: a format is unknown, or there is no such run.
        InputMismatchError: a file of a packaged run has changed that this does not write; or see
            :func:`export_formats`.
    """
    names, folder, packaged = config.names, RunFolder(run_dir), (run_dir / CHECKSUMS).is_file()
    if not packaged:
        Policy.load(run_dir)  # refuses what is no run before a lock lies in it
    with folder.locked():
        if packaged:
            written = [file for name in names for file in FORMATS[name].written()]
            folder.verify(but=[*written, LATENCY_NAME, CARD, METADATA])
        dataset_dir, remarks = _dataset_of(run_dir)
        done = export_formats(run_dir, config, dataset_dir=dataset_dir, progress=progress)
        if packaged:
            folder.write_checksums()
    return Packaged(files=done.files, refused=done.refused, absent=done.absent, remarks=[*remarks, *done.remarks])


def export_formats(
    run_dir: Path, config: ExportConfig, *, dataset_dir: str | None = None, max_peers: int | None = None,
    progress: bool = True,
) -> Packaged:  # fmt: skip
    """Makes formats, compares, plays and times them, and puts those into the run that hold what is asked of them.

    Until the end nothing in the run is changed.

    Args:
        run_dir: the run folder.
        config: what, and how it is proven.
        dataset_dir: whose ``val/`` is calibrated on; None: the built-in scenarios.
        max_peers: see :func:`roadsense.export.recording.record`.
        progress: whether to show a bar on stderr.

    Raises:
        UsageError, RoadsenseError, InputMismatchError: see :func:`roadsense.export.make.make`.
    """
    names = config.names
    recording = record(run_dir, dataset_dir=dataset_dir, max_peers=max_peers)
    if len(recording.observations.ego) < LEAST_OBSERVATIONS:
        raise RoadsenseError(
            f"{run_dir}: made only {len(recording.observations.ego)} decisions in the suites, {LEAST_OBSERVATIONS} are"
            " compared at least; train it again."
        )
    with workplace(run_dir) as work:
        result = make(work, names, recording, known_formats(run_dir))
        if config.closed_loop:
            _play(work, run_dir / _EPISODES, config, result, progress)
        timed = measure_latency(work, recording.observations) if config.latency else None
        files = settle(work, run_dir, result)
    return _conclude(run_dir, result, recording, timed, files)


def _play(work: Path, episodes: Path, config: ExportConfig, result: Exported, progress: bool) -> None:
    """Plays what was made; a format that drives otherwise is refused."""
    found = play_formats(work, result.made, config, folder=episodes, progress=progress)
    for name, facts in found.items():
        result.facts[name]["closed_loop"] = facts
        if not facts["passed"]:
            result.refuse(name, f"in closed loop {facts['why']}")
            FORMATS[name].remove(work)
    shutil.rmtree(episodes, ignore_errors=True)


def _conclude(
    run_dir: Path, result: Exported, recording: Recording, timed: dict[str, Any] | None, files: list[Path]
) -> Packaged:
    """Writes down what was found."""
    write_json(run_dir / SIGNATURE_NAME, read_signature(run_dir).document())
    write_parity(run_dir, result.facts, recording.origin)
    remarks = []
    if timed is not None:
        write_json(run_dir / LATENCY_NAME, timed)
        remarks = [f"on this machine {said}." for said in outside(timed)]
    if "onnx" in result.refused and (run_dir / "gates.json").is_file():
        remarks.append("the verdict in gates.json is of a model.onnx that is not there any more; judge the run again.")
    write_metadata(run_dir)
    return Packaged(
        files=[*files, write_card(run_dir)],
        refused=[f"{run_dir}: {name} is not kept: {why}." for name, why in result.refused.items()],
        absent=[f"{name}: {why}." for name, why in result.absent.items()],
        remarks=remarks,
    )


def _dataset_of(run_dir: Path) -> tuple[str | None, list[str]]:
    """The dataset that a run was trained on, where it is at hand; and what is to be said where it is not."""
    training = read_record(run_dir / "training.json")
    stated = (training.get("config") or {}).get("dataset_dir")
    if not stated:
        return None, []
    try:
        if read_dataset(Path(stated)).digest == training.get("dataset_digest"):
            return stated, []
        why = "is another one"
    except RoadsenseError:
        why = "is not there"
    return None, [f"{stated}: the dataset of the run {why}, so formats are calibrated on the built-in scenarios."]
