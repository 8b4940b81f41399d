"""Sweeps over a Ray of two machines (raylets): the same trainings, wherever they run and whatever stops them."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from roadsense.errors import RoadsenseError, StoppedError, UsageError
from roadsense.training import sb3
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.sweep.cluster import run_anywhere
from roadsense.training.sweep.options import SweepConfig
from roadsense.training.sweep.run import sweep

from ..callbacks import At
from .trainings import TINY, result

if find_spec("ray") is not None:
    import ray
    from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks at processes in /proc"),
    pytest.mark.usefixtures("require_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster(require_ray):
    """Two machines of one CPU each, whose processes work in the folder that tests start in."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=2**27)
    yield made
    made.shutdown()


def swept_over(cluster, folder, base=TINY, **options):
    try:
        return sweep(SweepConfig(run_dir=folder, ray_address=cluster.address, **options), base, progress=False)
    finally:
        assert not ray.is_initialized()


def trained(run_dir, **changes):
    return sb3.train(dataclasses.replace(TINY, run_dir=str(run_dir), **changes), progress=False)


def at_work_in(run):
    """Ids of the processes that hold a trial's folder."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link).partition(" ")[0] == str(run / ".lock"):
                found.add(int(link.parts[2]))
    return found


def test_machines_that_do_not_see_the_folder_hand_its_files_back(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unseen = Path("/proc/self/cwd/swept")  # of the raylets' workers that is another folder

    def interrupt(model):
        raise KeyboardInterrupt

    begun = dataclasses.replace(TINY, seed=2, run_dir=str(unseen / "base-seed2"))
    with pytest.raises(StoppedError):
        sb3.train(begun, progress=False, callback=At(600, interrupt))
    swept = swept_over(cluster, unseen, seeds=2)
    assert swept.document["finished"] and [one["n"] for one in swept.document["summary"]] == [2]
    alone = {seed: trained(tmp_path / f"alone{seed}", seed=seed) for seed in (0, 2)}
    for seed, expected in alone.items():
        run = tmp_path / "swept" / f"base-seed{seed}"
        assert result(run)["weights_digest"] == expected["weights_digest"]
        assert {path.relative_to(run) for path in run.rglob("*")} == {
            path.relative_to(tmp_path / f"alone{seed}") for path in (tmp_path / f"alone{seed}").rglob("*")
        }
    assert [result(tmp_path / "swept" / f"base-seed{seed}")["resumed_at"] for seed in (0, 2)] == [[], [512]]
    assert not list(unseen.glob(".*"))
    assert not (Path.cwd() / "base-seed0").exists()


@pytest.mark.proof
def test_a_trial_that_is_stopped_and_loses_its_process_ends_as_if_it_had_not(cluster, tmp_path):
    longer = dataclasses.replace(TINY, total_timesteps=5120)
    run = tmp_path / "swept" / "base-seed0"

    def when_past(step, action):
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            with contextlib.suppress(RoadsenseError):
                if read_facts(run / LAST)["timesteps"] >= step:
                    return action()
            time.sleep(0.01)

    def at(step, action):
        thread = threading.Thread(target=when_past, args=(step, action))
        thread.start()
        return thread

    pressed = at(256, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError, match="0 of 1 trials finished; the same command continues"):
        swept_over(cluster, tmp_path / "swept", longer, seeds=1)
    pressed.join()
    stopped = read_facts(run / LAST)["timesteps"]
    assert 256 <= stopped < 5120 and not (run / "training.json").exists()

    lost = at(stopped + 256, lambda: [os.kill(process, signal.SIGKILL) for process in at_work_in(run)])
    swept = swept_over(cluster, tmp_path / "swept", longer, seeds=1)
    lost.join()
    assert swept.document["finished"]
    found = result(run)
    assert found["resumed_at"][0] == stopped and len(found["resumed_at"]) == 2
    assert found["weights_digest"] == trained(tmp_path / "alone", total_timesteps=5120)["weights_digest"]
    assert at_work_in(run) == set()


def test_what_a_machine_lacks_is_named(tmp_path):
    for field in ("dataset_dir", "eval_dir", "init_from"):
        config = dataclasses.replace(TINY, run_dir=str(tmp_path / "swept"), **{field: str(tmp_path / "nowhere")})
        (status, reason), files = run_anywhere(config, str(tmp_path / "mark"), begun=False, sent=None)
        assert status == "failed" and not files and not (tmp_path / "swept").exists()
        assert f"{tmp_path / 'nowhere'}: is not on machine " in reason and "same place on every machine" in reason


@pytest.mark.parametrize("spread", [{"algorithm": "rllib-ppo", "n_env_runners": 2}, {"workers": 1}], ids=str)
def test_a_trial_of_several_processes_is_refused(tmp_path, spread):
    base = dataclasses.replace(TINY, **spread)
    with pytest.raises(
        UsageError, match=rf"{[*spread][-1]} is not 0; a sweep gives .* one process.*--ray-address none"
    ):
        sweep(SweepConfig(run_dir=tmp_path / "swept"), base, progress=False)
    assert not (tmp_path / "swept").exists()
