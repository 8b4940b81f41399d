"""What stands between the environment and RLlib's PPO: seeded worlds, figures of episodes, rewards of one size."""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from roadsense.convoy.player import Player
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.convoy.world import EndReason
from roadsense.training.config import TrainConfig
from roadsense.training.reward_scale import ReturnSpread
from roadsense.training.vec_env import ConvoyVecEnv

from ..policies.networks import random_observations

if find_spec("ray") is not None:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    from roadsense.training.rllib_config import algorithm_config
    from roadsense.training.rllib_figures import ended_episodes
    from roadsense.training.rllib_learner import EXPLAINED_VARIANCE, ScaledAdvantages
    from roadsense.training.rllib_runners import ENDED, ConvoyCallbacks, RunnerWorlds, first_world, make_runner_worlds

pytestmark = [
    pytest.mark.usefixtures("require_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ASKED = {"engine": "native", "scenario_list": ["straight", "curve"], "max_peers": 4, "horizon_steps": 25}
NOTHING = np.zeros((4, 1), np.float32)


@pytest.fixture
def worlds():
    found = make_runner_worlds({**ASKED, "num_envs": 4, "seed": 7, "played": [0] * 8})
    yield found
    found.close()


def test_worlds_play_the_episodes_that_those_of_stable_baselines3_play(worlds):
    worlds.seed_worlds([7, 8, 9, 10], [0, 0, 0, 0])
    other = ConvoyVecEnv(Player(4, **ASKED))
    other.seed(7)
    same(worlds.reset(seed=12345)[0], other.reset())
    for _ in range(25):
        seen, rewards, terminated, truncated, infos = worlds.step(NOTHING)
        expected, expected_rewards, done, told = other.step(NOTHING)
        assert np.array_equal(rewards.astype(np.float32), expected_rewards)
        assert np.array_equal(terminated | truncated, done)
    assert done.all() and other.played == [2, 2, 2, 2] and worlds.played == [1, 1, 1, 1]
    same({name: array[1] for name, array in seen.items()}, told[1]["terminal_observation"])
    assert infos["_episode"].all()
    for row, info in zip(infos["episode"], told, strict=True):
        assert row.tolist() == pytest.approx([float(info["episode"][key]) for key in ("r", "l", "collision")])
    seen, rewards, _, _, infos = worlds.step(NOTHING)  # begins the next ones
    same(seen, expected)
    assert worlds.played == [2, 2, 2, 2] and not rewards.any() and infos == {}
    other.close()


def same(found, expected):
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_a_collision_is_told_and_what_follows_is_counted_anew():
    worlds = RunnerWorlds(8, **{**ASKED, "horizon_steps": 400})
    worlds.reset()
    returns, told = np.zeros(8), []
    for _ in range(700):
        _, rewards, _, _, infos = worlds.step(np.zeros((8, 1), np.float32))
        returns += rewards
        for world in np.flatnonzero(infos.get("_episode", np.zeros(8))).tolist():
            reward, steps, collision = infos["episode"][world].tolist()
            assert reward == pytest.approx(returns[world])
            assert collision == (worlds.worlds.records["end_reason"][world] == EndReason.COLLISION)
            assert 0 < steps <= 400 and (collision or steps == 400)
            returns[world] = 0.0
            told.append((collision, reward))
    assert {collision for collision, _ in told} == {0.0, 1.0}
    assert all(reward < -100.0 for collision, reward in told if collision)
    worlds.close()


def test_worlds_that_are_taken_up_go_on_with_the_next_episode(worlds):
    worlds.seed_worlds([7, 8, 9, 10], [0, 0, 0, 0])
    worlds.reset()
    for _ in range(26):
        expected, *_ = worlds.step(NOTHING)
    assert worlds.played == [2, 2, 2, 2]
    again = RunnerWorlds(4, **ASKED)
    again.seed_worlds([7, 8, 9, 10], [1, 1, 1, 1])
    same(again.reset(seed=5)[0], expected)
    assert again.played == [2, 2, 2, 2]
    again.close()


@pytest.mark.parametrize(("worker_index", "first"), [(0, 0), (1, 0), (2, 4)])
def test_worlds_of_all_runners_count_on(worlds, worker_index, first):
    class Context(dict):
        pass

    context = Context(seed=7, played=list(range(8)))
    context.worker_index = worker_index
    ConvoyCallbacks().on_environment_created(env=worlds, env_context=context)
    assert first_world(worker_index, 4) == first and worlds.played == list(range(first, first + 4))
    begun = worlds.reset()[0]
    alone = Player(1, **ASKED)
    alone.reseed(0, 7 + first + 2, first + 2)
    alone.begin(np.ones(1, np.bool_))
    assert np.array_equal(begun["peers"][2], alone.worlds.observation.peers[0])
    alone.close()


def episode(name, number, rewards):
    """A part of an episode as the learner gets it: one step more, and a number at the id."""
    return SimpleNamespace(id_=f"{name}_{number}", get_rewards=lambda: [*rewards, 0.0])


def test_returns_run_on_over_the_cut_of_a_rollout():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=30)
    whole, cut, other = (ReturnSpread(10.0) for _ in range(3))
    scaled = [ScaledAdvantages(spread, gamma=0.9, lambda_=0.95) for spread in (whole, cut, other)]
    scaled[0]._learn([episode("a_b", 0, rewards)])
    for k, part in enumerate(np.split(rewards, [7, 19])):
        scaled[1]._learn([episode("a_b", k, part)])
        scaled[2]._learn([episode(f"another{k}", k, part)])
    assert cut.state() == pytest.approx(whole.state()) and other.variance != pytest.approx(whole.variance)
    returns, running = [], 0.0
    for reward in rewards:
        running = 0.9 * running + reward
        returns.append(running)
    assert whole.variance == pytest.approx(np.var(returns), rel=1e-2)
    assert whole.scaled(np.array([whole.std, -1e9])).tolist() == pytest.approx([1.0, -10.0])


@pytest.fixture
def learner():
    """As an algorithm has it, without Ray and worlds."""
    config = algorithm_config(TrainConfig(algorithm="rllib-ppo", engine="native", reward_clip=1e6))
    return config.build_learner(spaces={"default_policy": (observation_space(4), action_space("brake"))})


def episodes_of(rewards):
    """One episode that ends by a collision and the first part of another, seen at random."""
    found = []
    for part, ended in zip(np.split(rewards, [30]), (True, False), strict=True):
        seen = random_observations(len(part) + 1, 4, seed=len(part))
        rows = [{name: array[k] for name, array in seen._asdict().items()} for k in range(len(part) + 1)]
        episode = SingleAgentEpisode(
            observations=rows, rewards=part.tolist(), actions=[np.zeros(1, np.float32)] * len(part), terminated=ended,
            extra_model_outputs={"action_logp": [0.0] * len(part), "action_dist_inputs": [np.zeros(2)] * len(part)},
            observation_space=observation_space(4), action_space=action_space("brake"), len_lookback_buffer=0,
        )  # fmt: skip
        found.append(episode.to_numpy())
    return found


def batch_of(learner, rewards):
    """What the learner makes of episodes."""
    return learner._learner_connector(
        rl_module=learner.module, episodes=episodes_of(rewards), batch={}, shared_data={}, metrics=learner.metrics
    )["default_policy"]


def test_rewards_of_another_size_give_the_same_advantages(learner):
    rewards = np.random.default_rng(1).normal(size=80) - 0.5
    batches = []
    for size in (1.0, 100.0):
        learner.spread = ReturnSpread(1e6)
        learner._learner_connector[ScaledAdvantages][0]._spread = learner.spread
        batches.append(batch_of(learner, rewards * size))
    counted = batches[0]["loss_mask"]
    assert counted.sum() == 80 and len(counted) == 82
    for name in ("rewards", "value_targets", "advantages"):
        small, large = (batch[name][counted].numpy() for batch in batches)
        assert small.std() > 0.1 and np.abs(small - large).max() < 1e-2, name


def test_the_critic_is_measured_before_the_update_and_without_the_steps_that_bootstrap(learner):
    batch = batch_of(learner, np.random.default_rng(1).normal(size=80) - 0.5)
    counted = batch["loss_mask"].numpy()
    with torch.no_grad():
        values = learner.module["default_policy"].compute_values(batch).numpy()[counted]
    targets = batch["value_targets"].numpy()[counted]
    expected = 1.0 - np.var(targets - values) / np.var(targets)
    assert float(learner.metrics.peek(("default_policy", EXPLAINED_VARIANCE))) == pytest.approx(expected, abs=1e-5)
    assert batch["value_targets"].numpy()[29] == pytest.approx(batch["rewards"].numpy()[29])  # nothing after contact


def test_the_noise_of_the_next_rollout_goes_down_with_the_steps(learner):
    module = learner.module["default_policy"]
    for steps, expected in ((0, -1.0), (500_000, -2.2), (1_000_000, -3.4), (1_001_000, -3.4)):
        learner.after_gradient_based_update(timesteps={"num_env_steps_sampled_lifetime": steps})
        assert float(module.log_std) == pytest.approx(expected)


def test_what_a_learner_keeps_is_taken_over_by_another(learner):
    learner.spread.learn(np.array([1.0, 2.0, 9.0]))
    kept = learner.get_state()
    learner.spread.restore({"mean": 0.0, "variance": 1.0, "count": 1.0})
    learner.set_state(kept)
    assert learner.spread.state() == kept["reward_scale"] and learner.spread.variance > 9.0
    assert "reward_scale" not in learner.get_state(components="rl_module")  # what runners are sent


def test_episodes_are_read_from_what_rllib_reports_and_none_where_none_has_ended():
    series = dict(zip(ENDED, ([-1.0, -2.0], [400.0, 30.0], [0.0, 1.0]), strict=True))
    assert ended_episodes({"env_runners": series}) == [(-1.0, 400.0, 0.0), (-2.0, 30.0, 1.0)]
    assert ended_episodes({"env_runners": dict.fromkeys(ENDED, float("nan"))}) == []
    assert ended_episodes({"env_runners": {}}) == []
