"""The shared route geometry, held against SUMO's own positions, angles and limits."""

from __future__ import annotations

import gzip
import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import libsumo
import numpy as np
import pytest

from roadsense.errors import ScenarioError
from roadsense.scenario import read_scenario
from roadsense.traffic.base import TrafficState
from roadsense.traffic.geometry import place, pose, speed_limit
from roadsense.traffic.network import read_network
from roadsense.traffic.route import RouteCatalogue, lane_path

SCENARIOS = Path(__file__).parents[2] / "scenarios"
BASE_ROADS = ("straight", "curve", "arterial")
CAR_M = 5.0

# Three edges of two lanes. On a->b lane 0 forks to b_0 and b_1; only b_1 leads on to c, over two internal lanes.
FORKS = """
<net version="1.20">
  <edge id="a"><lane id="a_0" speed="20" length="100" shape="0,0 100,0"/><lane id="a_1" speed="20" length="100" shape="0,3 100,3"/></edge>
  <edge id="b"><lane id="b_0" speed="20" length="50" shape="101,0 151,0"/><lane id="b_1" speed="10" length="50" shape="101,3 151,3"/></edge>
  <edge id="c"><lane id="c_0" speed="15" length="200" shape="153,3 353,3"/></edge>
  <edge id=":j1_0" function="internal"><lane id=":j1_0_0" speed="20" length="1" shape="100,0 101,0"/></edge>
  <edge id=":j1_1" function="internal"><lane id=":j1_1_0" speed="20" length="1" shape="100,0 101,3"/></edge>
  <edge id=":j2_0" function="internal"><lane id=":j2_0_0" speed="8" length="1" shape="151,3 152,3"/></edge>
  <edge id=":j2_1" function="internal"><lane id=":j2_1_0" speed="8" length="1.5" shape="152,3 153,3"/></edge>
  <connection from="a" to="b" fromLane="0" toLane="0" via=":j1_0_0" dir="s" state="M"/>
  <connection from="a" to="b" fromLane="0" toLane="1" via=":j1_1_0" dir="s" state="M"/>
  <connection from="b" to="c" fromLane="1" toLane="0" via=":j2_0_0" dir="s" state="m"/>
  <connection from=":j1_0" to="b" fromLane="0" toLane="0" dir="s" state="M"/>
  <connection from=":j1_1" to="b" fromLane="0" toLane="1" dir="s" state="M"/>
  <connection from=":j2_0" to="c" fromLane="0" toLane="0" via=":j2_1_0" dir="s" state="m"/>
  <connection from=":j2_1" to="c" fromLane="0" toLane="0" dir="s" state="M"/>
</net>
"""  # noqa: E501


@pytest.fixture
def forks(tmp_path: Path) -> Path:
    net_file = tmp_path / "forks.net.xml"
    net_file.write_text(FORKS)
    return net_file


@pytest.fixture
def start_sumo() -> Iterator[Callable[[Path], None]]:
    def start(net_file: Path) -> None:
        libsumo.start(["sumo", "-n", str(net_file), "--step-length", "0.1", "--no-step-log", "--no-warnings"])

    yield start
    libsumo.close()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _catalogue(net_file: Path, edges: tuple[str, ...], lane: int = 0) -> tuple[RouteCatalogue, int]:
    catalogue = RouteCatalogue()
    digest = _digest(net_file)
    lanes = lane_path(catalogue.network(net_file, digest), edges, lane)
    return catalogue, catalogue.add(net_file, digest, lanes)


def _put_car(lane: str, position: float) -> None:
    """A fresh car each time: SUMO keeps position and angle of a moved one until the next step."""
    if "car" in libsumo.vehicle.getIDList():
        libsumo.vehicle.remove("car")
    libsumo.vehicle.add("car", "r")  # SUMO's default type is 5 m long
    libsumo.vehicle.moveTo("car", lane, position)


def _off(own: tuple[float, float, float]) -> tuple[float, float]:
    """How far a pose is off that of SUMO's car [m, degrees]."""
    x, y, heading = own
    sumo_x, sumo_y = libsumo.vehicle.getPosition("car")
    turned = 90.0 - math.degrees(heading) - libsumo.vehicle.getAngle("car")
    return math.hypot(x - sumo_x, y - sumo_y), abs((turned + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize("road", BASE_ROADS)
def test_pose_and_limit_are_those_of_sumo(road: str, start_sumo: Callable[[Path], None]) -> None:
    scenario = read_scenario(SCENARIOS / "base" / road)
    catalogue, route = _catalogue(scenario.net_file, scenario.ego.edges)
    table = catalogue.table([route])
    offsets = catalogue.lane_offsets(route)
    start_sumo(scenario.net_file)
    libsumo.route.add("r", list(scenario.ego.edges))
    worst_m = worst_deg = 0.0
    samples = 0
    for lane, offset in offsets.items():
        lane_m = libsumo.lane.getLength(lane)
        for position in (*np.arange(0.0, lane_m, 2.9), lane_m / 2, lane_m):
            s = offset + float(position)
            if s < CAR_M:  # SUMO lets the rear stop at the first lane's begin, roadsense goes straight back
                continue
            _put_car(lane, float(position))
            off_m, off_deg = _off(pose(table, route, s, CAR_M))
            worst_m, worst_deg = max(worst_m, off_m), max(worst_deg, off_deg)
            if position > 0.0:  # at 0 it could as well be at the end of the lane before
                assert speed_limit(table, route, s) == libsumo.lane.getMaxSpeed(lane)
            samples += 1
    assert samples > 1000
    assert worst_m <= 1e-9
    assert worst_deg <= 1e-9
    total_m = sum(libsumo.lane.getLength(lane) for lane in offsets)
    assert table.length_m[route] == pytest.approx(total_m, abs=1e-9)


@pytest.mark.parametrize("road", BASE_ROADS)
def test_pose_of_a_driven_car_is_that_of_sumo(road: str, start_sumo: Callable[[Path], None]) -> None:
    scenario = read_scenario(SCENARIOS / "base" / road)
    catalogue, route = _catalogue(scenario.net_file, scenario.ego.edges)
    table, offsets = catalogue.table([route]), catalogue.lane_offsets(route)
    start_sumo(scenario.net_file)
    libsumo.route.add("r", list(scenario.ego.edges))
    _put_car(f"{scenario.ego.edges[0]}_0", 10.0)
    worst_m = worst_deg = reached_m = 0.0
    while True:
        libsumo.simulationStep()
        if libsumo.simulation.getArrivedNumber():
            break
        reached_m = offsets[libsumo.vehicle.getLaneID("car")] + libsumo.vehicle.getLanePosition("car")
        off_m, off_deg = _off(pose(table, route, reached_m, CAR_M))
        worst_m, worst_deg = max(worst_m, off_m), max(worst_deg, off_deg)
    assert reached_m > table.length_m[route] - 5.0
    assert worst_m <= 1e-9
    assert worst_deg <= 1e-9


def test_pose_on_stretched_shapes_is_that_of_sumo(tmp_path: Path, start_sumo: Callable[[Path], None]) -> None:
    # Lengths that differ from their shapes, a grade, a bend inside the car's length, a shape below 0.1 m.
    net_file = tmp_path / "stretched.net.xml"
    net_file.write_text("""<net version="1.20">
      <edge id="a" from="j0" to="j1"><lane id="a_0" index="0" speed="20" length="80" shape="0,0 50,0 70,10"/></edge>
      <edge id="b" from="j1" to="j2"><lane id="b_0" index="0" speed="20" length="0.3" shape="70,10 70.04,10"/></edge>
      <edge id="c" from="j2" to="j3"><lane id="c_0" index="0" speed="9" length="30" shape="70.04,10,0 71,11,1 90,11,9"/>
      </edge>
      <junction id="j0" type="dead_end" x="0" y="0" incLanes="" intLanes="" shape="0,0 0,1"/>
      <junction id="j1" type="unregulated" x="70" y="10" incLanes="a_0" intLanes="" shape="70,10 70,11"/>
      <junction id="j2" type="unregulated" x="70" y="10" incLanes="b_0" intLanes="" shape="70,10 70,11"/>
      <junction id="j3" type="dead_end" x="90" y="11" incLanes="c_0" intLanes="" shape="90,11 90,12"/>
      <connection from="a" to="b" fromLane="0" toLane="0" dir="s" state="M"/>
      <connection from="b" to="c" fromLane="0" toLane="0" dir="s" state="M"/>
    </net>""")
    catalogue, route = _catalogue(net_file, ("a", "b", "c"))
    table, offsets = catalogue.table([route]), catalogue.lane_offsets(route)
    start_sumo(net_file)
    libsumo.route.add("r", ["a", "b", "c"])
    worst_m = worst_deg = 0.0
    for lane, lane_m in (("a_0", 80.0), ("b_0", 0.3), ("c_0", 30.0)):
        for position in np.linspace(0.0, lane_m, 41)[1:]:
            s = offsets[lane] + float(position)
            if s >= CAR_M:
                _put_car(lane, float(position))
                off_m, off_deg = _off(pose(table, route, s, CAR_M))
                worst_m, worst_deg = max(worst_m, off_m), max(worst_deg, off_deg)
    assert worst_m <= 1e-9
    assert worst_deg <= 1e-9


def test_beyond_its_ends_the_road_goes_straight_on(tmp_path: Path) -> None:
    net_file = tmp_path / "l.net.xml"  # east for 10 m, then north for 20 m; lengths are half of the shape's
    net_file.write_text('<net><edge id="a"><lane id="a_0" speed="9" length="15" shape="0,0 10,0 10,20"/></edge></net>')
    catalogue, route = _catalogue(net_file, ("a",))
    table = catalogue.table([route])
    assert pose(table, route, -7.0, 5.0) == pytest.approx((-7.0, 0.0, 0.0))
    assert pose(table, route, 2.0, 5.0) == pytest.approx((4.0, 0.0, 0.0))
    assert pose(table, route, 18.0, 2.0) == pytest.approx((10.0, 23.0, math.pi / 2))
    chord = math.atan2(2.0, 2.0)
    assert pose(table, route, 6.0, 2.0) == pytest.approx((10.0, 2.0, chord))  # not the tangent
    assert pose(table, route, 6.0, 0.0)[2] == pytest.approx(math.pi / 2)  # without length, the tangent


def test_a_degenerate_last_shape_still_has_a_direction(tmp_path: Path) -> None:
    net_file = tmp_path / "stub.net.xml"
    net_file.write_text(
        '<net><edge id="a"><lane id="a_0" speed="9" length="10" shape="0,0 0,10"/></edge>'
        '<edge id="b"><lane id="b_0" speed="9" length="0.1" shape="0,10 0,10"/></edge>'
        '<connection from="a" to="b" fromLane="0" toLane="0"/></net>'
    )
    catalogue, route = _catalogue(net_file, ("a", "b"))
    table = catalogue.table([route])
    assert pose(table, route, 10.05, 5.0) == pytest.approx((0.0, 10.0, math.pi / 2))
    assert pose(table, route, 13.1, 2.0) == pytest.approx((0.0, 13.0, math.pi / 2))


def test_limits_change_where_a_lane_begins(forks: Path) -> None:
    catalogue, route = _catalogue(forks, ("a", "b", "c"))
    table = catalogue.table([route])
    positions = (-5.0, 0.0, 100.0, 101.0, 101.001, 151.0, 151.001, 153.5, 153.501, 999.0)
    limits = [speed_limit(table, route, s) for s in positions]
    assert limits == [20.0, 20.0, 20.0, 20.0, 10.0, 10.0, 8.0, 8.0, 15.0, 15.0]


def test_lane_path_takes_the_fork_that_leads_on_and_every_internal_lane(forks: Path) -> None:
    net = read_network(forks)
    assert lane_path(net, ("a", "b", "c"), 0) == ("a_0", ":j1_1_0", "b_1", ":j2_0_0", ":j2_1_0", "c_0")
    assert lane_path(net, ("a", "b"), 0) == ("a_0", ":j1_0_0", "b_0")
    catalogue, route = _catalogue(forks, ("a", "b", "c"))
    assert catalogue.lane_offsets(route) == {
        "a_0": 0.0, ":j1_1_0": 100.0, "b_1": 101.0, ":j2_0_0": 151.0, ":j2_1_0": 152.0, "c_0": 153.5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("edges", "lane", "words"),
    [
        (("a", "b", "c"), 1, ("a_1", "no connection onward", "'b'")),
        (("b", "c"), 0, ("b_0", "no connection onward", "'c'")),
        (("a", "c"), 0, ("a_0", "no connection onward", "'c'")),
        (("a", "b", "a"), 0, ("'a'", "twice")),
        (("a", "bb"), 0, ("'bb'", "did you mean 'b'")),
        (("a", "b"), 7, ("'a'", "no lane 7")),
        ((), 0, ("no edges",)),
    ],
)
def test_a_route_that_cannot_be_driven_is_refused_by_name(
    forks: Path, edges: tuple[str, ...], lane: int, words: tuple[str, ...]
) -> None:
    with pytest.raises(ScenarioError) as caught:
        lane_path(read_network(forks), edges, lane)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<net><edge", "not well-formed"),
        ("<routes/>", "no lanes"),
        ('<net><lane id="a_0"/></net>', "not a SUMO network"),
    ],
)
def test_a_broken_network_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    net_file = tmp_path / "broken.net.xml"
    net_file.write_text(content)
    with pytest.raises(ScenarioError, match=words) as caught:
        read_network(net_file)
    assert str(net_file) in str(caught.value)


def test_a_missing_network_and_a_foreign_lane_are_refused_by_name(forks: Path, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"gone\.net\.xml: no such file"):
        read_network(tmp_path / "gone.net.xml")
    with pytest.raises(ScenarioError, match="no lane 'z_0'"):
        RouteCatalogue().add(forks, _digest(forks), ("z_0",))


def test_a_gzipped_network_is_the_same_network(forks: Path, tmp_path: Path) -> None:
    packed = tmp_path / "forks.net.xml.gz"
    packed.write_bytes(gzip.compress(forks.read_bytes()))
    assert read_network(packed).lanes == read_network(forks).lanes
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ScenarioError, match="not well-formed"):
        read_network(packed)


def test_the_catalogue_reads_a_network_once_and_numbers_routes_by_content(forks: Path) -> None:
    catalogue = RouteCatalogue()
    long = catalogue.add(forks, "digest", ("a_0", ":j1_1_0", "b_1"))
    assert catalogue.table([long]).length_m.tolist() == [151.0]
    forks.unlink()  # known by its digest from here on
    short = catalogue.add(forks, "digest", ("c_0",))
    assert (long, short) == (0, 1)
    assert catalogue.add(forks, "digest", ("a_0", ":j1_1_0", "b_1")) == long
    table = catalogue.table([short, long, short])
    assert table.index.tolist() == [1, 0, 1]
    assert table.length_m.tolist() == [151.0, 200.0]
    assert pose(table, short, 10.0, 5.0) == pytest.approx((163.0, 3.0, 0.0))
    assert pose(table, long, 120.0, 5.0) == pytest.approx((120.0, 3.0, 0.0))
    assert speed_limit(table, short, 10.0) == 15.0


def test_place_fills_living_cars_on_their_worlds_route_and_no_others(forks: Path) -> None:
    catalogue = RouteCatalogue()
    digest = _digest(forks)
    routes = [catalogue.add(forks, digest, lanes) for lanes in (("a_0",), ("c_0",))]
    table = catalogue.table([routes[1], routes[0]])
    state = TrafficState.zeros(2, 3)
    state.position_m[...] = 40.0
    state.length_m[...] = 5.0
    state.alive[:, :2] = True
    state.on_route[:, (0, 2)] = True
    state.x_m[:, 1] = -1.0  # what an engine filled in for a car elsewhere
    place(table, state, 0, 2)
    assert state.x_m.tolist() == [[193.0, -1.0, 0.0], [40.0, -1.0, 0.0]]
    assert state.y_m.tolist() == [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_base_networks_rebuild_to_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCENARIOS / "build_networks.py"), "--into", str(tmp_path)], check=True)
    built = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(built) == 3 * len(BASE_ROADS)
    for path in built:
        assert (tmp_path / path).read_bytes() == (SCENARIOS / "base" / path).read_bytes(), path


def test_crossed_connections_are_told_from_free_ones(tmp_path: Path) -> None:
    """A junction counts its connections lane by lane; the second of the first lane crosses the third of all."""
    edges = "".join(
        f'<edge id="{name}" from="{start}" to="{end}"><lane id="{name}_0" speed="9" length="9" shape="0,0 9,0"/></edge>'
        for name, start, end in (("in", "w", "j"), ("left", "j", "n"), ("on", "j", "e"), ("side", "s", "j"))
    )
    links = "".join(
        f'<connection from="{start}" to="{end}" fromLane="0" toLane="0" state="M"/>'
        for start, end in (("in", "on"), ("in", "left"), ("side", "left"))
    )
    requests = "".join(f'<request index="{i}" foes="{foes}"/>' for i, foes in enumerate(("000", "100", "010")))
    junction = f'<junction id="j" incLanes="in_0 side_0">{requests}</junction>'
    file = tmp_path / "t.net.xml"
    file.write_text(f"<net>{edges}{junction}{links}</net>")
    net = read_network(file)
    crossed = {(lane, to): net.is_crossed(lane, successors[0]) for (lane, to), successors in net.successors.items()}
    assert crossed == {("in_0", "on"): False, ("in_0", "left"): True, ("side_0", "left"): True}
