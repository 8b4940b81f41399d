"""What the native engine can drive, and by name why it cannot drive the rest.

One lane, one road, right of way at every junction, Krauss drivers that are all on the road at t = 0: there SUMO is a
car-following law and nothing else. Whatever else a scenario states (lane changes, crossings, traffic lights, late
departures) is refused and never approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise, zip_longest

from roadsense.errors import ScenarioError
from roadsense.scenario import EGO_ID, Scenario
from roadsense.traffic.network import Lane, Network, lane_path
from roadsense.traffic.route import NUM_STREAMS, RouteCatalogue
from roadsense.vehicles import Vehicle, problem_of_type


class NotExpressibleError(ScenarioError):
    """The native engine cannot drive a scenario; SUMO can, or says itself why not.

    Attributes:
        reason: which scenario, and why.
    """

    def __init__(self, scenario: Scenario, problem: str) -> None:
        self.reason = f"{scenario.path}: the native engine cannot drive it: {problem}"
        super().__init__(f'{self.reason}. Use engine="sumo", or engine="auto", which takes SUMO where it must.')


_PLAIN_EDGE = {"id", "from", "to", "priority", "type", "function", "name", "shape", "spreadType", "length", "distance"}
"""Attributes of an edge that change nothing for a car on it."""

_PLAIN_LANE = {"id", "index", "speed", "length", "shape", "width", "allow", "disallow", "customShape", "type"}
"""Attributes of a lane that change nothing for a car on it, once it is open to cars at all."""


def chain_of(scenario: Scenario, catalogue: RouteCatalogue) -> tuple[str, ...]:
    """The lanes of V001's route, on which all cars of the scenario drive.

    Args:
        scenario: what shall be driven.
        catalogue: where its network is read from.

    Raises:
        NotExpressibleError: the scenario needs more than car following on one lane; says what and where.
        ScenarioError: it cannot be read.
    """
    problem = _problem_of_traffic(scenario)
    if problem is None:
        net = catalogue.network(scenario.net_file, scenario.net_digest)
        try:
            lanes = lane_path(net, scenario.ego.edges, scenario.ego.depart_lane)
        except ScenarioError as error:
            raise ScenarioError(f"{scenario.path}: {EGO_ID}: {error}") from None
        problem = _problem_of_road(net, lanes) or _problem_of_routes(scenario, net, lanes)
        problem = problem or _problem_of_draws(scenario, net, lanes)
        if problem is None:
            return lanes
    raise NotExpressibleError(scenario, problem)


def _problem_of_traffic(scenario: Scenario) -> str | None:
    if scenario.has_flows:
        return "a flow inserts vehicles as it goes"
    if scenario.acting:
        return f"<{scenario.acting[0]}> acts on the traffic as it goes"
    for vehicle in scenario.vehicles:
        if not vehicle.stated:
            return f"{vehicle.id} states more, or less, than type, edges, and lane, position and speed of its departure"
        if vehicle.depart_s > scenario.begin_s:
            return f"{vehicle.id} departs {vehicle.depart_s - scenario.begin_s:g} s after the begin"
        problem = problem_of_type(vehicle.type)
        if problem is not None:
            return f"{vehicle.id} is of vType {vehicle.type.id!r}, which {problem}"
    return None


def _problem_of_road(net: Network, lanes: Sequence[str]) -> str | None:
    for name in lanes:
        edge = name.rpartition("_")[0]
        if f"{edge}_1" in net.lanes:
            return f"edge {edge!r} has several lanes"
        unknown = sorted(set(net.edges.get(edge, {})) - _PLAIN_EDGE)
        if unknown:
            return f"edge {edge!r} states {unknown[0]!r}, which it does not know"
        if net.edges.get(edge, {}).get("type") in net.restricted_types:
            return f"edge {edge!r} is of a type with speed restrictions"
        problem = _problem_of_lane(net.lanes[name])
        if problem is not None:
            return f"lane {name!r} {problem}"
    for here, there in pairwise(name for name in lanes if not name.startswith(":")):
        edge = there.rpartition("_")[0]
        successor = next(one for one in net.successors[here, edge] if f"{edge}_{one.lane_index}" == there)
        where = f"from edge {here.rpartition('_')[0]!r} to {edge!r}"
        if successor.state != "M":
            return f"the way {where} has not always right of way (state {successor.state!r})"
        if net.is_crossed(here, successor):
            return f"the way {where} meets another one on the junction"
    return None


def _problem_of_lane(lane: Lane) -> str | None:
    unknown = sorted(set(lane.attributes) - _PLAIN_LANE)
    if unknown:
        return f"states {unknown[0]!r}, which it does not know"
    if lane.has_stop_offset:
        return "has a <stopOffset>"
    allowed, closed = (set(lane.attributes.get(name, "").split()) for name in ("allow", "disallow"))
    if (allowed and not allowed & {"passenger", "all"}) or closed & {"passenger", "all"}:
        return "is closed to passenger cars"
    return None


def _problem_of_routes(scenario: Scenario, net: Network, lanes: Sequence[str]) -> str | None:
    edges = [name.rpartition("_")[0] for name in lanes if not name.startswith(":")]
    begins = dict(zip(lanes, accumulate((net.lanes[name].length_m for name in lanes), initial=0.0), strict=False))
    placed: list[tuple[float, Vehicle]] = []
    for vehicle in scenario.vehicles:
        first = edges.index(vehicle.edges[0]) if vehicle.edges[0] in edges else len(edges)
        own = tuple(edges[first : first + len(vehicle.edges)])
        if own != vehicle.edges:
            off = next(one for one, on in zip_longest(vehicle.edges, own) if one != on)
            return f"{vehicle.id} drives edge {off!r}, which is not on {EGO_ID}'s way"
        if vehicle.depart_lane != 0:
            return f"{vehicle.id} departs on lane {vehicle.depart_lane}, which its edge does not have"
        placed.append((begins[f"{vehicle.edges[0]}_0"] + vehicle.depart_pos_m, vehicle))
    placed.sort(key=lambda one: one[0])
    for (position_m, behind), (front_m, ahead) in pairwise(placed):
        if front_m - ahead.type.length_m < position_m:
            return f"{behind.id} and {ahead.id} overlap where they depart"
    return None


def _problem_of_draws(scenario: Scenario, net: Network, lanes: Sequence[str]) -> str | None:
    """Two lanes that draw from one of SUMO's generators would have to take turns in an order nobody states."""
    if not any(vehicle.type.sigma > 0.0 for vehicle in scenario.vehicles):
        return None
    numbers = {name: number % NUM_STREAMS for number, name in enumerate(net.lanes)}
    first: dict[int, str] = {}
    for name in lanes:
        other = first.setdefault(numbers[name], name)
        if other != name:
            return f"lanes {other!r} and {name!r} share one of SUMO's generators, and drivers dawdle (sigma above 0)"
    return None
