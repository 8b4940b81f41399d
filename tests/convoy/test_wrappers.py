import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import roadsense  # noqa: F401
from roadsense.convoy.wrappers import PeerSequence

pytestmark = pytest.mark.usefixtures("require_sumo")


def test_the_sequence_holds_the_rows_in_use_and_nothing_else():
    plain, wrapped = gym.make("Convoy-v0", radio="drive"), PeerSequence(gym.make("Convoy-v0", radio="drive"))
    try:
        fixed, _ = plain.reset(seed=3)
        free, _ = wrapped.reset(seed=3)
        sizes = set()
        for _ in range(150):
            assert np.array_equal(free["peers"], fixed["peers"][: int(fixed["peer_mask"].sum())])
            assert np.array_equal(free["ego"], fixed["ego"])
            assert free in wrapped.observation_space
            sizes.add(len(free["peers"]))
            fixed, *_ = plain.step(np.zeros(1, np.float32))
            free, *_ = wrapped.step(np.zeros(1, np.float32))
        assert len(sizes) > 1  # also fewer than all of them
    finally:
        plain.close()
        wrapped.close()


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")  # it is a wrapper
def test_gymnasium_accepts_it(watching):
    env = PeerSequence(gym.make("Convoy-v0").unwrapped)
    try:
        check_env(env, skip_render_check=False)
    finally:
        env.close()


def test_an_empty_table_is_an_empty_sequence():
    env = PeerSequence(gym.make("Convoy-v0", radio="off"))
    try:
        observation, _ = env.reset(seed=1)
        assert observation["peers"].shape == (0, 8)
        assert observation in env.observation_space
    finally:
        env.close()
