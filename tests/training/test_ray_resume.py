"""A training with workers that is killed and goes on ends with the bits of one that was not, asynchronously too."""

import dataclasses
import functools
import uuid

import pytest

from roadsense.errors import StoppedError
from roadsense.training.checkpoints import LAST, read_arrays, read_facts
from roadsense.training.ray_connection import running_ray
from roadsense.training.sb3 import train

from .callbacks import At
from .killing import Killer
from .processes import marked
from .test_resume import BOTH, DAGGER, PPO, SUMO, assert_same, into, outcome, resume

pytestmark = pytest.mark.usefixtures("require_ray")

CONFIGS = {
    name: dataclasses.replace(config, workers=2, **changes)
    for name, config, changes in (
        ("ppo", PPO, {}),
        ("asynchronous", PPO, {"asynchronous": True}),
        ("dagger", DAGGER, {}),
        ("both", BOTH, {"asynchronous": True}),
        ("sumo", SUMO, {"asynchronous": True}),
    )
}


@pytest.fixture(scope="module")
def ray():
    with running_ray(2):
        yield


@pytest.fixture(scope="module")
def kill():
    """Kills trainings with a Ray of their own."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROADSENSE_TEST_MARK", mark)
        killer = Killer()
    yield killer
    killer.close()
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # they look for their Ray for a minute
    assert marked(mark, wait_s=15.0, beside=agents) == [], "what a killed training had started is gone, too"


@functools.cache
def _uninterrupted(folder, name):
    train(into(folder / name, CONFIGS[name]), progress=False)
    return outcome(folder / name)


@pytest.fixture(scope="module")
def uninterrupted(ray, tmp_path_factory):
    return functools.partial(_uninterrupted, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize(("name", "point", "nth"), [
    ("ppo", "workers", 5), ("asynchronous", "workers", 4),
    *(pytest.param(*case, marks=pytest.mark.proof) for case in (
        ("asynchronous", "gradient", 15), ("dagger", "workers", 4),
        ("ppo", "gradient", 13), ("ppo", "renamed", 3), ("asynchronous", "half", 3),
        ("both", "workers", 3), ("both", "workers", 7), ("both", "gradient", 45), ("sumo", "gradient", 9),
    )),
])  # fmt: skip
def test_a_killed_training_ends_as_if_it_had_not_been(name, point, nth, kill, uninterrupted, tmp_path):
    """Killed while workers drive; what was driven ahead, with which weights, is in the checkpoint."""
    kill(into(tmp_path, CONFIGS[name]), point, nth)
    assert not (tmp_path / "training.json").exists() and read_facts(tmp_path / LAST)["timesteps"] > 0
    ahead = [array for array in read_arrays(tmp_path / LAST) if array.startswith("ahead.")]
    assert (ahead != []) == (name == "asynchronous") or name in ("both", "sumo")
    resume(tmp_path)
    assert_same(tmp_path, uninterrupted(name))


def test_ctrl_c_keeps_the_last_boundary_and_another_number_of_workers_goes_on(uninterrupted, tmp_path):
    def interrupt(model):
        raise KeyboardInterrupt

    config = into(tmp_path, CONFIGS["asynchronous"])
    with pytest.raises(StoppedError, match="stopped at step 768 of 1536"):
        train(config, progress=False, callback=At(800, interrupt))
    train(dataclasses.replace(config, workers=1), progress=False)
    expected = uninterrupted("asynchronous")
    found = outcome(tmp_path)
    found["result"]["workers"] = expected["result"]["workers"]  # but for their number
    assert found == expected
