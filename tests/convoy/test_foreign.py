"""Scenarios that somebody else made: late departures, flows, other roads, two lanes, outputs. All really driven."""

import gzip
import shutil
import subprocess
import sysconfig
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import roadsense  # noqa: F401
from roadsense._data import scenarios_dir
from roadsense.convoy.world import EndReason
from roadsense.errors import ScenarioError, TrafficError
from roadsense.scenario import read_scenario
from roadsense.traffic.base import EGO
from roadsense.traffic.engines import make_traffic

pytestmark = pytest.mark.usefixtures("require_sumo")

NET = scenarios_dir() / "base" / "straight" / "network.net.xml"
CAR = '<vType id="car" carFollowModel="Krauss" sigma="0" speedFactor="1"/>'
ROAD = '<route id="road" edges="straight"/>'

CONFIG = """<configuration>
    <input><net-file value="network.net.xml"/><route-files value="cars.rou.xml"/>{more}</input>
    {sections}
</configuration>"""


def write(folder, routes, *, net=NET, more="", sections=""):
    """A scenario directory whose files have other names than ours and which has no episode.json."""
    folder.mkdir(exist_ok=True)
    shutil.copy(net, folder / "network.net.xml")
    (folder / "cars.rou.xml").write_text(f"<routes>{CAR}{ROAD if net is NET else ''}{routes}</routes>")
    (folder / "town.sumocfg").write_text(CONFIG.format(more=more, sections=sections))
    return str(folder)


def car(name, depart=0.0, lane=0, position=None, speed=15.0, route="road", kind="car", **attributes):
    """One <vehicle> with its state in numbers, or only its departure where ``position`` is None."""
    state = "" if position is None else f'departLane="{lane}" departPos="{position}" departSpeed="{speed}"'
    more = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<vehicle id="{name}" type="{kind}" route="{route}" depart="{depart}" {state} {more}/>'


def convoy(*positions, **kwargs):
    """V001 and as many peers at these positions, front car first."""
    named = [(f"V{number:03d}", position) for number, position in enumerate(positions, 1)]
    return "".join(car(name, position=position, **kwargs) for name, position in reversed(named))


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """West - centre - east, with a road from the south joining and one to the north leaving at the centre."""
    folder = tmp_path_factory.mktemp("crossing")
    ends = {"west": (-400, 0), "centre": (0, 0), "east": (800, 0), "south": (0, -300), "north": (0, 300)}
    roads = {"in": ("west", "centre"), "out": ("centre", "east"), "join": ("south", "centre"),
             "leave": ("centre", "north")}  # fmt: skip
    nodes = "".join(f'<node id="{name}" x="{x}" y="{y}" type="priority"/>' for name, (x, y) in ends.items())
    edges = "".join(
        f'<edge id="{name}" from="{a}" to="{b}" numLanes="1" speed="20" priority="{2 if name != "join" else 1}"/>'
        for name, (a, b) in roads.items()
    )
    return netconvert(folder, nodes, edges)


@pytest.fixture(scope="module")
def two_lanes(tmp_path_factory):
    nodes = '<node id="a" x="0" y="0"/><node id="b" x="3000" y="0"/>'
    return netconvert(
        tmp_path_factory.mktemp("lanes"), nodes, '<edge id="straight" from="a" to="b" numLanes="2" speed="25"/>'
    )


def netconvert(folder, nodes, edges):
    program = shutil.which("netconvert") or Path(sysconfig.get_path("scripts")) / "netconvert"
    (folder / "n.nod.xml").write_text(f"<nodes>{nodes}</nodes>")
    (folder / "e.edg.xml").write_text(f"<edges>{edges}</edges>")
    files = [f"--node-files={folder / 'n.nod.xml'}", f"--edge-files={folder / 'e.edg.xml'}"]
    command = [program, *files, "-o", folder / "made.net.xml", "--precision", "6", "--no-turnarounds", "true",
               "--offset.disable-normalization", "true"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "made.net.xml"


@pytest.fixture
def play():
    """Plays a scenario twice under one seed, checks that both are equal, and returns env and true states over time."""
    opened = []

    def run(scenario, steps=100, seed=1, action=0.0, **kwargs):
        env = gym.make("Convoy-v0", scenario=scenario, disable_env_checker=True, **kwargs)
        opened.append(env)
        runs = []
        for _ in range(2):
            observation, _ = env.reset(seed=seed)
            state = env.unwrapped.worlds.traffic.state
            states, seen = [{name: part[0].copy() for name, part in state._asdict().items()}], [observation]
            for _ in range(steps):
                observation, *_ = env.step([action])
                states.append({name: part[0].copy() for name, part in state._asdict().items()})
                seen.append(observation)
            runs.append(({name: np.array([one[name] for one in states]) for name in states[0]}, seen))
        (first, first_seen), (second, second_seen) = runs
        assert all(np.array_equal(first[name], second[name]) for name in first)
        for a, b in zip(first_seen, second_seen, strict=True):
            assert all(np.array_equal(a[name], b[name]) for name in a)
        return env, first, first_seen

    yield run
    for env in opened:
        env.close()


def heard(observations):
    """How many peers are in the table at each step."""
    return [int(one["peer_mask"].sum()) for one in observations]


def test_a_late_ego_is_waited_for_and_that_is_t_0(tmp_path, play):
    cars = car("V002", position=50, speed=10) + car("V001", depart=8.0, departSpeed="10")
    env, states, seen = play(write(tmp_path / "s", cars), radio="ideal")
    assert env.unwrapped.worlds.records["step"][0] == 100
    assert states["alive"][0].tolist() == [True, True] + [False] * 15
    assert states["on_route"][0, :2].all()
    assert states["speed_mps"][0, EGO] == 10.0
    assert states["position_m"][0, EGO] == pytest.approx(5.0, abs=0.2)  # departPos "base": all of it on the road
    drove = states["position_m"][0, 1] - 50.0
    assert 8 * 10 < drove < 8 * 25  # V002 had eight seconds ahead
    assert heard(seen)[0] == 1  # carried backwards from where it is
    assert states["position_m"][-1, EGO] > 5.0 + 10 * 10.0  # and the driver makes for the limit


def refused(scenario, **kwargs):
    """What reset says, after which the environment still closes."""
    with gym.make("Convoy-v0", scenario=scenario, **kwargs) as env, pytest.raises(ScenarioError) as error:
        env.reset(seed=1)
    return str(error.value)


def test_a_late_ego_really_crashes(tmp_path):
    """SUMO's safe-speed guard is off for it as well: full throttle ends in the car ahead."""
    slow = '<vType id="slow" carFollowModel="Krauss" sigma="0" maxSpeed="12"/>'
    cars = slow + car("V002", position=50, speed=10, kind="slow") + car("V001", depart=8.0, departSpeed="10")
    with gym.make("Convoy-v0", scenario=write(tmp_path / "s", cars), control="acceleration") as env:
        env.reset(seed=1)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step([1.0])
        assert (terminated, info["end_reason"]) == (True, EndReason.COLLISION)


def test_an_ego_that_never_departs_is_an_error_after_a_minute_of_traffic(tmp_path):
    folder = write(tmp_path / "late", car("V002", position=50) + car("V001", depart=61.0))
    said = refused(folder)
    assert said == f"{folder}: V001 is not on the road 60 s after the begin; let it depart earlier."
    with gym.make("Convoy-v0", scenario=write(tmp_path / "early", car("V001", depart=59.5))) as env:
        env.reset(seed=1)


def test_a_flow_joins_the_stated_convoy_and_its_cars_are_peers(tmp_path, play):
    flow = '<flow id="bg" type="car" from="straight" to="straight" begin="0" end="60" period="3" departSpeed="max"/>'
    _, states, seen = play(write(tmp_path / "s", convoy(600, 630, 660) + flow), radio="ideal")
    count = states["alive"].sum(axis=1)
    assert count[0] == 3 and count[-1] == 3 + 4  # 0, 3, 6, 9 s
    assert np.array_equal(states["position_m"][0, :3], [600.0, 630.0, 660.0])
    assert (states["position_m"][-1, 3:7] < states["position_m"][-1, EGO]).all()
    assert heard(seen)[0] == 2 and heard(seen)[-1] == 6


@pytest.mark.parametrize("of", ["type", "flow"])
def test_a_flow_of_cars_without_radio_is_seen_by_nobody(tmp_path, play, of):
    silent = '<param key="roadsense.radio" value="false"/>'
    kind = f'<vType id="mute" length="5">{silent if of == "type" else ""}</vType>'
    flow = f"""<flow id="bg" type="mute" from="straight" to="straight" begin="0" end="60" period="3" departSpeed="max">
        {silent if of == "flow" else ""}</flow>"""
    _, states, seen = play(write(tmp_path / "s", kind + convoy(600, 630, 660) + flow), radio="ideal")
    assert states["alive"][-1].sum() == 3 + 4
    assert states["transmits"][-1, :7].tolist() == [True] * 3 + [False] * 4
    assert heard(seen)[-1] == 2


def test_packed_routes_are_played_too(tmp_path, play):
    flow = '<flow id="bg" type="car" from="straight" to="straight" begin="0" end="60" period="3" departSpeed="max"/>'
    folder = Path(write(tmp_path / "s", convoy(600, 630) + flow))
    (folder / "cars.rou.xml.gz").write_bytes(gzip.compress((folder / "cars.rou.xml").read_bytes()))
    (folder / "cars.rou.xml").unlink()
    (folder / "town.sumocfg").write_text((folder / "town.sumocfg").read_text().replace(".rou.xml", ".rou.xml.gz"))
    _, states, _ = play(str(folder), steps=70)
    assert states["alive"][-1].sum() == 2 + 3  # 0, 3, 6 s


def test_more_cars_than_columns_is_said_when_it_happens(tmp_path):
    flow = '<flow id="bg" type="car" from="straight" to="straight" begin="0" end="60" period="3"/>'
    with gym.make("Convoy-v0", scenario=write(tmp_path / "s", convoy(600, 630) + flow), max_peers=2) as env:
        env.reset(seed=1)
        steps = (env.step([0.0]) for _ in range(60))
        with pytest.raises(TrafficError, match=r"bg\.\d makes 3 cars beside V001, but max_peers is 2; raise max_peers"):
            list(steps)
        env.reset(seed=1)
        env.step([0.0])


def relieved(tmp_path, place_m):
    """V001 stands at 500 m; V002 reaches the end of the road in the step in which another departs at ``place_m``."""
    standing = car("V001", position=500, speed=0) + car("V002", position=3460, speed=20)
    where = f'departPos="{place_m}" departSpeed="0"'
    flow = f'<flow id="bg" type="car" from="straight" to="straight" begin="1.7" end="9" number="1" {where}/>'
    return write(tmp_path / "s", standing + flow)


@pytest.mark.parametrize("max_peers", [1, 16])
@pytest.mark.parametrize("place_m", [491.0, 480.0])
def test_a_car_that_comes_as_another_goes_is_not_taken_for_it(tmp_path, max_peers, place_m):
    with gym.make("Convoy-v0", scenario=relieved(tmp_path, place_m), radio="ideal", max_peers=max_peers) as env:
        env.reset(seed=1)
        traffic, at_once, gone, ended = env.unwrapped.worlds.traffic, 0, 0, False
        state, simulation = traffic.state, traffic._sumo.simulation
        for _ in range(40):
            before = state.alive[0].copy()
            observation, _, terminated, _, info = env.step([1.0])
            at_once += simulation.getArrivedNumber() and simulation.getDepartedNumber()
            gone += (before & ~state.alive[0]).sum()
            ended = ended or terminated
            seen = observation["peers"][observation["peer_mask"] == 1, 0] * 100.0
            assert ((seen > 390.0) | (seen < 0.0)).all()  # V002 far ahead, or the other one behind
        assert at_once == gone == len(seen) == 1
        assert np.isinf(info["gap_m"]) and not ended


@pytest.mark.parametrize("position", [325, 337, 340, 343])
def test_the_tail_of_a_lorry_that_turns_off_can_be_hit(tmp_path, crossing, position):
    """V001 goes on at 20 m/s while the lorry ahead slows for the corner; SUMO's own list of collisions agrees."""
    lorry = '<vType id="lorry" carFollowModel="Krauss" sigma="0" length="16" speedFactor="1"/>'
    routes = (
        lorry + '<route id="main" edges="in out"/><route id="off" edges="in leave"/>'
        + car("V002", position=position + 40, speed=10, route="off", kind="lorry")
        + car("V001", position=position, speed=20, route="main")
    )  # fmt: skip
    folder = write(tmp_path / "s", routes, net=crossing)
    with gym.make("Convoy-v0", scenario=folder, control="acceleration") as env:
        env.reset(seed=1)
        worlds, of_sumo, terminated = env.unwrapped.worlds, False, False
        for _ in range(60):
            _, _, terminated, _, info = env.step([0.0])
            of_sumo = of_sumo or bool(worlds.traffic._sumo.simulation.getCollisions())
            if terminated:
                break
        assert terminated and info["end_reason"] == EndReason.COLLISION, (of_sumo, info)


def test_a_flow_is_over_with_its_episode(tmp_path):
    """The next scenario on the same network, stated exactly, needs no new load by itself."""
    flow = '<flow id="bg" type="car" from="straight" to="straight" begin="0" end="60" period="3"/>'
    busy = read_scenario(write(tmp_path / "busy", convoy(600, 630) + flow))
    quiet = read_scenario(write(tmp_path / "quiet", convoy(600, 630)))
    with make_traffic("sumo", 1, 9) as traffic:
        for scenario, expected in ((busy, {"V001", "V002", "bg.0", "bg.1"}), (quiet, {"V001", "V002"})):
            traffic.reset([scenario], [1])
            for _ in range(50):
                traffic.advance(traffic.state.speed_mps.copy(), np.zeros((1, 9), np.bool_), np.ones(1, np.bool_))
            assert set(traffic._sumo.vehicle.getIDList()) == expected
            assert traffic.state.alive.sum() == len(expected)


def test_positions_that_only_sumo_can_draw_come_from_the_seed(tmp_path, play):
    cars = car("V001", departPos="base", departSpeed="10") + "".join(
        car(f"V00{number}", departPos="random", departSpeed="desired") for number in range(2, 5)
    )
    folder = write(tmp_path / "s", cars)
    _, states, _ = play(folder, seed=1, steps=30)
    _, other, _ = play(folder, seed=2, steps=30)
    assert states["alive"][0, :4].all()
    assert states["position_m"][0, EGO] == pytest.approx(5.0, abs=1.1) and states["speed_mps"][0, EGO] == 10.0
    assert len(set(states["position_m"][0, 1:4])) == 3
    assert not np.array_equal(states["position_m"][0, 1:4], other["position_m"][0, 1:4])


def test_a_car_may_turn_off_and_another_may_join(tmp_path, play, crossing):
    """V002 leaves to the north, V003 comes from the south; the gap is to whoever is on V001's own route."""
    routes = (
        '<route id="main" edges="in out"/><route id="off" edges="in leave"/><route id="on" edges="join out"/>'
        + car("V003", position=290, speed=8, route="on")
        + car("V002", position=360, speed=10, route="off")
        + car("V001", position=300, speed=10, route="main")
    )
    env, states, seen = play(write(tmp_path / "s", routes, net=crossing), steps=150, radio="ideal")
    on_route = states["on_route"]
    assert on_route[:, EGO].all()
    assert on_route[0].tolist()[:3] == [True, True, False]
    assert on_route[-1].tolist()[:3] == [True, False, True]
    assert states["alive"][-1, :3].all()
    assert states["y_m"][0, 2] < -1.0 and states["x_m"][0, 2] == pytest.approx(0.0, abs=5.0)  # on the southern road
    assert states["y_m"][-1, 1] > 5.0  # and V002 on the northern one
    assert all(count == 2 for count in heard(seen)[5:])  # radio needs no route
    gap, worlds = env.unwrapped.worlds.records["gap_m"][0], env.unwrapped.worlds
    assert worlds.records["leader"][0] == 2
    assert gap == states["position_m"][-1, 2] - 5.0 - states["position_m"][-1, EGO]
    moved = np.diff(states["position_m"][:, EGO])
    assert np.allclose(moved, states["speed_mps"][1:, EGO] * 0.1, atol=1e-9)  # across the junction too


TWO_LANE_CONVOYS = {
    "all at once": car("V002", position=150) + car("V001", position=110),
    "one departs later": car("V002", position=150) + car("V001", position=110) + car("V004", depart=1.0, position=60),
    "the ego departs later": car("V002", depart=7.9, position=100) + car("V001", depart=8.0, departLane="0"),
}


@pytest.mark.parametrize("convoy_of", TWO_LANE_CONVOYS)
def test_cars_keep_their_lane_where_there_are_two(tmp_path, play, two_lanes, convoy_of):
    """V003 crawls in front and the other lane is free; SUMO's cars would overtake it."""
    crawl = '<vType id="slow" carFollowModel="Krauss" sigma="0" maxSpeed="5"/>'
    cars = car("V003", position=200, speed=5, kind="slow") + TWO_LANE_CONVOYS[convoy_of]
    env, states, _ = play(write(tmp_path / "s", crawl + ROAD + cars, net=two_lanes), steps=250)
    present = states["alive"].any(axis=0)
    assert present.sum() == cars.count("<vehicle")
    assert np.array_equal(states["on_route"], states["alive"])  # the other lane is not on the ego's route
    assert (states["position_m"][:, 1] < states["position_m"][:, 2]).all()
    vehicle = env.unwrapped.worlds.traffic._sumo.vehicle
    assert {vehicle.getLaneIndex(name) for name in vehicle.getIDList()} == {0}


def test_outputs_that_it_names_are_never_written(tmp_path, play):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "more.add.xml").write_text(
        '<additional><inductionLoop id="loop" lane="straight_0" pos="700" period="1" file="loop.xml"/></additional>'
    )
    output = '<fcd-output value="fcd.xml"/><tripinfo-output value="trips.xml"/><log value="log.txt"/>'
    flow = '<flow id="bg" type="car" from="straight" to="straight" begin="0" end="60" period="5"/>'
    sections = f'<output>{output}</output><report><verbose value="true"/></report>'
    folder = write(
        tmp_path / "s", convoy(600, 630) + flow, more='<additional-files value="more.add.xml"/>', sections=sections
    )
    before = {path: path.read_bytes() for path in Path(folder).rglob("*")}
    here = set(Path.cwd().iterdir())
    env, _, _ = play(folder, steps=30)
    env.close()
    assert {path: path.read_bytes() for path in Path(folder).rglob("*")} == before
    assert set(Path.cwd().iterdir()) == here


def test_a_car_behind_that_cannot_brake_as_hard_runs_into_the_ego(tmp_path):
    """V002 follows at 6 m with 2 m/s² at its disposal; V001 brakes with 8 for nothing."""
    lorry = '<vType id="lorry" carFollowModel="Krauss" sigma="0" decel="2" emergencyDecel="2" tau="0.3" minGap="1"/>'
    cars = lorry + car("V001", position=600, speed=20) + car("V002", position=589, speed=20, kind="lorry")
    with gym.make("Convoy-v0", scenario=write(tmp_path / "s", cars)) as env:
        env.reset(seed=1)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step([1.0])
        assert (terminated, truncated, info["end_reason"]) == (True, False, EndReason.REAR_CONTACT)
        assert np.isinf(info["gap_m"])  # nobody is ahead
        record, state = env.unwrapped.worlds.records[0], env.unwrapped.worlds.traffic.state
        assert record["rear_gap_m"] == state.position_m[0, EGO] - 5.0 - state.position_m[0, 1] <= 0.0
        assert record["impact_speed_mps"] == state.speed_mps[0, 1] - state.speed_mps[0, EGO] > 5.0
        assert info["reward_terms"]["collision"] < -100.0


def test_silent_cars_are_on_the_road_but_not_in_the_table(tmp_path, play):
    silent = '<param key="roadsense.radio" value="false"/>'
    cars = convoy(100, 130, 160).replace("/>", f">{silent}</vehicle>", 1)  # the front car, V003
    _, states, seen = play(write(tmp_path / "s", cars), steps=20, radio="ideal")
    assert states["alive"][:, :3].all()
    assert states["transmits"][0, :3].tolist() == [True, True, False]
    assert set(heard(seen)) == {1}
    assert all(one["ego"][3] == 1.0 for one in seen)  # nor does the share of beacons heard tell of them


def test_what_cannot_be_driven_is_refused_by_name(tmp_path, crossing):
    for name, routes, words in (
        ("beyond", convoy(3400, 3600), "V002 departs at 3600 m of lane straight_0, which is 3500 m long; move its"),
        ("nowhere", car("V001", position=10, route="nowhere"), "The route 'nowhere' for vehicle 'V001' is not known."),
        ("kind", car("V001", position=10, kind="lorry"), "The vehicle type 'lorry' for vehicle 'V001' is not known."),
        ("lane", car("V001", position=10, lane=3), "edge 'straight' has no lane 3; mend departLane."),
        ("edge", '<route id="x" edges="streight"/>' + car("V001", position=1, route="x"), "did you mean 'straight'?"),
    ):
        said = refused(write(tmp_path / name, routes))
        assert words in said and said.startswith(str(tmp_path / name)) and ".." not in said
    routes = '<route id="gap" edges="in join"/>' + car("V001", position=10, route="gap")
    said = refused(write(tmp_path / "gap", routes, net=crossing))
    assert "V001" in said and "lane in_0 has no connection onward to edge 'join'" in said
