"""The test kit that ships with the library: what an engine must do, as checks that anybody can run.

from roadsense.testing import check_engine_alignment
print(check_engine_alignment("scenarios/base/curve", seed=7, actions=np.zeros(400)))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import INFO_SCALARS, ConvoyWorlds, WorldsConfig
from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES
from roadsense.convoy.player import DEFAULT_RADIO
from roadsense.convoy.reward import REWARD_TERMS
from roadsense.convoy.world import EndReason
from roadsense.espnow.profiles import read_params
from roadsense.scenario import Scenario, read_scenario
from roadsense.traffic.base import Traffic, TrafficState
from roadsense.traffic.engines import make_traffic

JUNCTION_TOLERANCE = 1e-9
"""How far two engines may differ where a route crosses junctions, in m, m/s and m/s²: sums are rounded differently."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One number that two engines do not agree on."""

    step: int
    """Control step, 0 is the state after the reset."""
    quantity: str
    car: int | None
    """Column of the car, for quantities of cars."""
    reference: float
    other: float

    def __str__(self) -> str:
        whose = "" if self.car is None else f" of car {self.car}"
        off = abs(self.reference - self.other)
        return f"step {self.step}, {self.quantity}{whose}: {self.reference!r} against {self.other!r} ({off:.3g} apart)"


@dataclass(kw_only=True)
class Alignment:
    """What :func:`check_engine_alignment` found."""

    engines: tuple[str, str]
    steps: int = 0
    """Control steps that were compared."""
    end_reason: EndReason = EndReason.RUNNING
    """Why the episode of the first engine ended; running where the actions were used up."""
    first: Difference | None = None
    """The first bit that differs."""
    largest: dict[str, float] = field(default_factory=dict)
    """Largest difference by quantity, only of those that differ at all."""

    @property
    def worst(self) -> float:
        """Largest difference of any quantity."""
        return max(self.largest.values(), default=0.0)

    def __str__(self) -> str:
        told = f"{self.engines[0]} and {self.engines[1]}, {self.steps} steps: "
        if self.first is None:
            return f"{told}equal to the last bit"
        return f"{told}first difference at {self.first}; largest {self.worst:.3g}"


_WORLD = ("gap_m", "rear_gap_m", *INFO_SCALARS[1:], "driver_accel_mps2", "impact_speed_mps")


def _numbers(worlds: ConvoyWorlds) -> Iterator[tuple[str, NDArray[Any]]]:
    """Everything that a step gives, named; arrays of one axis are by car."""
    for name, array in zip(TrafficState._fields, worlds.traffic.state, strict=True):
        yield name, array[0]
    for number, feature in enumerate(EGO_FEATURES):
        yield f"observed {feature.name}", worlds.observation.ego[0, number : number + 1]
    for number, feature in enumerate(PEER_FEATURES):
        yield f"observed {feature.name} of a peer", worlds.observation.peers[0, :, number]
    yield "mask", worlds.observation.peer_mask[0]
    for name in _WORLD:
        yield name, worlds.records[name]
    yield "reward", worlds.rewards
    for number, name in enumerate(REWARD_TERMS):
        yield f"reward for {name}", worlds.terms[:, number]


_BY_CAR = frozenset(TrafficState._fields)


def _compare(found: Alignment, step: int, reference: ConvoyWorlds, other: ConvoyWorlds) -> None:
    for (name, expected), (_, given) in zip(_numbers(reference), _numbers(other), strict=True):
        if np.array_equal(expected, given, equal_nan=True):
            continue
        ours, theirs = np.asarray(expected, np.float64), np.asarray(given, np.float64)
        differ = ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
        with np.errstate(invalid="ignore"):
            off = np.where(differ, np.nan_to_num(np.abs(ours - theirs), nan=np.inf), 0.0)
        found.largest[name] = max(found.largest.get(name, 0.0), float(off.max()))
        if found.first is None:
            place = int(np.flatnonzero(differ)[0])
            car = place if name in _BY_CAR else None
            found.first = Difference(
                step=step, quantity=name, car=car, reference=float(ours[place]), other=float(theirs[place])
            )


def check_engine_alignment(
    scenario: str | Path | Scenario,
    seed: int,
    actions: Sequence[float] | NDArray[np.float64],
    *,
    engines: tuple[str | Traffic, str | Traffic] = ("sumo", "native"),
    control: str = "brake",
    radio: str | Path = DEFAULT_RADIO,
    episode: Mapping[str, Any] | None = None,
    max_peers: int | None = None,
) -> Alignment:
    """Plays one episode on two engines and compares everything that every step gives, bit by bit.

    Args:
        scenario: directory, ``.sumocfg`` file, or a scenario that was read.
        seed: of the episode.
        actions: one a step; the episode ends with them, or as it ends.
        engines: the reference and the one that is held against it, by name or opened for one world; opened ones stay
            open.
        control: as in :class:`roadsense.convoy.env.ConvoyEnv`.
        radio: radio parameters.
        episode: overrides of ranges by dotted keys.
        max_peers: capacity; None: the cars that the scenario lists.

    Returns:
        What differs first, and by how much at most: positions and lengths in m, speeds in m/s, observations in their
        own units.

    Raises:
        ScenarioError: an engine cannot drive the scenario.
    """
    played = scenario if isinstance(scenario, Scenario) else read_scenario(scenario)
    spec = played.episode.override(episode) if episode else played.episode
    room = len(played.vehicles) - 1 if max_peers is None else max_peers
    config, params = WorldsConfig(control=control, max_peers=max(1, room)), read_params(radio)
    names = [engine if isinstance(engine, str) else type(engine).__name__ for engine in engines]
    found = Alignment(engines=(names[0], names[1]))
    opened: list[Traffic] = []
    try:
        both = []
        for engine in engines:
            traffic = make_traffic(engine, 1, config.max_peers + 1) if isinstance(engine, str) else engine
            if isinstance(engine, str):
                opened.append(traffic)
            both.append(ConvoyWorlds(config, traffic))
        for worlds in both:
            worlds.reset([played], [seed], [spec], [params])
        reference, other = both
        _compare(found, 0, reference, other)
        for step, action in enumerate(np.asarray(actions, np.float64).reshape(-1), 1):
            for worlds in both:
                worlds.step(np.array([action]))
            _compare(found, step, reference, other)
            found.steps, found.end_reason = step, EndReason(int(reference.records["end_reason"][0]))
            if any(worlds.records["end_reason"][0] for worlds in both):
                break
    finally:
        for traffic in opened:
            traffic.close()
    return found
