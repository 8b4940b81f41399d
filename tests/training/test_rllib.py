"""The adapter for RLlib, asked as its runners ask: registered anew, made by ``gym.make_vec``, infos as lists."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import DictInfoToList

from roadsense.training.rllib import make_convoy

ASKED = {"engine": "native", "scenario_list": ["straight", "curve"], "max_peers": 4, "horizon_steps": 6}


@pytest.fixture
def runner_env():
    """As ``SingleAgentEnvRunner.make_env`` of RLlib 2.60 makes it."""
    name = "rllib-single-agent-env-v0"
    gym.register(
        name,
        entry_point=lambda: make_convoy(ASKED),
        vector_entry_point=lambda num_envs: make_convoy(ASKED | {"num_envs": num_envs}),
    )
    env = DictInfoToList(gym.make_vec(name, num_envs=3, vectorization_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT))
    yield env
    env.close()
    del gym.registry[name]


def test_ended_worlds_show_their_last_observation_and_begin_anew_in_the_next_step(runner_env):
    observation, infos = runner_env.reset(seed=4)
    assert len(infos) == 3
    first = {name: array.copy() for name, array in observation.items()}
    for _ in range(6):
        last, _, _, truncated, infos = runner_env.step(np.zeros((3, 1), np.float32))
    assert truncated.all()
    assert [info["end_reason"] for info in infos] == [2, 2, 2]
    observation, rewards, terminated, truncated, infos = runner_env.step(np.ones((3, 1), np.float32))
    assert not terminated.any() and not truncated.any()
    assert rewards.tolist() == [0.0, 0.0, 0.0]
    assert [info["end_reason"] for info in infos] == [0, 0, 0]
    assert not np.array_equal(observation["ego"], last["ego"])
    assert not np.array_equal(observation["ego"], first["ego"])


def test_one_world_is_the_same_environment(runner_env):
    alone = make_convoy(ASKED)
    observation, _ = alone.reset(seed=5)
    together, _ = runner_env.reset(seed=4)
    for name, array in observation.items():
        assert np.array_equal(array, together[name][1])
    alone.close()
