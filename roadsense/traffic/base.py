"""The interface of a traffic engine: it fills arrays with axes [world, car] and obeys next speeds.

Car 0 of every world is the ego V001. The order of the other cars is the order of their ids in the scenario; cars that
a background flow inserts later take the first free column, and between two cars a column is free for a step at least,
so that nobody takes the one for the other. Positions are measured along the *ego's* route, so that gaps are
differences; a car on another road has ``on_route`` False, and its x, y and heading come from the engine.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import ScenarioError
from roadsense.randomness import Purpose, derive_seed
from roadsense.scenario import EGO_ID, Scenario
from roadsense.traffic.route import RouteTable

STEP_S = 0.1
"""Length of a control step and of an engine step [s]."""

EGO = 0
"""Column of the ego V001 in every [world, car] array."""

MAX_WAIT_S = 60.0
"""Longest time that a reset drives traffic on while it waits for a late V001 [s]."""


class TrafficState(NamedTuple):
    """Truth about every car, arrays of shape [world, car]; rows of absent cars hold zeros."""

    position_m: NDArray[np.float64]
    """Front bumper along the ego's route [m]; of a car that turned off, carried on by the distance it drives."""
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    """Acceleration over the last step [m/s²]."""
    length_m: NDArray[np.float64]
    alive: NDArray[np.bool_]
    on_route: NDArray[np.bool_]
    """True where the front bumper stands on a lane of the ego's route."""
    leaves_m: NDArray[np.float64]
    """Where on the ego's route a car that is not ``on_route`` turned off [m]; minus infinity if it never was on it."""
    transmits: NDArray[np.bool_]
    """True where the car carries a radio."""
    x_m: NDArray[np.float64]
    """Front bumper, network coordinates [m]; engines fill it only where ``on_route`` is False."""
    y_m: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    """Counter-clockwise from east [rad]; engines fill it only where ``on_route`` is False."""

    @classmethod
    def zeros(cls, num_worlds: int, max_cars: int) -> TrafficState:
        shape = (num_worlds, max_cars)
        types: list[Any] = [np.float64] * 4 + [np.bool_] * 2 + [np.float64] + [np.bool_] + [np.float64] * 3
        return cls._make(np.zeros(shape, dtype) for dtype in types)

    def world(self, index: int) -> TrafficState:
        """The same arrays restricted to one world, as views of shape [1, car]."""
        return TrafficState._make(array[index : index + 1] for array in self)


def engine_seed(seed: int) -> int:
    """SUMO's seed of an episode: 31 bits, derived from the episode's."""
    return derive_seed(seed, Purpose.TRAFFIC) & 0x7FFFFFFF


def refuse_crowd(scenario: Scenario, max_cars: int) -> None:
    """Refuses a scenario that lists more vehicles than there are columns.

    Raises:
        ScenarioError: it does.
    """
    if len(scenario.vehicles) > max_cars:
        raise ScenarioError(
            f"{scenario.path}: {len(scenario.vehicles) - 1} vehicles beside {EGO_ID}, but max_peers is {max_cars - 1};"
            " raise max_peers."
        )


class Traffic(abc.ABC):
    """Moves the cars of ``num_worlds`` worlds.

    Attributes:
        state: arrays [world, car], valid after ``reset`` and after every ``advance``, rewritten in place.
        routes: geometry of the ego's route of every world; ``routes.index[world]`` names it.
    """

    state: TrafficState
    routes: RouteTable
    num_worlds: int
    max_cars: int

    @abc.abstractmethod
    def reset(self, scenarios: Sequence[Scenario | None], seeds: Sequence[int]) -> None:
        """Puts each world to t = 0 of its scenario; a world whose entry is None is left as it is.

        Every car that the scenario states exactly is on the road at exactly the stated state. A foreign scenario whose
        V001 departs later is driven on until it is there.

        Raises:
            ScenarioError: V001 is missing or never departs, there are more cars than columns, or the scenario needs
                something this engine cannot express; the message names it.
        """

    @abc.abstractmethod
    def advance(
        self, next_speed_mps: NDArray[np.float64], steered: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> None:
        """Moves the ``active`` worlds by one step of 0.1 s.

        Args:
            next_speed_mps: speed at the end of the step for steered cars, [world, car]. The ego gets exactly
                this speed; any other steered car brakes as asked but never runs into its own leader.
            steered: which cars obey ``next_speed_mps``, [world, car]; all others follow their own law.
            active: which worlds move, [world].
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Gives back processes, files and memory; calling it again does nothing."""

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
