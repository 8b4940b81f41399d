"""The worlds Stable-Baselines3 sees are the environment's, one by one."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from roadsense.convoy.env import ConvoyEnv
from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.training.reward_scale import RewardScale
from roadsense.training.vec_env import ConvoyVecEnv

pytestmark = pytest.mark.usefixtures("require_sumo")

SEED, WORLDS, PEERS = 5, 2, 4


@pytest.fixture(scope="module")
def vec_env():
    env = ConvoyVecEnv(Player(WORLDS, max_peers=PEERS, horizon_steps=200))
    yield env
    env.close()


def fresh(vec_env):
    vec_env.played = [0] * WORLDS
    vec_env.seed(SEED)
    return vec_env.reset()


def test_every_world_is_the_environment_seeded_s_plus_i_through_ends_and_resets(vec_env):
    """Also that the terminal observation is the last one of the ended episode, and collisions are not truncations."""
    seen = fresh(vec_env)
    twins = [ConvoyEnv(max_peers=PEERS, horizon_steps=200) for _ in range(WORLDS)]
    try:
        expected = [env.reset(seed=SEED + i)[0] for i, env in enumerate(twins)]
        totals, lengths, ended = [0.0] * WORLDS, [0] * WORLDS, []
        for _ in range(500):
            for world in range(WORLDS):
                for name, value in expected[world].items():
                    assert np.array_equal(seen[name][world], value), (world, name)
            seen, rewards, done, infos = vec_env.step(np.zeros((WORLDS, 1), np.float32))
            for world, env in enumerate(twins):
                last, reward, terminated, truncated, _ = env.step([0.0])
                assert rewards[world] == np.float32(reward) and done[world] == (terminated or truncated)
                totals[world], lengths[world], expected[world] = totals[world] + reward, lengths[world] + 1, last
                if not done[world]:
                    assert infos[world] == {}
                    continue
                info = infos[world]
                for name, value in last.items():
                    assert np.array_equal(info["terminal_observation"][name], value)
                assert info["TimeLimit.truncated"] == truncated
                assert info["episode"] == {
                    "r": pytest.approx(totals[world]), "l": lengths[world], "collision": terminated
                }  # fmt: skip
                ended.append(terminated)
                totals[world], lengths[world] = 0.0, 0
                expected[world] = env.reset()[0]
                assert any(not np.array_equal(last[name], expected[world][name]) for name in last)
        assert True in ended and False in ended
    finally:
        for env in twins:
            env.close()


def test_arrays_are_the_callers_own(vec_env):
    first = fresh(vec_env)
    kept = {name: array.copy() for name, array in first.items()}
    second, rewards, *_ = vec_env.step(np.full((WORLDS, 1), 0.5, np.float32))
    before = rewards.copy()
    vec_env.step(np.ones((WORLDS, 1), np.float32))
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(rewards, before)


def test_other_seeds_are_other_episodes_and_a_resumed_training_repeats_none(vec_env):
    first = fresh(vec_env)
    vec_env.seed(SEED + 1)
    vec_env.played = [0] * WORLDS
    shifted = vec_env.reset()
    assert np.array_equal(shifted["ego"][0], first["ego"][1])
    assert not np.array_equal(shifted["ego"][1], first["ego"][1])
    vec_env.resume_at([4, 7])
    vec_env.seed(SEED)
    later = vec_env.reset()
    assert not np.array_equal(later["ego"], first["ego"]) and vec_env.played == [5, 8]


def test_open_episodes_are_reopened_where_they_stood(vec_env):
    """Each at its own step, with the same future; a world that has just begun is driven nowhere."""
    fresh(vec_env)
    actions = np.random.default_rng(3).random((330, WORLDS, 1)).astype(np.float32)
    for action in actions[:230]:  # all have ended once at step 200, or before by a collision
        seen, *_ = vec_env.step(action)
    kept = vec_env.open_episodes()
    assert kept["actions"].shape == (kept["steps"].max(), WORLDS) and kept["played"].tolist() == [2] * WORLDS
    future = [vec_env.step(action) for action in actions[230:]]
    vec_env.reset()
    again = vec_env.reopen(kept)
    assert all(np.array_equal(seen[name], again[name]) for name in seen)
    for action, expected in zip(actions[230:], future, strict=True):
        found = vec_env.step(action)
        assert all(np.array_equal(expected[0][name], found[0][name]) for name in seen)
        assert np.array_equal(expected[1], found[1]) and np.array_equal(expected[2], found[2])
        assert [info.get("episode") for info in expected[3]] == [info.get("episode") for info in found[3]]
    begun = {**kept, "steps": np.array([0, 5]), "actions": kept["actions"][:5]}
    vec_env.reopen(begun)
    assert vec_env.worlds.records["step"].tolist() == [0, 5]
    assert np.array_equal(vec_env.open_episodes()["actions"], kept["actions"][:5] * [0.0, 1.0])
    longer = {**kept, "steps": np.array([200, 200]), "actions": np.zeros((200, WORLDS))}
    with pytest.raises(InputMismatchError, match=r"an episode that was under way ends at step [0-9]+ when driven"):
        vec_env.reopen(longer)


def test_actions_are_clipped_and_nan_is_refused(vec_env):
    ends = []
    for value in (1.0, 50.0):
        fresh(vec_env)
        ends.append(vec_env.step(np.full((WORLDS, 1), value, np.float32))[0])
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    with pytest.raises(RoadsenseError, match="NaN"):
        vec_env.step(np.array([[0.0], [np.nan]], np.float32))


class _Replay(DummyVecEnv):
    """Gives recorded rewards."""

    def __init__(self, steps):
        super().__init__([lambda: ConvoyEnv(max_peers=PEERS)] * 2)
        self._steps = iter(steps)

    def step_wait(self):
        rewards, done = next(self._steps)
        seen = {name: np.zeros((2, *space.shape), space.dtype) for name, space in self.observation_space.items()}
        return seen, rewards.copy(), done, [{"terminal_observation": None} if d else {} for d in done]


def test_rewards_are_scaled_as_by_stable_baselines3():
    rng = np.random.default_rng(0)
    steps = [(rng.normal(-1.0, 3.0, 2), rng.random(2) < 0.05) for _ in range(400)]
    reference = VecNormalize(_Replay(steps), norm_obs=False, gamma=0.97, clip_reward=2.0)
    scale = RewardScale(2, 0.97, 2.0)
    try:
        for rewards, done in steps:
            reference.step_async(np.zeros((2, 1)))
            np.testing.assert_allclose(scale(rewards, done), reference.step_wait()[1], rtol=1e-6)
    finally:
        reference.close()
    restored = RewardScale(2, 0.97, 2.0)
    restored.restore(scale.state())
    assert restored.std == scale.std
