"""Workers that are killed, hang, or go with their machine: another one does their fragment, to the same bits.

On several raylets of this machine, by really killing them.
"""

import contextlib
import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roadsense.convoy.player import Player
from roadsense.errors import RoadsenseError, TrafficError
from roadsense.training import ray_workers
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.driven_worlds import DrivenWorlds, Worker
from roadsense.training.ray_workers import RayWorkers, WorkersConfig
from roadsense.training.remote import RemoteVecEnv
from roadsense.training.sb3 import train

from .callbacks import At
from .fragments import PEERS, equal, first_episodes, some_weights
from .processes import gone

pytestmark = [pytest.mark.usefixtures("require_ray"), pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

WORLDS, STEPS, LONG = 4, 100, 3000
"""A fragment of LONG steps takes long enough to be killed in."""

ARGUMENTS = {"engine": "native", "max_peers": PEERS, "control": "brake", "messages_per_peer": 1}
STORE = 100 * 2**20
CONFIG = WorkersConfig(count=2, job_limit_s=60.0)
NOTHING = {"died": 0, "hung": 0, "failed": 0}


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and two machines of one each that hear of a lost one within a second or two."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 500,
             "health_check_failure_threshold": 4}  # fmt: skip
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick}
    with contextlib.redirect_stdout(sys.stderr):
        found = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            found.add_node(num_cpus=1, object_store_memory=STORE)
        ray.init(found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


def opened(arguments=ARGUMENTS):
    env = RemoteVecEnv(RayWorkers(CONFIG, WORLDS // 2, arguments), WORLDS, arguments)
    env.workers.wait_for_all()
    begin(env)
    return env


def begin(env):
    env.resume_at([0] * WORLDS)
    env.seed(7)
    env.begin()


def processes(env):
    """Process and raylet of every worker that is up, by place."""

    def where(worker):
        import os

        import ray

        return os.getpid(), ray.get_runtime_context().get_node_id()

    slots = [slot for slot in env.workers._slots if slot.is_up]
    return env.workers._ray.get([slot.actor.__ray_call__.remote(where) for slot in slots])


@pytest.fixture(scope="module")
def undisturbed():
    """What the worlds come to with nobody killed: a short fragment, then a long one, then a short one."""
    worlds, found = DrivenWorlds(Player(WORLDS, **ARGUMENTS)), []
    stand = first_episodes(WORLDS)
    for steps in (STEPS, LONG, STEPS):
        found.append(worlds.explore(some_weights(), stand, steps))
        stand = stand.after(found[-1].applied, found[-1].ends.mask(*found[-1].raw.shape))
    return found


def kill(cluster, pid, node):
    os.kill(pid, signal.SIGKILL)


def stop(cluster, pid, node):
    os.kill(pid, signal.SIGSTOP)


def kill_raylet(cluster, pid, node):
    (lost,) = (one for one in cluster.worker_nodes if one.node_id == node)
    cluster.remove_node(lost, allow_graceful=False)


def test_a_lost_fragment_is_driven_elsewhere_and_work_goes_on(cluster, undisturbed):
    """Before each loss a fragment warms up; after it, one finds all worlds where they should be."""
    env, pids = opened(), set()
    try:
        for end, how in ((kill, "died"), (stop, "hung"), (kill_raylet, "died")):
            env.workers.wait_for_all()
            env.workers.config, env.workers.faults = CONFIG, dict(NOTHING)
            begin(env)
            env.launch(some_weights(), STEPS)
            assert equal(env.gather(), undisturbed[0]) and env.workers.faults == NOTHING
            before = processes(env)
            env.workers.config = dataclasses.replace(CONFIG, job_limit_s=5.0 if how == "hung" else 60.0)
            env.launch(some_weights(), LONG)
            end(cluster, *before[0])
            began = time.monotonic()
            found = env.gather()
            assert equal(found, undisturbed[1])
            assert found.repeated_steps > 0, "who drove it had to get there first"
            assert env.workers.faults == {**NOTHING, how: 1} and time.monotonic() - began < 45.0
            assert gone([before[0][0]], wait_s=20.0), "the lost one is no zombie"
            env.launch(some_weights(), STEPS)
            assert equal(env.gather(), undisturbed[2]) and env.workers.faults == {**NOTHING, how: 1}
            pids |= {pid for pid, _ in (*before, *processes(env))}
    finally:
        env.close()
        while len(cluster.worker_nodes) < 2:
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert len(pids) >= 4 and gone(pids, wait_s=20.0), "none is left when all is closed"


def children(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.usefixtures("require_sumo")
def test_a_sumo_that_hangs_is_given_up_with_its_worker(cluster):
    """SUMO is one world a process, so a worker with two has two below it, of which one stops for good."""
    arguments = {**ARGUMENTS, "engine": "sumo"}
    worlds, stand, expected = DrivenWorlds(Player(WORLDS, **arguments)), first_episodes(WORLDS), []
    for _ in range(2):
        expected.append(worlds.explore(some_weights(), stand, STEPS))
        stand = stand.after(expected[-1].applied, expected[-1].ends.mask(*expected[-1].raw.shape))
    worlds.player.close()
    env = opened(arguments)
    try:
        env.launch(some_weights(), STEPS)
        assert equal(env.gather(), expected[0])
        lost, _ = processes(env)[0]
        below = children(lost)
        assert len(below) >= 2
        os.kill(below[0], signal.SIGSTOP)
        env.workers.config = dataclasses.replace(CONFIG, job_limit_s=6.0)
        env.launch(some_weights(), STEPS)
        assert equal(env.gather(), expected[1]) and env.workers.faults == {**NOTHING, "hung": 1}
        assert gone([lost, *below], wait_s=20.0), "the one that hangs is ended, too"
    finally:
        env.close()


def fail(worker):
    """Makes its engine fail as SUMO does where it ends by itself."""
    from roadsense.errors import TrafficError

    def explore(*asked):
        raise TrafficError("a traffic worker ended by itself (exit code -9).")

    worker._worlds.explore = explore


def spoil(env, number):
    slot = env.workers._slots[number]
    env.workers._ray.get(slot.actor.__ray_call__.remote(fail))


def test_a_failing_engine_costs_its_worker_and_the_same_work_over_and_over_the_training(
    cluster, undisturbed, monkeypatch
):
    env = opened()
    try:
        spoil(env, 1)
        env.launch(some_weights(), STEPS)
        assert equal(env.gather(), undisturbed[0]) and env.workers.faults == {**NOTHING, "failed": 1}
        env.workers.wait_for_all()
        monkeypatch.setattr(ray_workers, "MOST_ATTEMPTS", 1)
        spoil(env, 0)
        env.launch(some_weights(), STEPS)
        told = r"^1 Ray workers in turn were lost with the same work, the last one for: a traffic worker ended"
        with pytest.raises(TrafficError, match=told):
            env.gather()
    finally:
        env.close()


class Unlucky(Worker):
    """Comes up in one place alone."""

    def open(self, num_worlds, arguments):
        arguments = dict(arguments)
        try:
            Path(arguments.pop("taken")).touch(exist_ok=False)
        except FileExistsError:
            time.sleep(5.0)  # until the other one is up
            raise RoadsenseError("no dataset here.") from None
        return super().open(num_worlds, arguments)


@pytest.mark.proof
def test_a_place_where_no_worker_comes_up_stays_empty_and_the_others_do_its_work(
    cluster, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_workers, "MOST_ATTEMPTS", 2)
    workers = RayWorkers(CONFIG, WORLDS // 2, {**ARGUMENTS, "taken": str(tmp_path / "taken")}, kind=Unlucky)
    env = RemoteVecEnv(workers, WORLDS, ARGUMENTS)
    try:
        workers.wait_for_all()
        assert sorted(slot.is_up for slot in workers._slots) == [False, True] and workers.faults == NOTHING
        begin(env)
        env.launch(some_weights(), STEPS)
        assert equal(env.gather(), undisturbed[0]) and workers.faults == NOTHING
    finally:
        env.close()
    with pytest.raises(RoadsenseError, match=r"^no dataset here\.$"):  # nobody is up who could do its work
        RayWorkers(CONFIG, WORLDS // 2, {**ARGUMENTS, "taken": str(tmp_path / "taken")}, kind=Unlucky)


@pytest.mark.proof
def test_a_training_whose_workers_are_lost_for_good_keeps_its_last_boundary(cluster, tmp_path, monkeypatch):
    config = TrainConfig(
        engine="native", seed=3, log_std_start=-1.0, total_timesteps=4 * 512, n_envs=WORLDS, n_steps=128,
        batch_size=128,
        n_epochs=2, eval_every=10**6, eval_episodes=2, checkpoint_every=10**6, tensorboard=False, workers=2,
        run_dir=str(tmp_path / "lost"),
    )  # fmt: skip

    def lose(model):
        if model.num_timesteps == 2 * 512:
            monkeypatch.setattr(ray_workers, "MOST_ATTEMPTS", 1)
            for number in range(2):
                spoil(model.env, number)

    with pytest.raises(TrafficError, match="lost with the same work"):
        train(config, progress=False, callback=At(0, lose))
    assert read_facts(tmp_path / "lost" / LAST)["timesteps"] == 2 * 512
    monkeypatch.undo()
    found = train(config, progress=False)
    whole = train(dataclasses.replace(config, run_dir=str(tmp_path / "whole")), progress=False)
    assert found["weights_digest"] == whole["weights_digest"] and found["resumed_at"] == [2 * 512]


def test_a_mistake_is_no_fault_of_the_worker(cluster, undisturbed):
    env = opened()
    try:
        env.workers.launch("explore", [(None, None, None)] * 2)
        with pytest.raises(AttributeError):
            env.workers.gather()
        assert env.workers.faults == NOTHING
        env.launch(some_weights(), STEPS)
        assert equal(env.gather(), undisturbed[0])
    finally:
        env.close()


def test_a_cluster_without_room_is_given_up_in_time(cluster):
    env = opened()  # takes both CPUs
    try:
        with pytest.raises(RoadsenseError, match=r"^no Ray worker came up within 0\.5 s; .* lower workers"):
            RayWorkers(WorkersConfig(count=1, start_limit_s=0.5), 1, ARGUMENTS)
    finally:
        env.close()


def test_a_cluster_is_joined_by_its_address_and_left_running(cluster):
    code = (
        "import sys, ray; from roadsense.training.ray_connection import running_ray\n"
        "for address in (sys.argv[1], 'auto'):\n"
        "    with running_ray(1, address): print(sum(node['Alive'] for node in ray.nodes()))\n"
        "    assert not ray.is_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cluster.address], env={**os.environ, "RAY_ADDRESS": cluster.address},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "3\n3\n"), done.stderr
    assert len(cluster.list_all_nodes()) == 3


def test_a_training_that_loses_workers_comes_to_the_same_weights_and_counts_them(cluster, tmp_path):
    """Killed while they drive ahead of the learner."""
    config = TrainConfig(
        engine="native", seed=3, log_std_start=-1.0, total_timesteps=5 * 512, n_envs=WORLDS, n_steps=128,
        batch_size=128,
        n_epochs=2, eval_every=10**6, eval_episodes=2, checkpoint_every=10**6, tensorboard=False, workers=2,
        asynchronous=True, run_dir=str(tmp_path / "whole"),
    )  # fmt: skip
    expected = train(config, progress=False)
    killed = []

    def shoot(model):
        if len(killed) < 2 and model.num_timesteps in (4 * 128, 3 * 4 * 128):
            model.env.workers.wait_for_all()
            killed.append(processes(model.env)[len(killed)][0])
            os.kill(killed[-1], signal.SIGKILL)

    found = train(dataclasses.replace(config, run_dir=str(tmp_path / "shot")), progress=False, callback=At(0, shoot))
    assert len(killed) == 2 and gone(killed, wait_s=15.0)
    assert found["weights_digest"] == expected["weights_digest"]
    assert found["workers"]["redone"] == {**NOTHING, "died": 2} and expected["workers"]["redone"] == NOTHING
    with (tmp_path / "shot" / "training.csv").open() as file:
        counted = [float(row["redone"]) for row in csv.DictReader(file)]
    assert counted == sorted(counted) and (counted[0], counted[-1]) == (0.0, 2.0)
