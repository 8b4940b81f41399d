"""A sweep: trains what is left of its trials, keeps its record, and ends in a table and a plot."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError, UsageError
from roadsense.extras import available, require
from roadsense.files import refuse_unwritable, write_bytes, write_json, write_text
from roadsense.progress import progress_bar
from roadsense.runs import RunFolder, made_with, read_record
from roadsense.training.config import TrainConfig
from roadsense.training.experience import input_digests
from roadsense.training.sweep.grid import Point, label, only_base, read_grid
from roadsense.training.sweep.options import OWN_RAY, WITHOUT_RAY, SweepConfig
from roadsense.training.sweep.plot import plot
from roadsense.training.sweep.summary import figures_of, same_weights, summarise, table
from roadsense.training.sweep.trial import Outcome, Trial, run_trial, trial_of

RECORD, TABLE, PLOT = "sweep.json", "table.md", "sweep.png"
SCHEMA_VERSION = 2
_JUDGED_BY = ("eval_dataset_digest", "eval_radio_digest")
_SHAPES = {"config": dict, "judged_by": dict, "seeds": list, "seed_stride": int, "points": list}
"""Of what is read of an earlier record."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep came to."""

    document: dict[str, Any]
    """The content of ``sweep.json``."""
    table: str

    @property
    def failed(self) -> list[str]:
        """What is to be said of every trial that failed."""
        return [f"{one['folder']}: {one['reason']}" for one in self.document["trials"] if one["status"] == "failed"]


class _Record:
    """``sweep.json``, written anew whenever a trial has ended."""

    def __init__(self, folder: Path, points: Sequence[Point], trials: Sequence[Trial], seed_stride: int) -> None:
        self.path, self.trials = folder / RECORD, trials
        document = trials[0].config.document()  # of the base, with its paths as they are anywhere
        config = {key: value for key, value in document.items() if key not in ("run_dir", "seed")}
        self.points: list[dict[str, Any]] = [{"name": one.name, "overrides": dict(one.overrides)} for one in points]
        self.document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "finished": False,
            "config": config,
            "seeds": sorted({trial.config.seed for trial in trials}),
            "seed_stride": seed_stride,
            "points": self.points,
            "judged_by": {key: trials[0].inputs[key] for key in _JUDGED_BY},
            "made_with": made_with(),
        }
        self.ended: dict[str, dict[str, Any]] = {}

    def refuse_other(self) -> None:
        """Does nothing for a new sweep, or one that this one continues: with the same seeds and points, or more.

        Raises:
            InputMismatchError: the folder holds another sweep, or a file of that name which records none.
        """
        if not self.path.exists():
            return
        before, now = read_record(self.path), self.document
        version = before.get("schema_version")
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise InputMismatchError(f"{self.path}: is of another version; name another --run-dir or remove it.")
        if version is None or not all(isinstance(before.get(key), shape) for key, shape in _SHAPES.items()):
            raise InputMismatchError(f"{self.path}: is no record of a sweep; name another --run-dir or remove it.")
        other = sorted(key for key in {*before["config"], *now["config"]}
                       if before["config"].get(key) != now["config"].get(key))  # fmt: skip
        other += [key for key in ("judged_by", "seed_stride") if before[key] != now[key]]
        other += [key for key in ("seeds", "points") if any(one not in now[key] for one in before[key])]
        if other:
            told = f"holds a sweep with another {', '.join(other)}"
            raise InputMismatchError(f"{self.path.parent}: {told}; name another --run-dir or remove it.")

    def note(self, trial: Trial, outcome: Outcome) -> dict[str, Any]:
        """Keeps how a trial ended; one that finished with other inputs than were asked for has failed."""
        result = None
        if outcome.status == "finished":
            try:
                result = trial.result()
            except RoadsenseError as error:
                outcome = Outcome("failed", str(error))
            if result is None and outcome.status == "finished":
                outcome = Outcome("failed", f"{trial.run_dir}: holds no finished training.")
        found = {
            "point": trial.point.name, "seed": trial.config.seed, "folder": trial.name, "status": outcome.status,
            "reason": outcome.reason, "weights_digest": None, "figures": None, "inputs": dict(trial.inputs),
        }  # fmt: skip
        if result is not None:
            found |= {
                "weights_digest": result["weights_digest"], "figures": figures_of(result),
                "seconds": result["seconds"], "resumed_at": result["resumed_at"], "made_with": result["made_with"],
            }  # fmt: skip
        self.ended[trial.name] = found
        self.write()
        return found

    def write(self, **more: Any) -> dict[str, Any]:
        """Writes what is known."""
        waiting = {"status": "waiting", "reason": None, "weights_digest": None, "figures": None}
        self.document |= {
            "trials": [
                self.ended.get(one.name)
                or {"point": one.point.name, "seed": one.config.seed, "folder": one.name, **waiting}
                for one in self.trials
            ],
            **more,
        }
        write_json(self.path, self.document)
        return self.document


def sweep(config: SweepConfig, base: TrainConfig, *, progress: bool = True) -> Swept:
    """Trains every point of a grid with every seed, and compares the points with the base.

    World i of a training is seeded ``seed + i``, so seeds lie as far apart as the training with most worlds needs
    for no two of a sweep to share one.

    A trial is the training that ``roadsense train`` would be, in a run folder of its own. One that is finished is not
    repeated, one that was stopped goes on, and one that failed is tried again; other trials go on all the same.

    Args:
        config: of the sweep.
        base: configuration of all trainings, of which points vary something.
        progress: whether to show it on stderr.

    Returns:
        What ``sweep.json`` and ``table.md`` hold; ``sweep.png`` lies beside them.

    Raises:
        UsageError, ParamsError: something asked for does not exist or fit; nothing was started.
        InputMismatchError: the folder holds another sweep.
        StoppedError: Ctrl-C; the same call continues.
    """
    require("train")
    folder = config.run_dir
    points = only_base(base) if config.grid is None else read_grid(config.grid, base)
    inputs = _inputs(points)
    stride = max(point.config.n_envs for point in points)
    seeds = range(base.seed, base.seed + config.seeds * stride, stride)
    trials = [trial_of(point, seed, folder, inputs[point.name]) for point in points for seed in seeds]
    over_ray = _over_ray(config, trials)
    refuse_unwritable(folder / RECORD)
    record = _Record(folder, points, trials, stride)
    folder.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder).locked("--run-dir"):
        record.refuse_other()
        finished = {trial.name for trial in trials if trial.result() is not None}
        for trial in trials:
            if trial.name in finished:
                record.note(trial, Outcome("finished"))
        record.write()
        left = [trial for trial in trials if trial.name not in finished]
        with contextlib.closing(_run(left, config, over_ray, progress)) as ended:
            try:
                for trial, outcome in ended:
                    _say(record.note(trial, outcome), progress)
            except KeyboardInterrupt:
                done = sum(one["status"] == "finished" for one in record.ended.values())
                raise StoppedError(
                    f"{folder}: sweep stopped with {done} of {len(trials)} trials finished; the same command continues."
                ) from None
        return _finish(record, base, folder)


def _inputs(points: Sequence[Point]) -> dict[str, dict[str, str | None]]:
    """Digests of what each point is trained and judged on.

    Raises:
        UsageError: a point would be judged on other episodes than the base.
    """
    known: dict[tuple[Any, ...], dict[str, str | None]] = {}
    found = {}
    for point in points:
        config = point.config
        key = (config.dataset_dir, config.eval_dir, config.emulator_params, config.further_radios)
        known[key] = found[point.name] = known.get(key) or input_digests(config)
        if any(found[point.name][one] != found[points[0].name][one] for one in _JUDGED_BY):
            raise UsageError(
                f"grid: {point.label} would be judged on other episodes or radios than the base, which compares "
                "nothing; state --eval-dir, or leave it out."
            )
    return found


def _over_ray(config: SweepConfig, trials: Sequence[Trial]) -> bool:
    if config.ray_address == WITHOUT_RAY:
        return False
    if not available("ray"):
        if config.ray_address == OWN_RAY:
            print("roadsense: ray is not installed, trials run one after another in this process", file=sys.stderr)
            return False
        require("ray")
    for name in ("n_env_runners", "workers"):
        if any(getattr(trial.config, name) for trial in trials):
            raise UsageError(
                f"{name} is not 0; a sweep gives each trial one process. Leave it out, or run the trials one after "
                "another with --ray-address none."
            )
    return True


def _run(
    trials: Sequence[Trial], config: SweepConfig, over_ray: bool, progress: bool
) -> Generator[tuple[Trial, Outcome], None, None]:
    if not trials:
        return
    if not over_ray:
        for number, trial in enumerate(trials, 1):
            if progress:
                print(f"roadsense: trial {number} of {len(trials)}, {trial.name}", file=sys.stderr)
            outcome = run_trial(trial.config, progress=progress)
            yield trial, outcome
            if outcome.status == "stopped":
                raise KeyboardInterrupt
        return
    from roadsense.training.sweep.cluster import run_over_ray

    cpus = config.cpus_per_trial or max(trial.config.torch_threads for trial in trials)
    shown = progress and sys.stderr.isatty()  # a log has a line for each trial anyway
    with progress_bar(len(trials), "trial", visible=shown, desc="sweep") as bar:
        for ended in run_over_ray(
            trials, config.run_dir, address=config.ray_address, cpus=cpus, at_once=config.at_once
        ):
            bar.update(ended[1].status != "stopped")
            yield ended


def _say(ended: Mapping[str, Any], progress: bool) -> None:
    if progress or ended["status"] == "failed":
        told = ended["reason"] or ended["status"]
        if ended["figures"] is not None:
            best = ended["figures"]
            told = (
                f"{best['collisions']} of {best['episodes']} episodes collided, "
                f"{best['false_brakes_per_calm_km']:.2f} false brakes per calm km, reward {best['average_reward']:.2f}"
            )
        tqdm.write(f"roadsense: {ended['folder']}: {told}", file=sys.stderr)  # a bar may be there


def _finish(record: _Record, base: TrainConfig, folder: Path) -> Swept:
    trials = [record.ended[one.name] for one in record.trials]
    summary = summarise(record.points, trials)
    document = base.document()
    varied = {key: document[key] for point in record.points for key in point["overrides"]}
    episodes = next((one["figures"]["episodes"] for one in trials if one["figures"]), None)
    without_effect = same_weights(record.points, trials)
    shown = table(summary, varied, episodes)
    for point in record.points:
        if point["name"] in without_effect:
            shown += f"\n{label(point['overrides'])}: has the base's weights with every seed, for it changes nothing."
    write_bytes(folder / PLOT, plot(summary, trials))
    write_text(folder / TABLE, shown + "\n")
    written = record.write(
        finished=all(one["status"] == "finished" for one in trials), summary=summary, without_effect=without_effect
    )
    return Swept(document=written, table=shown)
