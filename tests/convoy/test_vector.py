"""Many worlds at once: each is the single environment of its seed, in every autoreset mode."""

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import roadsense  # noqa: F401
from roadsense._data import scenarios_dir
from roadsense.convoy.env import ConvoyEnv
from roadsense.convoy.vector import ConvoyVectorEnv
from roadsense.errors import ActionError, TrafficError, UsageError

pytestmark = pytest.mark.usefixtures("require_sumo")

SEED, WORLDS, HORIZON = 40, 2, 55


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A short drama: somebody brakes within the first second, so worlds end early and at different steps."""
    folder = shutil.copytree(scenarios_dir() / "base" / "straight", tmp_path_factory.mktemp("vector") / "scene")
    hazard = {"kind": "emergency_brake", "rank": [1, 3], "decel_mps2": [6.0, 9.0], "onset_s": [0.2, 1.0]}
    (folder / "episode.json").write_text(json.dumps({"schema_version": 1, "hazard": hazard}))
    return str(folder)


@pytest.fixture(scope="module")
def batches(scene):
    """One batch for each autoreset mode; a worker takes a second to start, a reset with a seed forgets the past."""
    made = {mode: gym.make_vec("Convoy-v0", autoreset_mode=mode, **arguments(scene)) for mode in AutoresetMode}
    yield made
    for envs in made.values():
        envs.close()


@pytest.fixture(scope="module")
def counted(batches):
    """Kept to the end of the module, because a wrapper closes what it wraps when it is forgotten."""
    return RecordEpisodeStatistics(batches[AutoresetMode.NEXT_STEP])


@pytest.fixture(scope="module")
def singles(scene):
    """As many single environments, for Gymnasium's own batch of them."""
    made = [ConvoyEnv(scenario=scene, horizon_steps=HORIZON, max_peers=4) for _ in range(WORLDS)]
    yield made
    for env in made:
        env.close()


def arguments(scene, **changes):
    return {"num_envs": WORLDS, "scenario": scene, "horizon_steps": HORIZON, "max_peers": 4, **changes}


def equal(one, other):
    """Whether two nested dicts of arrays are the same bits, keys in any order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) and one.dtype != object:
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, np.ndarray):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def zeroed(info):
    """An info whose values are zero wherever its mask says that the world does not state them."""
    clean = dict(info)
    for name, mask in info.items():
        if name.startswith("_"):
            continue
        if isinstance(mask, dict):
            clean[name] = zeroed(mask)
        elif mask.dtype != object:
            clean[name] = mask.copy()
            clean[name][~info[f"_{name}"]] = 0
    return clean


def wishes(step):
    """Actions that differ by world and time, so that none is mistaken for another's."""
    return np.array([[0.0], [0.9 if step % 6 == 0 else 0.0]], np.float32)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_it_is_gymnasiums_own_batch_of_single_environments(batches, singles, mode):
    """Observations, rewards, ends, infos and their masks, bit for bit, over several ends of every world."""
    envs = batches[mode]
    reference = SyncVectorEnv([lambda env=env: env for env in singles], autoreset_mode=mode)
    reference.closed = True  # its environments serve the other modes too
    ends = np.zeros((WORLDS, 2), int)
    mine, expected = envs.reset(seed=SEED), reference.reset(seed=SEED)
    assert equal(mine[0], expected[0]) and equal(mine[1], expected[1])
    for step in range(200):
        observation, reward, terminated, truncated, info = envs.step(wishes(step))
        expected = reference.step(wishes(step))
        assert equal(observation, expected[0]), step
        assert np.array_equal(reward, expected[1])
        assert np.array_equal(terminated, expected[2]) and np.array_equal(truncated, expected[3])
        assert equal(zeroed(info), expected[4]), step
        ends += np.stack([terminated, truncated], axis=1)
        ended = terminated | truncated
        if mode == AutoresetMode.DISABLED and ended.any():
            mine = envs.reset(options={"reset_mask": ended})
            expected = reference.reset(options={"reset_mask": ended.copy()})
            assert equal(mine[0], expected[0]) and equal(zeroed(mine[1]), expected[1])
    assert (ends.sum(axis=1) >= 3).all() and (ends.sum(axis=0) > 0).all()  # collisions and horizons


def test_same_step_hands_out_the_last_observation_and_info_of_ended_worlds_alone(batches):
    envs = batches[AutoresetMode.SAME_STEP]
    envs.reset(seed=SEED)
    partly = False
    for _ in range(60):
        observation, _, terminated, truncated, info = envs.step(np.zeros((WORLDS, 1), np.float32))
        ended = terminated | truncated
        assert ("final_obs" in info) == ended.any()
        assert (info["end_reason"] == 0).all()  # of the episode that has begun
        if not ended.any():
            continue
        partly |= not ended.all()
        assert np.array_equal(info["_final_obs"], ended) and np.array_equal(info["_final_info"], ended)
        last = info["final_info"]
        assert np.array_equal(last["end_reason"][ended] == 1, terminated[ended])
        assert np.array_equal(last["_end_reason"], ended)
        for world in range(WORLDS):
            if ended[world]:
                assert info["final_obs"][world] in envs.single_observation_space
                fresh = {name: part[world] for name, part in observation.items()}
                assert not equal(info["final_obs"][world], fresh)
            else:
                assert info["final_obs"][world] is None
    assert partly


def test_gymnasium_counts_its_episodes(counted):
    """The step that only resets a world belongs to no episode."""
    counted.reset(seed=SEED)
    totals, lengths, seen = np.zeros(WORLDS), np.zeros(WORLDS, int), 0
    ended = np.zeros(WORLDS, np.bool_)
    for step in range(150):
        _, rewards, terminated, truncated, info = counted.step(wishes(step))
        totals, lengths = np.where(ended, 0.0, totals + rewards), np.where(ended, 0, lengths + 1)
        ended = terminated | truncated
        if ended.any():
            assert np.array_equal(info["_episode"], ended)
            assert np.allclose(info["episode"]["r"][ended], totals[ended])
            assert np.array_equal(info["episode"]["l"][ended], lengths[ended])
            seen += ended.sum()
    assert seen >= 4


def test_disabled_an_ended_world_waits_for_its_reset(batches):
    envs = batches[AutoresetMode.DISABLED]
    envs.reset(seed=SEED)
    ended = np.zeros(WORLDS, np.bool_)
    while not ended.any():
        observation, _, terminated, truncated, _ = envs.step(np.zeros((WORLDS, 1), np.float32))
        ended = terminated | truncated
    assert not ended.all()
    with pytest.raises(ValueError, match="a world has ended; reset it"):
        envs.step(np.zeros((WORLDS, 1), np.float32))
    fresh, info = envs.reset(options={"reset_mask": ended})
    for world in range(WORLDS):
        same = [np.array_equal(fresh[name][world], observation[name][world]) for name in ("ego", "peers")]
        assert all(same) != ended[world]
    assert np.array_equal(info["_gap_m"], ended)
    envs.step(np.zeros((WORLDS, 1), np.float32))


def test_a_second_reset_without_a_seed_goes_on_with_the_next_episode(batches):
    """However the first one was seeded; and a world named None in a list keeps its own line of episodes."""
    envs, again = batches[AutoresetMode.NEXT_STEP], batches[AutoresetMode.SAME_STEP]
    seeds = [SEED + world for world in range(WORLDS)]
    assert equal(envs.reset(seed=SEED)[0], again.reset(seed=seeds)[0])
    assert equal(envs.reset()[0], again.reset()[0])
    third, _ = envs.reset()
    mixed, _ = again.reset(seed=[None, SEED + 1])
    assert equal({name: part[0] for name, part in third.items()}, {name: part[0] for name, part in mixed.items()})
    first, _ = envs.reset(seed=SEED)
    assert equal({name: part[1] for name, part in first.items()}, {name: part[1] for name, part in mixed.items()})


def test_what_does_not_fit_the_worlds_is_refused_in_a_sentence(batches, scene):
    envs = batches[AutoresetMode.NEXT_STEP]
    envs.reset(seed=SEED)
    with pytest.raises(ValueError, match="3 seeds for 2 worlds; give one seed a world, or one int"):
        envs.reset(seed=[1, 2, 3])
    for mask in (np.ones(3, np.bool_), np.zeros(WORLDS, np.bool_), np.ones(WORLDS)):
        with pytest.raises(ValueError, match="reset_mask must be 2 booleans, at least one of them True"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(UsageError, match="did you mean 'scenario_id'"):
        envs.reset(options={"scenario-id": "scene"})
    actions = np.zeros((WORLDS, 1), np.float32)
    actions[1] = np.nan
    with pytest.raises(ValueError, match="an action is NaN"):
        envs.step(actions)
    with pytest.raises(UsageError, match="autoreset_mode 'NextSteps' is unknown; did you mean 'NextStep'"):
        gym.make_vec("Convoy-v0", autoreset_mode="NextSteps", **arguments(scene))
    with pytest.raises(UsageError, match="num_envs is 0"):
        gym.make_vec("Convoy-v0", **arguments(scene, num_envs=0))
    with pytest.raises(UsageError, match="did you mean 'brake'"):
        gym.make_vec("Convoy-v0", **arguments(scene, control="brakes"))
    envs.step(np.zeros((WORLDS, 1), np.float32))


def test_a_batch_seeded_by_a_list_alone_goes_on_with_its_own_episodes(scene):
    envs = gym.make_vec("Convoy-v0", **arguments(scene, messages_per_peer=2, control="acceleration"))
    try:
        envs.reset(seed=[SEED, SEED + 1])
        following, _ = envs.reset()
        envs.reset(seed=[SEED, SEED + 1])
        assert equal(envs.reset()[0], following)
        assert following in envs.observation_space and following["peers"].shape == (2, 8, 8)
        assert envs.single_action_space.low[0] == -1.0 and envs.action_space.shape == (2, 1)
    finally:
        envs.close()
    envs.close()
    with pytest.raises(TrafficError, match="closed"):
        envs.step(np.zeros((WORLDS, 1), np.float32))


def test_worlds_that_nobody_seeded_draw_their_own_seeds(scene):
    envs = gym.make_vec("Convoy-v0", **arguments(scene))
    try:
        envs.reset(options={"reset_mask": np.array([True, False])})
        drawn, _ = envs.reset(options={"reset_mask": np.array([False, True])})
        assert not np.array_equal(drawn["ego"][0], drawn["ego"][1])
        zero, _ = envs.reset(seed=[0, 0])
        assert not np.array_equal(drawn["ego"], zero["ego"])
    finally:
        envs.close()


def test_ansi_renders_one_line_a_world_and_each_is_that_of_the_single_environment(scene):
    envs = gym.make_vec("Convoy-v0", render_mode="ansi", **arguments(scene))
    single = gym.make("Convoy-v0", scenario=scene, render_mode="ansi")
    try:
        envs.reset(seed=SEED)
        envs.step(np.arange(WORLDS, dtype=np.float32)[:, None])
        shown = envs.render()
        assert len(shown) == WORLDS and len(set(shown)) == WORLDS
        for world, line in enumerate(shown):
            single.reset(seed=SEED + world)
            single.step([float(world)])
            assert single.render() == line
    finally:
        envs.close()
        single.close()


def test_options_and_modes_of_a_wrong_kind_are_refused(batches, scene):
    for options in (5, [], "x"):
        with pytest.raises(UsageError, match=r"reset options are .*; give a dict"):
            batches[AutoresetMode.DISABLED].reset(options=options)
    with pytest.raises(UsageError, match="autoreset_mode 5 is unknown"):
        ConvoyVectorEnv(scenario=scene, autoreset_mode=5)
    with pytest.raises(UsageError, match="num_envs is '2'; give a whole number"):
        ConvoyVectorEnv("2", scenario=scene)


def test_an_unknown_render_mode_is_refused_and_none_shows_nothing(batches, scene):
    with pytest.raises(UsageError, match="render_mode 'humans' is unknown; did you mean 'human'"):
        ConvoyVectorEnv(2, render_mode="humans", scenario=scene)
    with pytest.warns(UserWarning, match="needs a render_mode"):
        assert batches[AutoresetMode.DISABLED].render() is None


def test_a_step_needs_a_reset_of_every_world(scene):
    envs = gym.make_vec("Convoy-v0", autoreset_mode=AutoresetMode.DISABLED, **arguments(scene))
    try:
        for options in (None, {"reset_mask": np.array([True, False])}):
            if options:
                envs.reset(seed=SEED, options=options)
            with pytest.raises(gym.error.ResetNeeded, match="was never reset"):
                envs.step(np.zeros((WORLDS, 1), np.float32))
        envs.reset(seed=SEED, options={"reset_mask": np.array([False, True])})
        envs.step(np.zeros((WORLDS, 1), np.float32))
    finally:
        envs.close()


def test_seeds_may_be_of_numpy_and_what_is_no_seed_is_refused(batches):
    envs = batches[AutoresetMode.DISABLED]
    expected = [array.copy() for array in envs.reset(seed=SEED)[0].values()]
    for seed in (np.int64(SEED), np.array([SEED, SEED + 1]), [np.uint32(SEED), SEED + 1]):
        found = envs.reset(seed=seed)[0].values()
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    again = envs.reset(seed=np.array(SEED))[0].values()
    assert all(np.array_equal(one, other) for one, other in zip(again, expected, strict=True))
    for seed in (-1, [3, -1], 1.5, "3", b"ab", True, np.array([0.5, 1.0])):
        with pytest.raises(UsageError, match="give a whole number that is not negative"):
            envs.reset(seed=seed)


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (np.zeros((2, 1)), r"the actions have shape \(2, 1\); give one a world, \(3, 1\)"),
        (np.zeros((1, 3)), r"the actions have shape \(1, 3\); give one a world"),
        (np.zeros((3, 2)), r"the actions have shape \(3, 2\); give one a world"),
        ([["a"]] * 3, "the actions are .*; give an array of numbers"),
    ],
)
def test_actions_of_another_shape_move_nothing(actions, told):
    env = gym.make_vec("Convoy-v0", num_envs=3, engine="native", scenario_list=["straight"])
    env.reset(seed=1)
    with pytest.raises(ActionError, match=told):
        env.step(actions)
    assert env.unwrapped.worlds.records["step"].tolist() == [0, 0, 0]
    env.step(np.zeros(3))
    with pytest.raises(UsageError, match="reset option 'rest_mask' is unknown; did you mean 'reset_mask'"):
        env.reset(options={"rest_mask": np.ones(3, bool)})
    env.close()


def test_closed_worlds_are_not_stepped():
    env = gym.make_vec("Convoy-v0", num_envs=3, engine="native", scenario_list=["straight"])
    env.reset(seed=1)
    env.close()
    with pytest.raises(TrafficError, match="these worlds are closed"):
        env.step(np.zeros((3, 1)))
