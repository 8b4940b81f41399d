"""A run folder: what a pipeline leaves behind, and how it is continued."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.files import cannot_write, write_json, write_text
from roadsense.manifest import file_digest

CHECKSUMS = "checksums.sha256"
STATUS = "STATUS"
CONFIG = "config.json"
PROGRESS = "progress.json"
CARD, METADATA = "CARD.md", "metadata.json"
COMPLETE = "complete"
REJECTED = "rejected"

_LIBRARIES = (
    "roadsense", "numpy", "scipy", "numba", "gymnasium", "libsumo", "sumolib", "pydantic", "torch", "stable-baselines3",
    "sb3-contrib", "ray", "safetensors", "onnx", "onnxruntime", "tensorrt",
)  # fmt: skip
_RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")
_NOT_SUMMED = {CHECKSUMS}
_MEND = "restore it, or remove the run and begin again"


def canonical_digest(document: Any) -> str:
    """SHA-256 (hex) of a JSON document, independent of the order of keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def git_state(folder: Path) -> tuple[str, bool]:
    """(commit, dirty) of the checkout that tracks ``folder``, or of the one an image was built from.

    Dirty is a checkout with changes to tracked files, or with files beside them that nobody added where code,
    scenarios and parameters lie. ("unknown", False) where neither commit is known, as in an environment that was
    installed inside of somebody else's checkout.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        shipped = [str(place) for place in (folder, folder.parent / "params", folder.parent / "scenarios")]
        return commit, bool(changed or _git(folder, "ls-files", "--others", "--exclude-standard", "--", *shipped))
    except (OSError, subprocess.SubprocessError):
        built_from, mark, _ = os.environ.get("ROADSENSE_GIT_COMMIT", "unknown").partition("-dirty")
        return built_from, bool(mark)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def environment() -> dict[str, Any]:
    """Versions, machine and commit a result was made with."""
    found: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": commit,
        "git_dirty": dirty,
        "container_image": os.environ.get("ROADSENSE_IMAGE"),
        "versions": found,
    }


def made_with() -> dict[str, Any]:
    """Commit and versions alone: what a later part of a result may have been made with otherwise."""
    found = environment()
    return {key: found[key] for key in ("git_commit", "git_dirty", "versions")}


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that a run keeps about itself; empty where there is no such file.

    Raises:
        RoadsenseError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RoadsenseError(f"{path}: cannot be read ({error}); {_MEND}.") from None
    if not isinstance(document, dict):
        raise RoadsenseError(f"{path}: does not hold a JSON object; {_MEND}.")
    return document


@dataclass(frozen=True)
class RunFolder:
    """One folder below ``runs/``."""

    path: Path

    @classmethod
    def named(cls, runs_dir: Path, run_id: str) -> RunFolder:
        """The folder of that id.

        Raises:
            UsageError: the id would not make a plain folder name.
        """
        if not _RUN_ID.match(run_id):
            raise UsageError(f"run id {run_id!r} is not usable; take letters, digits, '.', '_' and '-', at most 80.")
        return cls(runs_dir / run_id)

    @property
    def status(self) -> str | None:
        """First line of STATUS, or None for a new run."""
        file = self.path / STATUS
        return file.read_bytes().decode("utf-8", "replace").strip() if file.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether it was packaged to its last file, the checksums."""
        return self.status in (COMPLETE, REJECTED) and (self.path / CHECKSUMS).is_file()

    def begin(self, config: dict[str, Any]) -> None:
        """Makes the folder, or finds it with the same configuration.

        Raises:
            InputMismatchError: it was begun with another configuration.
            RoadsenseError: it cannot be written.
        """
        recorded = self.path / CONFIG
        if recorded.is_file():
            self.refuse_other(config)
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        write_json(self.path / "environment.json", environment())
        write_text(self.path / "command.txt", " ".join(["roadsense", *sys.argv[1:]]) + "\n")
        write_json(recorded, config)

    def refuse_other(self, config: dict[str, Any]) -> None:
        """Does nothing for a new run, or one that was begun with this configuration.

        Raises:
            InputMismatchError: it was begun with another one; names what differs.
        """
        recorded = self.path / CONFIG
        if not recorded.is_file():
            return
        before = read_record(recorded)
        if canonical_digest(before) != canonical_digest(config):
            changed = sorted(key for key in {*before, *config} if before.get(key) != config.get(key))
            raise InputMismatchError(
                f"{self.path}: was begun with another {', '.join(changed)}; name another --run-id or remove it."
            )

    @contextlib.contextmanager
    def locked(self, flag: str = "--run-id") -> Iterator[None]:
        """Keeps other processes out of the run while it is worked on.

        Args:
            flag: by which another run would be named.

        Raises:
            RoadsenseError: another process is at work in it.
        """
        file = self.path / ".lock"
        with open(file, "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock.fileno()).st_nlink == 0:  # who held it before took the file away in between
                    raise BlockingIOError
            except BlockingIOError:
                raise RoadsenseError(
                    f"{self.path}: another process is at work in this run; wait for it or name another {flag}."
                ) from None
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    def set_status(self, status: str) -> None:
        """Writes STATUS: ``running <stage>``, ``complete`` or ``rejected``."""
        write_text(self.path / STATUS, status + "\n")

    def finished_stages(self) -> dict[str, Any]:
        """What earlier calls finished: stage → {seconds, …}."""
        stages = read_record(self.path / PROGRESS)
        made = [facts.get("made_with", {}) for facts in stages.values() if isinstance(facts, dict)]
        trained = [facts.get("trained_with", []) for facts in stages.values() if isinstance(facts, dict)]
        parts = [*made, *(part for parts in trained if isinstance(parts, list) for part in parts)]
        whole = len(made) == len(stages) and all(isinstance(parts, list) for parts in trained)
        if not whole or not all(isinstance(part, dict) for part in parts):
            raise RoadsenseError(f"{self.path / PROGRESS}: does not hold an object a stage; {_MEND}.")
        return stages

    def finish_stage(self, stage: str, facts: dict[str, Any]) -> None:
        """Records that a stage is done, and by which commit and versions."""
        write_json(self.path / PROGRESS, {**self.finished_stages(), stage: {**facts, "made_with": made_with()}})

    def commits(self) -> list[str]:
        """Commits that its finished stages were made with, each once, in that order."""
        made = [
            part
            for facts in self.finished_stages().values()
            for part in [*facts.get("trained_with", []), facts.get("made_with", {})]
        ]
        return list(dict.fromkeys(str(part.get("git_commit", "unknown")) for part in made))

    def _files(self) -> Iterable[Path]:
        for file in sorted(self.path.rglob("*")):
            place = file.relative_to(self.path)
            hidden = any(part.startswith(".") for part in place.parts)  # work that is under way
            if file.is_file() and place.as_posix() not in _NOT_SUMMED and not hidden:
                yield file

    def write_checksums(self) -> None:
        """Rewrites ``checksums.sha256`` over all files of the run, in the format of sha256sum."""
        lines = [f"{file_digest(file)}  {file.relative_to(self.path).as_posix()}\n" for file in self._files()]
        write_text(self.path / CHECKSUMS, "".join(lines))

    def verify(self, but: Collection[str] = ()) -> None:
        """Checks every listed file.

        Args:
            but: names of files that may differ, or of folders (ending in "/") all of whose files may.

        Raises:
            InputMismatchError: a file was changed or is missing; names it.
        """
        listing = self.path / CHECKSUMS
        if not listing.is_file():
            raise RoadsenseError(f"{listing}: no such file; the run was not finished, run the pipeline again.")
        for line in listing.read_bytes().decode("utf-8", "replace").splitlines():
            digest, separator, name = line.partition("  ")
            if not separator or len(digest) != 64:
                raise RoadsenseError(f"{listing}: is no list of checksums ({line[:40]!r}); {_MEND}.")
            file = self.path / name
            if name in but or any(name.startswith(folder) for folder in but if folder.endswith("/")):
                continue
            if not file.is_file() or file_digest(file) != digest:
                raise InputMismatchError(f"{file}: is missing or has changed since the run was packaged.")
