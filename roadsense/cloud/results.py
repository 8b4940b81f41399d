"""What a job leaves behind, and how it is kept: finished work by its name, anything else by attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roadsense.errors import RoadsenseError
from roadsense.runs import RunFolder, read_record
from roadsense.storage import upload

RUNS, DATASETS = "runs", "datasets"
_RESULTS = ("training.json", "sweep.json")
"""Of a run that is never packaged, what says whether it is finished."""


def value_of(flag: str, command: Sequence[str], default: str) -> str:
    """What a command line states for a flag, given as two words or with "="."""
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else next(iter(command[place + 1 : place + 2]), default)
    return default


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders in which a command makes runs and datasets."""

    runs_dir: Path
    datasets_dir: Path
    run_dir: Path | None = None
    """A single run that is named itself, by ``train --run-dir``."""

    @classmethod
    def of(cls, command: Sequence[str]) -> Places:
        """As the command line states them, or by default."""
        run_dir = value_of("--run-dir", command, "")
        return cls(
            runs_dir=Path(value_of("--runs-dir", command, "runs")),
            datasets_dir=Path(value_of("--datasets-dir", command, "scenarios/datasets")),
            run_dir=Path(run_dir) if run_dir else None,
        )

    def looked_in(self) -> list[Path]:
        """The folders themselves."""
        return [*([] if self.run_dir is None else [self.run_dir]), self.runs_dir, self.datasets_dir]

    def folders(self) -> dict[Path, str]:
        """Every run and dataset that is there → its kind; runs first, for a dataset can be made again."""
        single = [self.run_dir] if self.run_dir is not None and self.run_dir.is_dir() else []
        found = dict.fromkeys([*single, *_folders(self.runs_dir)], RUNS)
        return {**found, **dict.fromkeys(_folders(self.datasets_dir), DATASETS)}

    def state(self) -> dict[Path, tuple[int, int]]:
        """Folder → how many files it has and when the newest was written: what changes where somebody works."""
        return {folder: _state(folder) for folder in self.folders()}

    def touched(self, before: dict[Path, tuple[int, int]]) -> dict[Path, str]:
        """Folders that have changed since → kind, and the datasets that these runs were made from."""
        found = {folder: kind for folder, kind in self.folders().items() if _state(folder) != before.get(folder)}
        sources = (_dataset_of(folder) for folder, kind in found.items() if kind == RUNS)
        return {**found, **{source: DATASETS for source in sources if source is not None}}


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _state(folder: Path) -> tuple[int, int]:
    times = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # written beside and renamed in this moment
            times.append(path.stat().st_mtime_ns)
    return len(times), max(times, default=0)


def _dataset_of(run: Path) -> Path | None:
    try:
        stated = RunFolder(run).finished_stages()["generate"]["dataset_dir"]
    except (RoadsenseError, KeyError, TypeError):
        return None
    return Path(stated) if isinstance(stated, str) and Path(stated).is_dir() else None


def keep(folders: dict[Path, str], store: str, attempt: str, say: Callable[[str], None]) -> list[str]:
    """Uploads folders, whatever state they are in.

    A finished run goes to ``runs/<name>`` below the store, a dataset to ``datasets/<name>``. What is not finished, or
    would have to overwrite something there, goes to ``attempts/<attempt>/`` as it is. A training or sweep of its own
    counts as finished where its result says so, though nothing has packaged it.

    Args:
        folders: folder → kind.
        store: ``s3://bucket/prefix``.
        attempt: name of this attempt.
        say: shows one line.

    Returns:
        One sentence for each folder that could not be kept.
    """
    failed = []
    for folder, kind in folders.items():
        reasons: list[str] = []
        for url, as_it_is in _targets(folder, kind, store.rstrip("/"), attempt):
            try:
                say(f"{folder} -> {url}: {upload(folder, url, as_it_is=as_it_is, progress=False)}")
                reasons.clear()
                break
            except Exception as error:  # whatever it is, the next folder may still be kept
                reasons.append(str(error))
                say(f"{folder} -> {url}: {error}")
        failed += reasons[-1:]
    return failed


def _targets(folder: Path, kind: str, store: str, attempt: str) -> Iterator[tuple[str, bool]]:
    packaged = kind == DATASETS or RunFolder(folder).complete
    if packaged or _has_finished(folder):
        yield f"{store}/{kind}/{folder.name}", not packaged
    yield f"{store}/attempts/{attempt}/{kind}/{folder.name}", True


def _has_finished(folder: Path) -> bool:
    """Whether it is a training or sweep of its own that is finished; in a pipeline's run that is one stage of many."""
    if RunFolder(folder).status is not None:
        return False
    try:
        return any(read_record(folder / name).get("finished") is True for name in _RESULTS)
    except RoadsenseError:  # damaged
        return False
