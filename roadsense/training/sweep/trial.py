"""One training of a sweep: what it is told, how it ended, and its folder as bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError
from roadsense.files import write_bytes, write_text
from roadsense.runs import RunFolder
from roadsense.training.checkpoints import LAST
from roadsense.training.config import TrainConfig
from roadsense.training.experience import anywhere, refuse_other_inputs
from roadsense.training.folder import RESULT_NAME, earlier_state
from roadsense.training.sweep.grid import Point

FAILURE_NAME = "failure.txt"
"""Where the traceback of a trial lies that ended in an error nobody foresaw."""

Files = dict[str, bytes]
"""Content by path below a trial's folder."""

_LOCK_LIMIT_S, _LOCK_POLL_S = 30.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training of a sweep."""

    point: Point
    config: TrainConfig
    """With its seed, its folder, and paths that are right wherever it runs."""
    inputs: Mapping[str, str | None]
    """Digests of what it trains on and is judged on."""

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def name(self) -> str:
        return self.run_dir.name

    def result(self) -> dict[str, Any] | None:
        """The content of its ``training.json``, once it is finished.

        Raises:
            InputMismatchError: its folder holds another training, or one on other scenarios or radios.
        """
        try:
            found = earlier_state(self.config)
        except InputMismatchError:
            raise
        except RoadsenseError:  # a damaged checkpoint, which the training itself will tell of
            return None
        refuse_other_inputs(self.config, found, dict(self.inputs))
        return found if found is not None and found.get("finished") else None


class Outcome(NamedTuple):
    """How a trial ended."""

    status: Literal["finished", "failed", "stopped"]
    reason: str | None = None


def trial_of(point: Point, seed: int, folder: Path, inputs: Mapping[str, str | None]) -> Trial:
    """The training of a point with a seed, in ``<folder>/<point>-seed<seed>/``.

    Its paths are absolute, so that it is the same training in a process that works in another folder.
    """
    own = {"seed": seed, "run_dir": os.path.abspath(folder / f"{point.name}-seed{seed}")}
    config = dataclasses.replace(point.config, **{**anywhere(vars(point.config)), **own})
    return Trial(point=point, config=config, inputs=inputs)


def run_trial(config: TrainConfig, *, progress: bool) -> Outcome:
    """Trains, or goes on where it was stopped, and says how that ended instead of raising; Ctrl-C is one such end."""
    run_dir = Path(config.run_dir)
    try:
        with _alone_in(run_dir):
            (run_dir / FAILURE_NAME).unlink(missing_ok=True)
            _train(config, progress)
    except (StoppedError, KeyboardInterrupt):
        return Outcome("stopped")
    except RoadsenseError as error:
        return Outcome("failed", f"{error}")
    except Exception as error:  # whatever it is, the other trials go on
        with contextlib.suppress(RoadsenseError):
            write_text(run_dir / FAILURE_NAME, traceback.format_exc())
        return Outcome("failed", f"{type(error).__name__}: {' '.join(str(error).split()) or 'no more is known'}")
    return Outcome("finished")


def _train(config: TrainConfig, progress: bool) -> None:
    if config.algorithm == "rllib-ppo":
        from roadsense.training import rllib_train

        rllib_train.train(config, progress=progress)
    else:
        from roadsense.training import sb3

        sb3.train(config, progress=progress)


@contextlib.contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """Keeps other processes out of a trial's folder: the worker of a sweep that was killed ends a moment later."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        until = time.monotonic() + _LOCK_LIMIT_S
        while True:
            try:
                held.enter_context(RunFolder(run_dir).locked("--run-dir"))
                break
            except RoadsenseError:
                if time.monotonic() > until:
                    raise
            time.sleep(_LOCK_POLL_S)
        yield


def pack(folder: Path) -> Files:
    """All files of a folder but those of work under way; empty where there is none."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Makes a folder hold these files and no others.

    Each is written in one piece, the checkpoint that is gone on from after all that it counts on, and last of all what
    says that the training is finished: at any kill the folder is one that can be gone on with.
    """
    for name in sorted(files, key=lambda name: (name == RESULT_NAME, name == LAST)):
        write_bytes(folder / name, files[name])
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files and not path.name.startswith("."):
            path.unlink()
