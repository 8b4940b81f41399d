"""SUMO in process, in a worker and over TraCI: the same states; nothing is left behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from roadsense._data import scenarios_dir
from roadsense.errors import ScenarioError, TrafficError, UsageError
from roadsense.scenario import read_scenario
from roadsense.traffic.base import EGO
from roadsense.traffic.engines import make_traffic

pytestmark = pytest.mark.usefixtures("require_sumo")

BASES = ("straight", "curve", "arterial")


@pytest.fixture(scope="module")
def scenarios():
    return {name: read_scenario(scenarios_dir() / "base" / name) for name in BASES}


def drive(traffic, scenario, seed=5, steps=80):
    """States over time: the ego keeps its speed, a peer is braked for a while."""
    traffic.reset([scenario], [seed])
    state = traffic.state
    speeds, steered = np.zeros_like(state.speed_mps), np.zeros(state.speed_mps.shape, np.bool_)
    seen = []
    for step in range(steps):
        speeds[0, EGO], steered[0, EGO] = state.speed_mps[0, EGO], True
        steered[0, 2] = 20 <= step < 50
        speeds[0, 2] = max(0.0, state.speed_mps[0, 2] - 0.9)
        traffic.advance(speeds, steered, np.ones(1, np.bool_))
        seen.append(np.concatenate([state.position_m[0], state.speed_mps[0], state.accel_mps2[0]]))
    return np.array(seen)


def test_process_worker_and_traci_move_alike(scenarios):
    with make_traffic("sumo", 1, 9) as inside, make_traffic("sumo", 1, 9) as beside, make_traffic("traci", 1, 9) as far:
        assert type(inside) is not type(beside)
        for scenario in scenarios.values():
            expected = drive(inside, scenario, steps=60)
            assert np.array_equal(expected, drive(beside, scenario, steps=60))
            assert np.array_equal(expected, drive(far, scenario, steps=60))


@pytest.mark.parametrize("name", BASES)
def test_the_state_is_what_sumo_says_of_every_car_in_every_step(scenarios, name):
    """Bit for bit, over all junctions of the road and through a hazard."""
    import libsumo

    vehicle, lanes = libsumo.vehicle, set()
    with make_traffic("sumo", 1, 9) as traffic:
        traffic.reset([scenarios[name]], [3])
        state = traffic.state
        offsets = traffic.catalogue.lane_offsets(int(traffic.routes.index[0]))
        ids = [car.id for car in scenarios[name].vehicles]
        speeds, steered = np.zeros_like(state.speed_mps), np.zeros(state.speed_mps.shape, np.bool_)
        for step in range(900):
            speeds[0, EGO], steered[0, EGO] = max(0.0, state.speed_mps[0, EGO] + (0.1 if step % 3 else -0.17)), True
            steered[0, 2] = 400 <= step < 430
            speeds[0, 2] = max(0.0, state.speed_mps[0, 2] - 0.6)
            traffic.advance(speeds, steered, np.ones(1, np.bool_))
            for column, car in enumerate(ids):
                if not state.alive[0, column]:
                    continue
                lanes.add(vehicle.getLaneID(car))
                assert state.position_m[0, column] == offsets[vehicle.getLaneID(car)] + vehicle.getLanePosition(car)
                assert state.speed_mps[0, column] == vehicle.getSpeed(car)
                assert state.accel_mps2[0, column] == vehicle.getAcceleration(car)
    assert len(lanes) >= (1 if name == "straight" else 5)


def test_a_hazard_target_reaches_nine_and_is_released(scenarios):
    with make_traffic("sumo", 1, 9) as traffic:
        seen = drive(traffic, scenarios["straight"], steps=120)
    speed, accel = seen[:, 9 + 2], seen[:, 18 + 2]
    assert accel[20:40] == pytest.approx(-9.0)
    assert (speed[48:50] == 0.0).all()
    assert speed[-1] > 5.0


def test_the_ego_gets_exactly_its_next_speed_even_into_its_leader(scenarios):
    with make_traffic("sumo", 1, 9) as traffic:
        seen = drive(traffic, scenarios["straight"], steps=80)
        assert (seen[:, 9 + EGO] == 20.0).all()
        assert seen[-1, EGO] > seen[-1, 2]  # it drove through the standing peer: nobody braked for it


def test_seeds_reproduce_and_differ_where_sigma_draws(scenarios):
    with make_traffic("sumo", 1, 9) as traffic:
        first = drive(traffic, scenarios["curve"], seed=5)
        other = drive(traffic, scenarios["curve"], seed=6)
        drive(traffic, scenarios["straight"])
        again = drive(traffic, scenarios["curve"], seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_second_world_changes_nothing_in_the_first(scenarios):
    with make_traffic("sumo", 1, 9) as first:
        alone = drive(first, scenarios["curve"])
        first.reset([scenarios["curve"]], [5])
        with make_traffic("sumo", 1, 9) as second:
            drive(second, scenarios["straight"])
        assert np.array_equal(alone, drive(first, scenarios["curve"]))


def test_a_forgotten_world_is_taken_over(scenarios):
    forgotten = make_traffic("sumo", 1, 9)
    name = type(forgotten).__name__
    del forgotten
    gc.collect()
    with make_traffic("sumo", 1, 9) as traffic:
        assert type(traffic).__name__ == name
        drive(traffic, scenarios["straight"], steps=5)


def test_a_strangers_simulation_is_left_alone():
    import libsumo

    net = scenarios_dir() / "base" / "straight" / "network.net.xml"
    libsumo.start(["sumo", "-n", str(net), "--no-step-log", "true"])
    try:
        with make_traffic("sumo", 1, 9) as traffic:
            assert type(traffic).__name__ == "WorkerTraffic"
        assert libsumo.isLoaded()
        assert libsumo.edge.getIDCount() > 0
    finally:
        libsumo.close()


def test_a_plain_script_without_a_main_guard_opens_several():
    script = (
        "import roadsense, gymnasium as gym\n"
        "a, b = gym.make('Convoy-v0'), gym.make('Convoy-v0')\n"
        "a.reset(seed=1); b.reset(seed=1); a.step([0.0]); b.step([0.0])\n"
        "b.close(); a.step([0.0]); a.close(); a.close(); print('fine')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip().endswith("fine"), run.stderr


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_closing_leaves_no_process_and_no_file(scenarios):
    files, processes = open_files(), children()
    for _ in range(3):
        traffic = make_traffic("sumo", 3, 9)
        traffic.reset([scenarios[name] for name in BASES], [1, 2, 3])
        traffic.close()
        traffic.close()
        del traffic
    gc.collect()
    assert open_files() <= files
    assert children() <= processes


def test_300_resets_over_changing_networks_leave_nothing_behind(scenarios):
    def resident_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    with make_traffic("sumo", 1, 9) as traffic:
        for turn in range(60):
            traffic.reset([scenarios[BASES[turn % 3]]], [turn])
        files, memory = open_files(), resident_kib()
        for turn in range(300):
            traffic.reset([scenarios[BASES[turn % 3]]], [turn])
        assert open_files() == files
        assert resident_kib() - memory < 8 * 1024


def test_a_dead_worker_is_told_not_waited_for(scenarios):
    traffic = make_traffic("sumo", 2, 9)
    try:
        traffic.reset([scenarios["straight"]] * 2, [1, 2])
        traffic._processes[1]._process.kill()
        traffic._processes[1]._process.wait()
        with pytest.raises(TrafficError, match="ended by itself"):
            traffic.advance(np.zeros((2, 9)), np.zeros((2, 9), np.bool_), np.ones(2, np.bool_))
    finally:
        traffic.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the worker")
def test_a_worker_that_hangs_does_not_outlive_a_killed_parent():
    code = (
        "import time; from roadsense.traffic.engines import make_traffic; traffic = make_traffic('sumo', 2, 9); "
        "print(*(one._process.pid for one in traffic._processes), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids, until = [int(pid) for pid in parent.stdout.readline().split()], time.monotonic() + 30.0
        while any("libsumo" not in Path(f"/proc/{pid}/maps").read_text() for pid in pids):  # asked for before it loads
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(pids[0], signal.SIGSTOP)
    finally:
        parent.kill()
        parent.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_unknown_engine_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sumo'"):
        make_traffic("sumoo", 1, 9)


def test_too_many_cars_are_refused_by_name(scenarios):
    with make_traffic("sumo", 1, 3) as traffic, pytest.raises(ScenarioError, match="max_peers"):
        traffic.reset([scenarios["straight"]], [1])
