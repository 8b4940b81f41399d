"""A SUMO network as far as a route needs it: lanes, and which lane follows which.

Read directly and not by sumolib, which keeps every junction, request and permission set and takes several times as
long; a worker process reads a network before its first step.
"""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

from roadsense.errors import ScenarioError, nearest


class Lane(NamedTuple):
    """One ``<lane>``; ``shape`` is its text, parsed only where a route uses it."""

    length_m: float
    limit_mps: float
    shape: str
    attributes: dict[str, str]
    has_stop_offset: bool


class Successor(NamedTuple):
    """One ``<connection>``: the lane it leads to and the internal lane it crosses the junction on ("" if none)."""

    lane_index: int
    via: str
    state: str
    """SUMO's letter for who has the right of way; "M": this connection, always."""
    number: int
    """Which of the connections of its lane it is."""


class Junction(NamedTuple):
    """One ``<junction>``: the lanes that lead into it, and of every connection through it whether another crosses."""

    lanes: tuple[str, ...]
    crossed: tuple[bool, ...]


@dataclass(frozen=True)
class Network:
    """Lanes by id in the order of the file, and the connections of a lane by (lane id, id of the next edge)."""

    path: Path
    lanes: dict[str, Lane] = field(default_factory=dict)
    successors: dict[tuple[str, str], list[Successor]] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    """How many connections each lane has."""
    junctions: dict[str, Junction] = field(default_factory=dict)
    edges: dict[str, dict[str, str]] = field(default_factory=dict)
    """Attributes of each edge."""
    restricted_types: set[str] = field(default_factory=set)
    """Types of edges on which some vehicles have a speed limit of their own."""

    def is_crossed(self, lane: str, successor: Successor) -> bool:
        """Whether a connection from ``lane`` meets another one on its junction.

        A junction counts its connections lane by lane, in the order of its ``incLanes``.
        """
        junction = self.junctions.get(self.edges.get(lane.rpartition("_")[0], {}).get("to", ""))
        if junction is None or lane not in junction.lanes:
            return False
        before = junction.lanes[: junction.lanes.index(lane)]
        place = sum(self.connections.get(name, 0) for name in before) + successor.number
        return junction.crossed[place] if place < len(junction.crossed) else False


def read_network(path: Path) -> Network:
    """Reads a ``.net.xml`` file, gzipped or not.

    Raises:
        ScenarioError: the file is missing, does not parse, or is no SUMO network.
    """
    network = Network(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            _fill(network, file)
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file; a scenario needs its network.") from None
    except (ET.ParseError, EOFError, gzip.BadGzipFile) as error:
        raise ScenarioError(f"{path}: not well-formed XML ({error}); rebuild it with netconvert.") from None
    except (KeyError, ValueError) as error:
        raise ScenarioError(f"{path}: not a SUMO network ({error}); rebuild it with netconvert.") from None
    if not network.lanes:
        raise ScenarioError(f"{path}: no lanes in it, so it is not a SUMO network; rebuild it with netconvert.")
    return network


def _fill(network: Network, file: IO[bytes] | gzip.GzipFile) -> None:
    for _, element in ET.iterparse(file, events=("end",)):
        if element.tag == "lane":
            stated = dict(element.attrib)
            network.lanes[stated["id"]] = Lane(
                float(stated["length"]), float(stated["speed"]), stated["shape"], stated,
                element.find("stopOffset") is not None,
            )  # fmt: skip
        elif element.tag == "connection":
            origin = f"{element.attrib['from']}_{element.attrib['fromLane']}"
            number = network.connections.get(origin, 0)
            via, state = element.get("via", ""), element.get("state", "")
            successor = Successor(int(element.attrib["toLane"]), via, state, number)
            network.successors.setdefault((origin, element.attrib["to"]), []).append(successor)
            network.connections[origin] = number + 1
        elif element.tag == "edge":
            network.edges[element.attrib["id"]] = dict(element.attrib)
        elif element.tag == "type" and element.find("restriction") is not None:
            network.restricted_types.add(element.attrib["id"])
        elif element.tag == "junction":
            crossed = tuple("1" in request.get("foes", "") for request in element.iter("request"))
            network.junctions[element.attrib["id"]] = Junction(tuple(element.get("incLanes", "").split()), crossed)
        if element.tag not in ("request", "stopOffset", "restriction"):  # which junction, lane and type read
            element.clear()


def lane_path(net: Network, edges: Sequence[str], depart_lane: int) -> tuple[str, ...]:
    """The lanes that a car drives over which never changes lanes, the internal ones of junctions included.

    Where a lane forks into several lanes of the next edge, SUMO takes the lowest from which the rest of the route can
    be driven, and so does this.

    Args:
        net: the network.
        edges: ids of the route's edges in driving order.
        depart_lane: index of the lane it departs on.

    Raises:
        ScenarioError: the route is empty, names an unknown edge or one edge twice, or a lane has no connection onward
            to the next edge.
    """
    if not edges:
        raise ScenarioError("the route has no edges; state them in the vehicle's <route>.")
    for number, edge in enumerate(edges):
        if f"{edge}_0" not in net.lanes:
            names = (lane.removesuffix("_0") for lane in net.lanes if lane.endswith("_0") and lane[0] != ":")
            raise ScenarioError(f"{net.path}: there is no edge {edge!r}; {nearest(edge, names)}")
        if edge in edges[:number]:
            raise ScenarioError(
                f"edge {edge!r} comes twice on the route; a position along a loop is ambiguous, so cut it."
            )
    lane = f"{edges[0]}_{depart_lane}"
    if lane not in net.lanes:
        raise ScenarioError(f"{net.path}: edge {edges[0]!r} has no lane {depart_lane}; mend departLane.")
    reach = _reach(net, edges)
    path = [lane]
    for here, following in pairwise(edges):
        onward = net.successors.get((lane, following))
        if not onward:
            raise ScenarioError(
                f"{net.path}: lane {lane} has no connection onward to edge {following!r}; depart on another lane of"
                f" {here!r} or mend the route."
            )
        successor = max(onward, key=lambda one: (reach.get(f"{following}_{one.lane_index}", 0), -one.lane_index))
        path += _across(net, successor.via, following)
        lane = f"{following}_{successor.lane_index}"
        path.append(lane)
    return tuple(path)


def _reach(net: Network, edges: Sequence[str]) -> dict[str, int]:
    """How many of the route's further edges can be driven from a lane without changing lanes; 0 is left out."""
    reach: dict[str, int] = {}
    origins: dict[str, list[tuple[str, list[Successor]]]] = {}
    pairs = set(pairwise(edges))
    for (lane, following), onward in net.successors.items():
        if (lane[: lane.rindex("_")], following) in pairs:
            origins.setdefault(following, []).append((lane, onward))
    for following in reversed(edges[1:]):
        for lane, onward in origins.get(following, ()):
            reach[lane] = 1 + max(reach.get(f"{following}_{one.lane_index}", 0) for one in onward)
    return reach


def _across(net: Network, via: str, following: str) -> list[str]:
    """The internal lanes from ``via`` up to edge ``following``; a crossing with a waiting place has several."""
    lanes: list[str] = []
    while via:
        lanes.append(via)
        onward = net.successors.get((via, following))
        via = onward[0].via if onward else ""
    return lanes
