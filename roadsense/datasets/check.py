"""Drives every scenario of a dataset in SUMO and lists all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roadsense.convoy.core import ConvoyWorlds, WorldsConfig
from roadsense.convoy.source import room_for
from roadsense.convoy.trace import EpisodeTrace, TraceRecorder, hazard_happened
from roadsense.convoy.world import EndReason, HazardKind
from roadsense.datasets.envelope import envelope_problems, presence_problems
from roadsense.datasets.road import Road, road_of
from roadsense.errors import InputMismatchError, ParamsError, ScenarioError, TrafficError
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params
from roadsense.manifest import Dataset, read_dataset
from roadsense.progress import progress_bar
from roadsense.randomness import episode_seed
from roadsense.scenario import Scenario, read_scenario
from roadsense.traffic.base import STEP_S
from roadsense.traffic.engines import make_traffic
from roadsense.traffic.route import RouteCatalogue

HARD_BRAKING_MPS2 = 4.5
"""Peers that brake harder than this without a hazard have broken their formation [m/s²]."""

_FULL_BRAKING, _NO_ASSISTANCE = 1.0, 0.0


@dataclass
class CheckResult:
    """What a check found."""

    dataset: Dataset
    scenarios: int = 0
    """How many were driven."""
    problems: list[str] = field(default_factory=list)
    """One sentence each, beginning with where."""
    changed_files: bool = False
    """Whether a file is not the one that the manifest lists."""

    def raise_problems(self) -> None:
        """Does nothing where all is well.

        Raises:
            InputMismatchError: a file is not the one that the manifest lists.
            ScenarioError: something else is wrong.
        """
        if self.problems:
            kind = InputMismatchError if self.changed_files else ScenarioError
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise kind(
                f"{self.problems[0]}{more}; `roadsense check {self.dataset.root}` lists all, and a dataset is"
                " regenerated after it was removed."
            )


class ScenarioDrive:
    """Drives scenarios one after the other in one engine: no assistance up to the hazard, full braking from it on.

    So whatever touches before the onset is the traffic's fault, and what touches after it could not be avoided.

    Args:
        max_peers: most cars beside the ego of any scenario.
        params: radio parameters; they move no car.
        engine: traffic engine.
    """

    def __init__(self, max_peers: int, params: RadioParams, engine: str = "sumo") -> None:
        self._params = params
        self.worlds = ConvoyWorlds(WorldsConfig(max_peers=max_peers), make_traffic(engine, 1, max_peers + 1))
        self._recorder = TraceRecorder(self.worlds)

    def drive(self, scenario: Scenario, seed: int) -> EpisodeTrace:
        """One episode to its end.

        Raises:
            ScenarioError: the engine cannot begin it.
            TrafficError: the engine failed on the way.
        """
        everyone = np.ones(1, np.bool_)
        self.worlds.reset([scenario], [seed], [None], [self._params])
        self._recorder.begin(everyone)
        record = self.worlds.records[0]
        while record["end_reason"] == EndReason.RUNNING:
            brakes = record["hazard_kind"] != HazardKind.NONE and record["step"] >= record["onset_step"]
            self.worlds.step(np.array([_FULL_BRAKING if brakes else _NO_ASSISTANCE]))
            self._recorder.record(everyone)
        return self._recorder.trace(0)

    def close(self) -> None:
        self.worlds.close()


def driving_problems(scenario: Scenario, trace: EpisodeTrace, road: Road) -> Iterator[str]:
    """What went wrong in an episode that :class:`ScenarioDrive` drove, one sentence each.

    Args:
        scenario: what it states.
        trace: what happened.
        road: V001's route.
    """
    hazard = trace.hazard_kind != HazardKind.NONE
    quiet = min(trace.onset_step, trace.num_steps) if hazard else trace.num_steps
    yield from _at_0(scenario, trace, road)
    yield from _formation(scenario, trace, quiet)
    yield from _end(scenario, trace, quiet)


def _at_0(scenario: Scenario, trace: EpisodeTrace, road: Road) -> Iterator[str]:
    for column, car in enumerate(scenario.vehicles):
        off_m = abs(trace.position_m[0, column] - (road.position_m(car) or 0.0))
        off_mps = abs(trace.speed_mps[0, column] - car.depart_speed_mps)
        if not trace.alive[0, column] or off_m > 1e-6 or off_mps > 1e-6:
            yield f"{car.id} is not where it is stated at t = 0 ({off_m:.3g} m and {off_mps:.3g} m/s off)"


def _formation(scenario: Scenario, trace: EpisodeTrace, quiet: int) -> Iterator[str]:
    """Up to step ``quiet`` nothing happens: nobody leaves, overtakes or brakes hard."""
    cars = len(scenario.vehicles)
    present = trace.alive[: quiet + 1, :cars]
    for car, there in zip(scenario.vehicles, present.T, strict=True):
        if not there.all():
            yield f"{car.id} leaves the road after {STEP_S * int(np.argmin(there)):.1f} s: the route is too short"
    order = np.argsort(trace.position_m[: quiet + 1, :cars], axis=1)
    changed = (order != order[0]).any(axis=1)
    if present.all() and changed.any():
        yield f"the convoy's order changes after {STEP_S * int(np.argmax(changed)):.1f} s"
    for car, accel in zip(scenario.vehicles, trace.accel_mps2[: quiet + 1, :cars].T, strict=True):
        if car is not scenario.ego and accel.min() < -HARD_BRAKING_MPS2:
            yield (
                f"{car.id} brakes with {-accel.min():.1f} m/s² after {STEP_S * int(np.argmin(accel)):.1f} s though"
                " nothing has happened"
            )


def _end(scenario: Scenario, trace: EpisodeTrace, quiet: int) -> Iterator[str]:
    after = f"after {STEP_S * trace.num_steps:.1f} s"
    if trace.end_reason == EndReason.PEER_CONTACT:
        yield f"two peers touch {after}"
    elif trace.end_reason == EndReason.COLLISION and trace.num_steps <= quiet:
        yield f"{scenario.ego.id} touches its leader {after}, before anything has happened"
    elif trace.end_reason == EndReason.COLLISION:
        yield f"{scenario.ego.id} touches its leader {after} although it brakes fully from the hazard on"
    elif trace.end_reason == EndReason.REAR_CONTACT:
        yield f"the car behind runs into {scenario.ego.id} {after}"
    elif trace.end_reason == EndReason.ROUTE_END:
        yield f"{scenario.ego.id} reaches the end of its route {after}: the route is too short"
    elif trace.hazard_kind != HazardKind.NONE and not hazard_happened(trace):
        yield f"the hazard does not happen: its target never reaches {trace.hazard_decel_mps2:.1f} m/s²"


def check(
    dataset_dir: str | Path, *, engine: str = "sumo", max_peers: int | None = None, progress: bool = True
) -> CheckResult:
    """Re-hashes every file, reads every scenario, holds it against the safe envelope, and drives it.

    Args:
        dataset_dir: root of a dataset.
        engine: traffic engine.
        max_peers: cars that there is room for beside V001; None: see :func:`roadsense.convoy.source.room_for`.
        progress: whether to show a bar on stderr.

    Raises:
        ScenarioError: there is no manifest.
    """
    dataset = read_dataset(dataset_dir)
    result = CheckResult(dataset)
    result.problems += dataset.problems()
    result.changed_files = bool(result.problems)
    try:
        params = read_params(dataset.params_file)
    except ParamsError as error:
        result.problems.append(str(error))
        params = read_params("ideal")
    readable: list[tuple[Scenario, int]] = []
    for entry in (entry for split in dataset.manifest["splits"].values() for entry in split):
        folder = dataset.root / entry["path"]
        try:
            scenario = read_scenario(folder, entry["id"])
        except ScenarioError as error:
            result.problems.append(str(error))
            continue
        if entry["peer_count"] != len(scenario.vehicles) - 1:
            result.problems.append(
                f"{folder}: has {len(scenario.vehicles) - 1} peers, but the manifest states {entry['peer_count']}"
            )
        readable.append((scenario, entry["seed"]))
    if readable:
        room = room_for((scenario for scenario, _ in readable), max_peers)
        driver = ScenarioDrive(room, params, engine)
        try:
            _drive_all(readable, driver, progress, result)
        finally:
            driver.close()
    return result


def _drive_all(
    scenarios: list[tuple[Scenario, int]], driver: ScenarioDrive, progress: bool, result: CheckResult
) -> None:
    catalogue = RouteCatalogue()
    with progress_bar(len(scenarios), "scenario", visible=progress) as bar:
        for scenario, seed in scenarios:
            found = _problems(scenario, seed, driver, catalogue)
            result.problems += [f"{scenario.path}: {problem}" for problem in found]
            result.scenarios += 1
            bar.update()


def _problems(scenario: Scenario, seed: int, driver: ScenarioDrive, catalogue: RouteCatalogue) -> list[str]:
    found = presence_problems(scenario)
    if found:
        return found
    try:
        road = road_of(scenario, catalogue)
        found = envelope_problems(scenario, road)
        trace = driver.drive(scenario, episode_seed(seed, 0))
    except (ScenarioError, TrafficError) as error:
        return [*found, str(error).removeprefix(f"{scenario.path}: ").rstrip(".")]
    return [*found, *driving_problems(scenario, trace, road)]
