"""The native engine against libsumo, to the bit, and what it refuses."""

import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest

import roadsense
from roadsense.errors import ScenarioError, TrafficError, UsageError
from roadsense.scenario import read_scenario
from roadsense.traffic.base import EGO
from roadsense.traffic.engines import choose_engine, make_traffic
from roadsense.traffic.expressible import NotExpressibleError
from roadsense.traffic.mersenne import WORDS, seed_stream, twist, unit_of
from roadsense.vehicles import VehicleType
from tests.traffic.convoys import BASES, base_of, differs, drawn_convoy, drawn_type, drive_both, states_over_time
from tests.traffic.networks import chain_network, random_network, random_route

MAX_CARS = 9


@pytest.fixture(scope="module")
def engines(require_sumo):
    with make_traffic("sumo", 1, MAX_CARS) as sumo, make_traffic("native", 1, MAX_CARS) as native:
        yield sumo, native


# ---------------------------------------------------------------- alignment


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("name", BASES)
def test_every_car_moves_as_in_sumo_to_the_bit(engines, name, sigma):
    base = base_of(name)
    for seed in range(20):
        convoy = drawn_convoy(base, np.random.default_rng((seed, 1)), sigma)
        assert drive_both(*engines, convoy, seed) is None


def a_type(**attributes) -> VehicleType:
    return VehicleType(
        id=f"type-{attributes}", attributes={"sigma": "0", **{key: str(value) for key, value in attributes.items()}}
    )


def on_edges(net, edges, *cars):
    """A scenario of (edge number, position, speed, type) cars, the ego first; all drive to the last edge."""
    template = base_of("straight").scenario
    vehicles = tuple(
        dataclasses.replace(
            template.ego, id=f"V{number:03d}", type=kind, edges=tuple(edges[first:]), depart_pos_m=at,
            depart_speed_mps=speed,
        )
        for number, (first, at, speed, kind) in enumerate(cars, 1)
    )  # fmt: skip
    return dataclasses.replace(template, vehicles=vehicles, net_file=net, path=net.parent)


def move_alike(engines, scenario, steps=60):
    """Whether all cars do, behind an ego that keeps its speed."""
    sumo, _ = engines
    for traffic in engines:
        traffic.reset([scenario], [3])
    steered = np.zeros((1, MAX_CARS), np.bool_)
    steered[0, EGO] = True
    for _ in range(steps):
        speeds = sumo.state.speed_mps.copy()
        for traffic in engines:
            traffic.advance(speeds, steered, np.ones(1, np.bool_))
        if differs(*engines) is not None:
            return False
    return True


@pytest.fixture
def short_lanes(tmp_path):
    """Pieces of 100, 24 + 0.1, 12, 40 and 300 m."""
    return chain_network(tmp_path, [100.0, 24.0, 12.0, 40.0, 300.0], [20.0, 20.0, 20.0, 9.0, 20.0])


EDGES = [f"e{number}" for number in range(5)]


@pytest.mark.parametrize("crawl_mps", [0.995e-5, 1.005e-5])
def test_speeds_too_small_to_be_any_are_0(engines, short_lanes, crawl_mps):
    cars = (0, 10.0, 0.0, a_type()), (0, 50.0, 0.0, a_type(maxSpeed=crawl_mps))
    assert move_alike(engines, on_edges(short_lanes, EDGES, *cars))
    assert (engines[0].state.speed_mps[0, 1] > 0.0) == (crawl_mps > 1e-5)


@pytest.mark.parametrize("length_m", [4.85, 4.75, 7.25, 7.15])  # a lane more or less is read from 4.8 and 7.2 on
def test_cars_read_as_many_lanes_ahead_as_sumo_does(engines, short_lanes, length_m):
    """A minimum gap wider than the look ahead makes visible how far a car looks: it brakes for what it sees."""
    slow = a_type(minGap=60.0, tau=0.5, maxSpeed=3.0, length=length_m)
    cars = (0, 10.0, 0.0, a_type()), (0, 99.0, 3.0, slow), (3, 6.0, 0.0, a_type(maxSpeed=1e-9))
    assert move_alike(engines, on_edges(short_lanes, EDGES, *cars), steps=20)


def test_cars_at_the_end_of_their_routes_are_gone(engines, short_lanes):
    cars = [(0, 50.0, 10.0, a_type()), (4, 200.0, 20.0, a_type()), (4, 250.0, 20.0, a_type())]
    assert move_alike(engines, on_edges(short_lanes, EDGES, *cars), steps=100)
    assert engines[1].state.alive[0].tolist() == [True] + [False] * (MAX_CARS - 1)


@pytest.mark.parametrize(("left_m", "stays"), [(0.1005, True), (0.0995, False)])
def test_a_car_has_arrived_a_decimetre_before_the_end(engines, short_lanes, left_m, stays):
    cars = [(0, 50.0, 10.0, a_type()), (4, 300.0 - left_m, 0.0, a_type(maxSpeed=1e-9))]
    assert move_alike(engines, on_edges(short_lanes, EDGES, *cars), steps=3)
    assert engines[1].state.alive[0, 1] == stays


@pytest.mark.parametrize("limit_mps", [2.0, 9.0, 19.0])
def test_cars_whose_route_ends_where_the_limit_drops_brake_as_in_sumo(engines, tmp_path, limit_mps):
    """Toward the last lane a car slows less than toward a lane that it drives on from."""
    for number, left_m in enumerate((3.0, 20.0, 35.0, 60.0)):
        (tmp_path / str(number)).mkdir()
        net = chain_network(tmp_path / str(number), [200.0, left_m, 400.0], [30.0, limit_mps, 30.0])
        for speed in (10.0, 17.3, 25.3):
            cars = (0, 10.0, 5.0, a_type()), (0, 120.0, speed, a_type(decel=1.5)), (0, 160.0, speed, a_type())
            scenario = on_edges(net, EDGES[:3], *cars)
            ego, *peers = scenario.vehicles
            peers = [dataclasses.replace(peer, edges=tuple(EDGES[:2])) for peer in peers]
            assert move_alike(engines, dataclasses.replace(scenario, vehicles=(ego, *peers)), steps=120)


def test_a_generator_that_was_taken_goes_on_where_it_was(engines, tmp_path):
    """Two columns have room for two generators.

    The car ahead stays on a lane for over 624 draws and moves on; its generator is used for the next lanes before the
    other car comes to draw from it.
    """
    sumo = engines[0]
    net = chain_network(tmp_path, [120.0, 80.0, 30.0, 30.0, 400.0], [20.0] * 5, internal=False)
    kinds = a_type(sigma=0.5, maxSpeed=1.4), a_type(sigma=0.5, maxSpeed=1.1)
    scenario = on_edges(net, EDGES, (0, 10.0, 1.0, kinds[0]), (1, 5.0, 1.0, kinds[1]))
    with make_traffic("native", 1, 2) as native:
        for traffic in (sumo, native):
            traffic.reset([scenario], [3])
        for _ in range(1600):
            for traffic in (sumo, native):
                none = np.zeros((1, traffic.max_cars))
                traffic.advance(none, none.astype(np.bool_), np.ones(1, np.bool_))
            assert np.array_equal(sumo.state.speed_mps[:, :2], native.state.speed_mps)
        assert native.state.position_m[0, 0] > 150.0
        assert native.state.position_m[0, 1] > 260.0


def test_closed_worlds_say_so(short_lanes):
    traffic = make_traffic("native", 1, MAX_CARS)
    traffic.close()
    traffic.close()
    with pytest.raises(TrafficError, match="these worlds are closed; open new ones"):
        traffic.reset([convoy(short_lanes)], [1])


def foreign_convoy(net, edges, lengths_m, rng):
    """A convoy of up to five peers somewhere on the first edges of a route."""
    position, speed, ends = 10.0 + rng.uniform(0.0, 100.0), rng.uniform(3.0, 13.0), np.cumsum(lengths_m)
    cars = []
    for number in range(int(rng.integers(2, 7))):
        first = int(np.searchsorted(ends, position))
        if first == len(edges):
            break
        kind = drawn_type(rng, f"type{number}", float(rng.choice([0.0, 0.5])))
        cars.append((first, position - ends[first] + lengths_m[first], speed, kind))
        position += 15.0 + speed * rng.uniform(1.0, 2.0)
    return on_edges(net, edges, *cars)


@pytest.mark.parametrize("internal", [True, False])
def test_chains_of_all_lengths_and_limits_align(engines, tmp_path, internal):
    """Edges of 1 to 300 m, shorter than a step or a car among them, with any limits."""
    for seed in range(8):
        rng, folder = np.random.default_rng(seed), tmp_path / str(seed)
        folder.mkdir()
        lengths_m = [*rng.choice([1.0, 3.0, 12.0, 80.0, 300.0], 20).tolist(), 400.0]
        net = chain_network(folder, lengths_m, rng.uniform(6.0, 30.0, 21).tolist(), internal=internal)
        scenario = foreign_convoy(net, [f"e{number}" for number in range(21)], lengths_m, rng)
        assert drive_both(*engines, scenario, seed, steps=250) is None


TRUE_REASONS = (
    r"the way from edge '\S+' to '\S+' has not always right of way \(state '[mo=sw]'\)",
    r"the way from edge '\S+' to '\S+' meets another one on the junction",
)


def test_networks_drawn_at_random_align_or_are_refused_for_a_true_reason(engines, tmp_path):
    native, aligned, refused = engines[1], 0, []
    for seed in range(25):
        rng, folder = np.random.default_rng(seed), tmp_path / str(seed)
        folder.mkdir()
        net = random_network(folder, rng)
        for _ in range(4):
            route = random_route(net, rng)
            if route is None:
                continue
            scenario = foreign_convoy(net, *route, rng)
            try:
                native.reset([scenario], [seed])
            except NotExpressibleError as error:
                refused.append(str(error))
                continue
            aligned += 1
            assert drive_both(*engines, scenario, seed) is None
    assert len(refused) > 20
    assert aligned > 0
    assert [told for told in refused if not any(re.search(reason, told) for reason in TRUE_REASONS)] == []


# ---------------------------------------------------------------- batch


def test_a_world_moves_alike_alone_and_in_a_batch(require_sumo):
    """Worlds of different roads, sizes and seeds side by side, in two orders."""
    drawn = [drawn_convoy(base_of(BASES[n % 3]), np.random.default_rng(n), 0.5) for n in range(12)]
    with make_traffic("native", 12, MAX_CARS) as batch, make_traffic("native", 12, MAX_CARS) as turned:
        together = states_over_time(batch, drawn, list(range(12)), 200)
        around = states_over_time(turned, drawn[::-1], list(range(12))[::-1], 200)
    assert np.array_equal(together, around[:, :, ::-1])
    for world, scenario in enumerate(drawn):
        with make_traffic("native", 1, MAX_CARS) as alone:
            assert np.array_equal(states_over_time(alone, [scenario], [world], 200)[:, :, 0], together[:, :, world])


def test_other_seeds_dawdle_otherwise_and_sigma_0_never_does():
    nervous, calm = (drawn_convoy(base_of("straight"), np.random.default_rng(3), sigma) for sigma in (0.5, 0.0))
    with make_traffic("native", 2, MAX_CARS) as traffic:
        seen = states_over_time(traffic, [nervous, nervous], [1, 2], 50)
        assert not np.array_equal(seen[:, :, 0], seen[:, :, 1])
        seen = states_over_time(traffic, [calm, calm], [1, 2], 50)
        assert np.array_equal(seen[:, :, 0], seen[:, :, 1])


def test_worlds_that_are_not_active_stay():
    drawn = drawn_convoy(base_of("curve"), np.random.default_rng(3), 0.5)
    with make_traffic("native", 2, MAX_CARS) as traffic:
        traffic.reset([drawn, drawn], [1, 1])
        before = traffic.state.position_m.copy()
        traffic.advance(traffic.state.speed_mps.copy(), np.zeros((2, MAX_CARS), np.bool_), np.array([False, True]))
        assert np.array_equal(traffic.state.position_m[0], before[0])
        assert (traffic.state.position_m[1, 1] > before[1, 1]).all()
        traffic.reset([None, drawn], [1, 1])
        assert np.array_equal(traffic.state.position_m, before)


def test_the_generator_is_that_of_the_c_standard():
    """ISO C++: the 10,000th output of a default-seeded std::mt19937 is 4123659995."""
    words = np.zeros(WORDS, np.uint32)
    seed_stream(words, 5489)
    for place in range(10_000):
        if place % WORDS == 0:
            twist(words)
    assert unit_of(words, 9_999 % WORDS) * 2**32 == 4123659995


# ---------------------------------------------------------------- refusals


def change(net, old, new):
    text = net.read_text()
    assert text.count(old) >= 1, old
    net.write_text(text.replace(old, new, 1))
    return net


def convoy(net, **of_second):
    cars = on_edges(net, EDGES, (0, 10.0, 5.0, a_type()), (0, 40.0, 5.0, a_type()), (0, 70.0, 5.0, a_type()))
    ego, second, third = cars.vehicles
    return dataclasses.replace(cars, vehicles=(ego, dataclasses.replace(second, **of_second), third))


@pytest.mark.parametrize(
    ("of_second", "reason"),
    [
        ({"depart_s": 3.0}, "V002 departs 3 s after the begin"),
        (
            {"stated": False},
            "V002 states more, or less, than type, edges, and lane, position and speed of its departure",
        ),
        ({"type": a_type(carFollowModel="IDM")}, "V002 is of vType .* follows by 'IDM'; only 'Krauss' is known"),
        ({"type": a_type(vClass="truck")}, "V002 is of vType .* has vClass 'truck'; only 'passenger' is known"),
        ({"type": a_type(actionStepLength=1)}, "V002 is of vType .* states 'actionStepLength', which it does not know"),
        ({"edges": ("e0", "e1", "side")}, "V002 drives edge 'side', which is not on V001's way"),
        ({"edges": ("side",)}, "V002 drives edge 'side', which is not on V001's way"),
        ({"depart_lane": 1}, "V002 departs on lane 1, which its edge does not have"),
        ({"depart_pos_m": 66.0}, "V002 and V003 overlap where they depart"),
    ],
)
def test_cars_that_it_cannot_express_are_refused_by_name(short_lanes, of_second, reason):
    with make_traffic("native", 1, MAX_CARS) as traffic, pytest.raises(NotExpressibleError, match=reason):
        traffic.reset([convoy(short_lanes, **of_second)], [1])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('dir="s" state="M"', 'dir="s" state="m"', "from edge 'e0' to 'e1' has not always right of way .state 'm'."),
        ('foes="0"', 'foes="1"', "from edge 'e0' to 'e1' meets another one on the junction"),
        ('<lane id="e2_0"', '<lane id="e2_0" disallow="passenger bus"', "lane 'e2_0' is closed to passenger cars"),
        ('<lane id="e2_0"', '<lane id="e2_0" allow="bus"', "lane 'e2_0' is closed to passenger cars"),
        ('<lane id="e2_0"', '<lane id="e2_0" friction="0.4"', "lane 'e2_0' states 'friction', which it does not know"),
        ('<edge id="e2"', '<edge id="e2" bidi="e2"', "edge 'e2' states 'bidi', which it does not know"),
        (
            '<edge id="e2"',
            '<type id="slow"><restriction vClass="passenger" speed="5"/></type><edge id="e2" type="slow"',
            "edge 'e2' is of a type with speed restrictions",
        ),
    ],
)
def test_roads_that_it_cannot_express_are_refused_by_name(short_lanes, old, new, reason):
    with make_traffic("native", 1, MAX_CARS) as traffic, pytest.raises(NotExpressibleError, match=reason):
        traffic.reset([convoy(change(short_lanes, old, new))], [1])


def test_lanes_beside_the_route_are_refused(tmp_path):
    net = chain_network(tmp_path, [100.0, 24.0, 12.0, 40.0, 300.0], [20.0] * 5, lanes=2)
    with (
        make_traffic("native", 1, MAX_CARS) as traffic,
        pytest.raises(NotExpressibleError, match="'e0' has several la"),
    ):
        traffic.reset([convoy(net)], [1])


def test_lanes_that_share_a_generator_are_refused_where_drivers_dawdle(tmp_path):
    """SUMO deals 64 generators; with 34 pieces and their junctions two lanes of the route have the same one."""
    edges = [f"e{number}" for number in range(34)]
    net = chain_network(tmp_path, [60.0] * 34, [20.0] * 34)
    calm = on_edges(net, edges, (0, 5.0, 5.0, a_type()), (0, 30.0, 5.0, a_type()))
    nervous = on_edges(net, edges, (0, 5.0, 5.0, a_type()), (0, 30.0, 5.0, a_type(sigma=0.5)))
    with make_traffic("native", 1, MAX_CARS) as traffic:
        traffic.reset([calm], [1])
        with pytest.raises(NotExpressibleError, match="share one of SUMO's generators, and drivers dawdle"):
            traffic.reset([nervous], [1])


def test_departures_beyond_their_lane_and_crowds_are_refused_as_in_sumo(engines, short_lanes):
    beyond = convoy(short_lanes, depart_pos_m=101.0)
    crowd = on_edges(short_lanes, EDGES, *((4, 10.0 + 20.0 * n, 5.0, a_type()) for n in range(MAX_CARS + 1)))
    cases = (beyond, "departs at 101 m of lane e0_0"), (crowd, "max_peers is 8; raise max_peers")
    for scenario, told in cases:
        messages = []
        for traffic in engines:
            with pytest.raises(ScenarioError, match=told) as caught:
                traffic.reset([scenario], [1])
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_a_refused_scenario_leaves_the_worlds_as_they_were(short_lanes):
    with make_traffic("native", 2, MAX_CARS) as traffic:
        good = convoy(short_lanes)
        traffic.reset([good, good], [1, 1])
        before = traffic.state.position_m.copy()
        with pytest.raises(NotExpressibleError):
            traffic.reset([good, convoy(short_lanes, depart_s=3.0)], [2, 2])
        assert np.array_equal(traffic.state.position_m, before)


def test_auto_takes_sumo_where_it_must_and_says_so(short_lanes, busy_base, caplog):
    good, busy = convoy(short_lanes), read_scenario(busy_base)
    assert choose_engine("auto", [good]) == "native"
    assert not caplog.records
    assert choose_engine("auto", [good, busy]) == "sumo"
    assert caplog.messages == [
        f"SUMO drives, at a fraction of the speed: {busy.path}: the native engine cannot drive it: a flow inserts"
        " vehicles as it goes"
    ]
    with pytest.raises(NotExpressibleError, match=r'vehicles as it goes\. Use engine="sumo"'):
        choose_engine("native", [good, busy])
    with pytest.raises(UsageError, match="engine 'nativ' is unknown; did you mean"):
        choose_engine("nativ", [good])


# ---------------------------------------------------------------- proof: a wrong engine fails


def _numbers() -> list[tuple[str, int, int, str]]:
    """Every number of the car-following law but 0, and the constants of the engine: (file, line, column, text)."""
    folder, found = Path(roadsense.__file__).parent / "traffic", []
    for file in ("krauss.py", "sight.py", "motion.py", "native.py"):
        for token in tokenize.generate_tokens(io.StringIO((folder / file).read_text()).readline):
            law = file == "krauss.py" or re.match(r"(?!_MOST)[A-Z_]+ = ", token.line)
            if token.type == tokenize.NUMBER and law and float(token.string) != 0.0:
                found.append((file, *token.start, token.string))
    return found


def _copy(folder: Path) -> Path:
    """Package, data and tests once more; the engine of the copy may be broken."""
    root = Path(__file__).parents[2]
    for name in ("roadsense", "scenarios", "params", "tests"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "datasets"))
    shutil.copy(root / "setup.cfg", folder)
    return folder / "roadsense" / "traffic"


def _run_alignment(folder: Path) -> subprocess.CompletedProcess[str]:
    """The tests of alignment in a copy."""
    tests = [
        "route_ends",
        "generator_that",
        "moves_as_in_sumo",
        "too_small",
        "lanes_ahead",
        "are_gone",
        "has_arrived",
        "chains",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", " or ".join(tests)]
    return subprocess.run(
        [*command, "tests/traffic/test_native.py"],
        env={**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")},
        cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.proof
def test_the_copy_of_a_right_engine_passes(tmp_path):
    _copy(tmp_path)
    done = _run_alignment(tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.proof
@pytest.mark.parametrize("number", _numbers(), ids=lambda number: f"{number[0]}:{number[1]}:{number[2]} {number[3]}")
def test_any_constant_off_by_one_percent_fails(number, tmp_path):
    file, line, column, text = number
    source = _copy(tmp_path) / file
    lines = source.read_text().splitlines(keepends=True)
    off = f"{float(text) * 1.01!r}"
    lines[line - 1] = lines[line - 1][:column] + off + lines[line - 1][column + len(text) :]
    source.write_text("".join(lines))
    done = _run_alignment(tmp_path)
    assert done.returncode == 1, done.stdout[-2000:]


WRONG = {
    "the last car draws first": (
        "        left = 0\n        for place in range(count):\n",
        "        left = 0\n        for place in range(count - 1, -1, -1):\n",
    ),
    "steered cars draw nothing": (
        "if arrays.dawdles[w] else 0.0", "if arrays.dawdles[w] and not steered[w, column] else 0.0"
    ),
    "one generator for all lanes": ("draw(arrays, w, car.lane, lanes)", "draw(arrays, w, cars[order[0]].lane, lanes)"),
    "targets brake through their leader": ("min(next_speeds[w, column], car.safe_mps)", "next_speeds[w, column]"),
}  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_engine_fails(what, tmp_path):
    right, wrong = WRONG[what]
    source = _copy(tmp_path) / "motion.py"
    assert source.read_text().count(right) == 1
    source.write_text(source.read_text().replace(right, wrong))
    done = _run_alignment(tmp_path)
    assert done.returncode == 1, done.stdout[-2000:]
