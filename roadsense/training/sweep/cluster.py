"""Trials over a Ray cluster: each a task in a process of its own, wherever there are CPUs for it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError
from roadsense.files import write_bytes
from roadsense.training.checkpoints import LAST
from roadsense.training.config import TrainConfig
from roadsense.training.ray_connection import running_ray
from roadsense.training.sweep.options import OWN_RAY
from roadsense.training.sweep.trial import Files, Outcome, Trial, pack, run_trial, unpack

_RETRIES = 3
"""Of a trial whose machine or process was lost; where its folder is seen it goes on from its last checkpoint."""
_STOP_LIMIT_S = 120.0
"""How long trials may take after Ctrl-C to save what they have [s]; a second one does not wait."""
_MARK = ".seen-"


def run_over_ray(
    trials: Sequence[Trial], folder: Path, *, address: str, cpus: int, at_once: int | None
) -> Iterator[tuple[Trial, Outcome]]:
    """Runs trials, and says of each how it ended as soon as it has.

    A machine that sees the sweep's folder works in it. One that does not works in a folder of its own, is given what an
    earlier call left of the trial, and hands back all files at its end.

    Args:
        trials: to be run.
        folder: of the sweep.
        address: ``local`` for a Ray of this process alone, or of a cluster.
        cpus: that each takes.
        at_once: most at a time; None: as many as there are CPUs for.

    Raises:
        KeyboardInterrupt: it was pressed; what was under way has been stopped, and told of.
    """
    import ray

    room = at_once or max(1, (os.cpu_count() or 1) // cpus)
    own = None if address == OWN_RAY else address
    with running_ray(cpus * min(room, len(trials)), own), _mark_in(folder) as mark:
        if address != OWN_RAY:
            _say_if_none_is_large_enough(cpus)
        # A process each: the engine, torch and what they draw from are a process's own, and all ends with it.
        task = ray.remote(num_cpus=cpus, max_calls=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")(run_anywhere)

        def begin(trial: Trial, sent: Files | None = None) -> None:
            begun = (trial.run_dir / LAST).is_file()
            under_way[task.remote(trial.config, str(mark), begun, sent)] = trial

        waiting = list(trials)
        under_way: dict[Any, Trial] = {}
        try:
            while waiting or under_way:
                while waiting and (at_once is None or len(under_way) < at_once):
                    begin(waiting.pop(0))
                for ended in ray.wait(list(under_way))[0]:
                    trial = under_way.pop(ended)
                    outcome = _outcome_of(ended, trial)
                    if outcome is None:
                        begin(trial, pack(trial.run_dir))
                    else:
                        yield trial, outcome
        except KeyboardInterrupt:
            for reference in under_way:
                ray.cancel(reference)
            if under_way:
                for ended in ray.wait(list(under_way), num_returns=len(under_way), timeout=_STOP_LIMIT_S)[0]:
                    trial = under_way.pop(ended)
                    yield trial, _outcome_of(ended, trial) or Outcome("stopped")
            raise


@contextlib.contextmanager
def _mark_in(folder: Path) -> Iterator[Path]:
    """A file by which a machine knows that it sees this folder, and not another one of that name."""
    for left in folder.glob(f"{_MARK}*"):
        left.unlink(missing_ok=True)
    mark = folder / f"{_MARK}{uuid.uuid4().hex}"
    write_bytes(mark, b"")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _say_if_none_is_large_enough(cpus: int) -> None:
    import ray

    if not any(one["Resources"].get("CPU", 0) >= cpus for one in ray.nodes() if one["Alive"]):
        print(f"roadsense: no machine of the cluster has {cpus} CPUs yet; trials wait for one", file=sys.stderr)


def run_anywhere(config: TrainConfig, mark: str, begun: bool, sent: Files | None) -> tuple[Outcome, Files] | None:
    """The task: a trial and, where the sweep's folder is not seen, all its files. None: send those that are there."""
    seen = os.path.isfile(mark)
    if begun and not seen and sent is None:
        return None
    missing = next((path for path in (config.dataset_dir, config.eval_dir, config.init_from)
                    if path is not None and not os.path.exists(path)), None)  # fmt: skip
    if missing is not None:
        told = "data sets and weights must lie at the same place on every machine"
        return Outcome("failed", f"{missing}: is not on machine {socket.gethostname()}; {told}."), {}
    if seen:
        return run_trial(config, progress=False), {}
    with tempfile.TemporaryDirectory(prefix="roadsense-trial-") as scratch:
        folder = Path(scratch) / Path(config.run_dir).name
        unpack(sent or {}, folder)
        outcome = run_trial(dataclasses.replace(config, run_dir=str(folder)), progress=False)
        return outcome, pack(folder)


def _outcome_of(reference: Any, trial: Trial) -> Outcome | None:
    """How a task ended; what it handed back is put into the trial's folder. None: it waits for files."""
    import ray
    from ray.exceptions import RayError, TaskCancelledError

    try:
        found = ray.get(reference)
    except TaskCancelledError:
        return Outcome("stopped")
    except RayError as error:  # its process or machine was lost too often, or has no roadsense
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Outcome("failed", f"Ray could not run it ({said[-1] if said else type(error).__name__})")
    if found is None:
        return None
    outcome, files = found
    if files:
        try:
            unpack(files, trial.run_dir)
        except RoadsenseError as error:
            return Outcome("failed", str(error))
    return outcome
