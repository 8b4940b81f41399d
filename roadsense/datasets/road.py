"""The road of a base scenario as a generator and a check need it: positions along V001's route, and its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense._data import scenarios_dir
from roadsense.errors import ScenarioError, UsageError, nearest
from roadsense.scenario import Scenario, read_scenario
from roadsense.traffic.route import RouteCatalogue, lane_path
from roadsense.vehicles import Vehicle

EASE = 0.8
"""Share of its comfortable deceleration with which a car still makes the next lower limit."""


@dataclass(frozen=True, kw_only=True)
class Road:
    """V001's route through a scenario's network."""

    edges: tuple[str, ...]
    edge_from_m: tuple[float, ...]
    """Position along the route at which each edge begins [m]."""
    edge_length_m: tuple[float, ...]
    limit_from_m: NDArray[np.float64]
    limit_mps: NDArray[np.float64]
    length_m: float
    offsets: dict[str, float]
    """Position along the route at which each lane begins [m], internal ones included."""

    @property
    def limits_drop(self) -> bool:
        """Whether a lower limit follows a higher one anywhere."""
        return bool((np.diff(self.limit_mps) < 0).any())

    def place(self, position_m: float) -> tuple[tuple[str, ...], float] | None:
        """Edges from there on, and the position on the first of them [m]; None on a junction or off the route."""
        for number, (start, length) in enumerate(zip(self.edge_from_m, self.edge_length_m, strict=True)):
            if start <= position_m <= start + length:
                return self.edges[number:], position_m - start
        return None

    def position_m(self, vehicle: Vehicle) -> float | None:
        """Where a vehicle departs along this route [m]; None where it departs off it."""
        offset = self.offsets.get(f"{vehicle.edges[0]}_{vehicle.depart_lane}")
        return None if offset is None else offset + vehicle.depart_pos_m

    def fastest_mps(self, position_m: float, speed_factor: float, decel_mps2: float) -> float:
        """Speed at which a car needs no more than easy braking for this and every further limit [m/s]."""
        fastest = math.inf
        for start, limit in zip(self.limit_from_m.tolist(), self.limit_mps.tolist(), strict=True):
            desired = limit * speed_factor
            if start <= position_m:
                fastest = desired
            else:
                fastest = min(fastest, math.sqrt(desired**2 + 2.0 * EASE * decel_mps2 * (start - position_m)))
        return fastest


def road_of(scenario: Scenario, catalogue: RouteCatalogue) -> Road:
    """Traces V001's route.

    Raises:
        ScenarioError: V001 states no route, or the route cannot be driven.
    """
    ego = scenario.ego
    net = catalogue.network(scenario.net_file, scenario.net_digest)
    try:
        lanes = lane_path(net, ego.edges, ego.depart_lane)
    except ScenarioError as error:
        raise ScenarioError(f"{scenario.path}: {ego.id}: {error}") from None
    route = catalogue.add(scenario.net_file, scenario.net_digest, lanes)
    offsets = catalogue.lane_offsets(route)
    table = catalogue.table([route])
    first, last = table.first_limit[route], table.first_limit[route + 1]
    on_edges = [lane for lane in lanes if not lane.startswith(":")]
    return Road(
        edges=ego.edges,
        edge_from_m=tuple(offsets[lane] for lane in on_edges),
        edge_length_m=tuple(net.lanes[lane].length_m for lane in on_edges),
        limit_from_m=table.limit_from_s_m[first:last].copy(),
        limit_mps=table.limit_mps[first:last].copy(),
        length_m=float(table.length_m[route]),
        offsets=offsets,
    )


@dataclass(frozen=True, kw_only=True)
class Base:
    """One base scenario."""

    name: str
    scenario: Scenario
    road: Road


def read_base(name_or_path: str, catalogue: RouteCatalogue) -> Base:
    """A shipped base scenario by name, or any scenario directory by path.

    Raises:
        UsageError: there is neither.
        ScenarioError: the scenario cannot be read.
    """
    shipped = scenarios_dir() / "base"
    known = sorted(folder.name for folder in shipped.iterdir() if folder.is_dir())
    path = shipped / name_or_path if name_or_path in known else Path(name_or_path)
    if not path.is_dir():
        raise UsageError(
            f"base scenario {name_or_path!r} is neither a shipped one nor a directory; {nearest(name_or_path, known)}"
        )
    scenario = read_scenario(path)
    return Base(name=path.resolve().name, scenario=scenario, road=road_of(scenario, catalogue))
