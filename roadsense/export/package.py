"""Everything that leaves a run with its policy: formats, their proof, their speed, and the card that says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.export.card.page import write_card, write_metadata
from roadsense.export.closed_loop import ClosedLoopConfig, play_formats
from roadsense.export.formats import FORMATS, PARITY_NAME, Exported, check_formats, export, known_formats, write_parity
from roadsense.export.latency import LATENCY_NAME, outside, write_latency
from roadsense.export.recording import record
from roadsense.policies.engine import ENGINES_NAME
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import read_signature
from roadsense.runs import CARD, CHECKSUMS, METADATA, RunFolder

WRITTEN = (
    PARITY_NAME, LATENCY_NAME, CARD, METADATA, f"{ENGINES_NAME}/",
    *(file for form in FORMATS.values() if form.is_made for file in form.files),
)  # fmt: skip
"""What an export writes into a run."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ClosedLoopConfig):
    """What is exported, and how it is proven."""

    formats: tuple[str, ...] = ()
    """onnx, fp16, int8, c, tensorrt, with commas or blanks between; none: all that can be had on this machine."""
    closed_loop: bool = True
    """Also play every format over the suite `matrix`, and hold what happens against what happens to the network."""
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

    exported: Exported
    remarks: list[str]
    """What has to be said beside, a sentence each."""


def export_run(run_dir: Path, config: ExportConfig, *, progress: bool = True) -> Packaged:
    """Exports the policy of a run that nobody else works in, and keeps its checksums true.

    Raises:
        UsageError: a format is unknown, or there is no such run.
        InputMismatchError: a file of a packaged run has changed; or see :func:`export_formats`.
    """
    config.names  # noqa: B018 - refuses an unknown one before anything is written
    Policy.load(run_dir)  # and what is no run, before a lock lies in it
    folder = RunFolder(run_dir)
    with folder.locked():
        packaged = (run_dir / CHECKSUMS).is_file()
        if packaged:
            folder.verify(but=WRITTEN)
        try:
            return export_formats(run_dir, config, progress=progress)
        finally:  # also where a format was refused, and its file removed
            if packaged:
                folder.write_checksums()


def export_formats(
    run_dir: Path, config: ExportConfig, *, dataset_dir: str | None = None, max_peers: int | None = None,
    progress: bool = True,
) -> Packaged:  # fmt: skip
    """Exports, compares, plays and times; whatever is not within its bounds is taken out of the run again.

    Args:
        run_dir: the run folder.
        config: what, and how it is proven.
        dataset_dir: whose ``val/`` is calibrated on; None: the built-in scenarios.
        max_peers: see :func:`roadsense.export.recording.record`.
        progress: whether to show a bar on stderr.

    Raises:
        UsageError, RoadsenseError, InputMismatchError: see :func:`roadsense.export.formats.export`.
    """
    recording = record(run_dir, dataset_dir=dataset_dir, max_peers=max_peers)
    result = export(run_dir, config.names, recording)
    if config.closed_loop:
        _play(run_dir, config, result, recording.origin, progress)
    remarks = []
    if config.latency:
        remarks = [f"on this machine {said}" for said in outside(write_latency(run_dir, recording.observations))]
    write_metadata(run_dir)
    result.files.append(write_card(run_dir))
    return Packaged(exported=result, remarks=remarks)


def _play(run_dir: Path, config: ExportConfig, result: Exported, origin: dict[str, Any], progress: bool) -> None:
    """Plays what was exported; a format that drives otherwise is taken out."""
    known = known_formats(run_dir)
    signature = read_signature(run_dir)
    made = [name for name in config.names if known[name].get("passed") and not FORMATS[name].why_not(signature)]
    found = play_formats(run_dir, made, config, progress=progress)
    for name, facts in found.items():
        known[name]["closed_loop"] = facts
        if facts["passed"]:
            continue
        path = run_dir / known[name]["file"]
        FORMATS[name].remove(run_dir, path)
        known[name] |= {"passed": False, "why": f"in closed loop {facts['why']}"}
        result.files[:] = [file for file in result.files if file != path]
        result.refused.append(f"{path}: in closed loop {facts['why']}; it was removed.")
    write_parity(run_dir, known, origin)
