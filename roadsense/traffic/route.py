"""Routes as tables of vertices and limits; :mod:`roadsense.traffic.geometry` reads them.

A position s is the sum of the ``length`` attributes of the lanes behind the car, internal lanes included, plus its
position on its own lane. A lane's shape may be longer or shorter than its ``length``; SUMO stretches positions lane
by lane, and so do the vertices here: vertex i of a lane lies at the s at which SUMO places a front bumper on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import ScenarioError
from roadsense.scenario import Scenario
from roadsense.traffic.network import Lane, Network, lane_path, read_network
from roadsense.vehicles import Vehicle

__all__ = ["NUM_STREAMS", "LaneTable", "RouteCatalogue", "RouteTable", "lane_path"]

NUM_STREAMS = 64
"""SUMO keeps so many generators of random numbers and deals them to the lanes of a network in turn."""

_SHORTEST_SHAPE_M = 0.1
"""SUMO takes every shape for at least this long (its POSITION_EPS)."""


class RouteTable(NamedTuple):
    """Geometry and limits of routes as flat arrays; route r owns ``[first[r], first[r + 1])`` of them."""

    index: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.index, which nobody asks for
    """Which route each world's ego drives, [world]."""
    vertex_s_m: NDArray[np.float64]
    """Position along the route, ascending within a route, [vertex]."""
    vertex_x_m: NDArray[np.float64]
    vertex_y_m: NDArray[np.float64]
    first_vertex: NDArray[np.int64]
    """[route + 1]."""
    limit_from_s_m: NDArray[np.float64]
    """Where a speed limit begins; it holds up to the next one, [limit]."""
    limit_mps: NDArray[np.float64]
    first_limit: NDArray[np.int64]
    """[route + 1]."""
    length_m: NDArray[np.float64]
    """[route]."""


class LaneTable(NamedTuple):
    """The lanes of routes as flat arrays; route r owns ``[first[r], first[r + 1])`` of them, in driving order."""

    from_m: NDArray[np.float64]
    """Where on its route a lane begins [m]."""
    length_m: NDArray[np.float64]
    limit_mps: NDArray[np.float64]
    is_internal: NDArray[np.bool_]
    """Whether it crosses a junction."""
    is_first: NDArray[np.bool_]
    """Whether no lane of its route comes before it."""
    stream: NDArray[np.int64]
    """Which of SUMO's 64 generators of random numbers its cars draw from."""
    first: NDArray[np.int64]
    """[route + 1]."""


class _Route(NamedTuple):
    """One route before it joins a table."""

    offsets: dict[str, float]
    vertices: NDArray[np.float64]
    """Columns s, x, y."""
    limits: NDArray[np.float64]
    """Columns from_s, limit."""
    length_m: float


def _lane_vertices(lane: Lane, offset_m: float) -> NDArray[np.float64]:
    points = np.array([[float(value) for value in point.split(",")] for point in lane.shape.split()])
    # Positions on a shape are measured in three dimensions where it has them.
    along = np.concatenate([[0.0], np.cumsum(np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1)))])
    shape_m = float(along[-1])
    s = offset_m + along * (lane.length_m / max(_SHORTEST_SHAPE_M, shape_m))
    vertices = np.column_stack([s, points[:, :2]])
    end = offset_m + lane.length_m
    if shape_m < _SHORTEST_SHAPE_M:  # SUMO stays at the last vertex of such a shape until the lane ends
        return np.vstack([vertices, [end, *vertices[-1, 1:]]])
    vertices[-1, 0] = end
    return vertices


def _trace(net: Network, lanes: Sequence[str]) -> _Route:
    offsets: dict[str, float] = {}
    vertices: list[NDArray[np.float64]] = []
    limits: list[tuple[float, float]] = []
    length_m = 0.0
    for name in lanes:
        if name not in net.lanes:
            raise ScenarioError(f"{net.path}: there is no lane {name!r}; network and route do not fit together.")
        lane = net.lanes[name]
        offsets[name] = length_m
        vertices.append(_lane_vertices(lane, length_m))
        if not limits or limits[-1][1] != lane.limit_mps:
            limits.append((length_m, lane.limit_mps))
        length_m += lane.length_m
    return _Route(offsets, np.concatenate(vertices), np.array(limits), length_m)


def _lane_table(net: Network, offsets: dict[str, float]) -> LaneTable:
    numbers = {name: number for number, name in enumerate(net.lanes)}
    lanes = [net.lanes[name] for name in offsets]
    return LaneTable(
        from_m=np.array(list(offsets.values())),
        length_m=np.array([lane.length_m for lane in lanes]),
        limit_mps=np.array([lane.limit_mps for lane in lanes]),
        is_internal=np.array([name.startswith(":") for name in offsets]),
        is_first=np.arange(len(offsets)) == 0,
        stream=np.array([numbers[name] % NUM_STREAMS for name in offsets], np.int64),
        first=np.zeros(1, np.int64),
    )


class RouteCatalogue:
    """Routes known to a process, numbered as they come; each network is read once, by the digest of its bytes."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._numbers: dict[tuple[str, tuple[str, ...]], int] = {}
        self._routes: list[_Route] = []
        self._lanes: list[LaneTable] = []
        self._joined: RouteTable | None = None
        self._last: RouteTable | None = None

    def network(self, net_file: Path, net_digest: str) -> Network:
        """The network with this content digest, read from ``net_file`` if it is new.

        Raises:
            ScenarioError: the file is missing or is no SUMO network.
        """
        if net_digest not in self._networks:
            self._networks[net_digest] = read_network(net_file)
        return self._networks[net_digest]

    def departure_lane(self, scenario: Scenario, vehicle: Vehicle) -> str:
        """The lane that a vehicle departs on.

        Raises:
            ScenarioError: the network has no such lane, or it ends before the place of departure.
        """
        name = f"{vehicle.edges[0]}_{vehicle.depart_lane}"
        lanes = self.network(scenario.net_file, scenario.net_digest).lanes
        if name not in lanes:
            raise ScenarioError(f"{scenario.net_file}: there is no lane {name!r}; mend the route or departLane.")
        if vehicle.depart_pos_m > lanes[name].length_m:
            raise ScenarioError(
                f"{scenario.path}: {vehicle.id} departs at {vehicle.depart_pos_m:g} m of lane {name}, which is"
                f" {lanes[name].length_m:g} m long; move its departPos onto the lane."
            )
        return name

    def add(self, net_file: Path, net_digest: str, lanes: tuple[str, ...]) -> int:
        """The number of the route over ``lanes`` (of ``lane_path``); the same lanes get the same number."""
        key = (net_digest, tuple(lanes))
        if key not in self._numbers:
            self._routes.append(_trace(self.network(net_file, net_digest), lanes))
            self._lanes.append(_lane_table(self.network(net_file, net_digest), self._routes[-1].offsets))
            self._numbers[key] = len(self._routes) - 1
            self._joined = None
        return self._numbers[key]

    def lane_offsets(self, route: int) -> dict[str, float]:
        """Position along the route at which each of its lanes begins [m], internal lanes included."""
        return self._routes[route].offsets

    @property
    def num_routes(self) -> int:
        """How many routes are known."""
        return len(self._routes)

    def lanes(self) -> LaneTable:
        """The lanes of all known routes."""
        columns = [np.concatenate(column) for column in zip(*self._lanes, strict=True)]
        columns[-1] = np.cumsum([0, *(len(table.from_m) for table in self._lanes)], dtype=np.int64)
        return LaneTable(*columns)

    def table(self, index_per_world: Sequence[int]) -> RouteTable:
        """All known routes as one table; ``index_per_world`` says which one each world's ego drives.

        The same object as last time where nothing has changed, so that what was built on it can stay.
        """
        if self._joined is None:
            self._joined, self._last = _join(self._routes), None
        if self._last is None or self._last.index.tolist() != list(index_per_world):
            self._last = self._joined._replace(index=np.array(index_per_world, np.int64))
        return self._last


def _join(routes: Sequence[_Route]) -> RouteTable:
    vertices = np.concatenate([route.vertices for route in routes])
    limits = np.concatenate([route.limits for route in routes])
    return RouteTable(
        index=np.zeros(0, np.int64),
        vertex_s_m=vertices[:, 0].copy(),
        vertex_x_m=vertices[:, 1].copy(),
        vertex_y_m=vertices[:, 2].copy(),
        first_vertex=np.cumsum([0, *(len(route.vertices) for route in routes)], dtype=np.int64),
        limit_from_s_m=limits[:, 0].copy(),
        limit_mps=limits[:, 1].copy(),
        first_limit=np.cumsum([0, *(len(route.limits) for route in routes)], dtype=np.int64),
        length_m=np.array([route.length_m for route in routes]),
    )
