"""The environment as Gymnasium and Stable-Baselines3 expect it, its arguments, its seeds."""

import json
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import roadsense  # noqa: F401
from roadsense.convoy.env import ConvoyEnv
from roadsense.convoy.reward import REWARD_TERMS
from roadsense.errors import RoadsenseError, ScenarioError, TrafficError, UsageError

pytestmark = pytest.mark.usefixtures("require_sumo")

ZERO = np.zeros(1, np.float32)


@pytest.fixture
def make():
    """Makes environments and closes them all."""
    opened = []

    def build(**kwargs):
        opened.append(gym.make("Convoy-v0", **kwargs))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def bits(env, seed=None, steps=80, options=None):
    """Everything an agent sees in the first steps of an episode, as bytes."""
    observation, _ = env.reset(seed=seed, options=options)
    seen = [part.tobytes() for part in observation.values()]
    for _ in range(steps):
        observation, reward, *_ = env.step(ZERO)
        seen += [part.tobytes() for part in observation.values()] + [np.float64(reward).tobytes()]
    return b"".join(seen)


@pytest.mark.parametrize("kwargs", [{}, {"control": "acceleration", "messages_per_peer": 3, "max_peers": 5}])
def test_gymnasium_finds_nothing_to_complain_about(make, watching, kwargs):
    check_env(make(**kwargs).unwrapped)


@pytest.mark.parametrize("control", ["brake", "acceleration"])
def test_stable_baselines3_complains_only_about_what_is_meant(make, control):
    """Peers are a table, which its own networks would not read; and a brake request has no negative half."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your observation peers has an unconventional shape")
        if control == "brake":
            warnings.filterwarnings("ignore", "We recommend you to use a symmetric and normalized Box action space")
        check_env_for_sb3(make(control=control, render_mode="ansi"), skip_render_check=False)


@pytest.mark.parametrize(
    ("kwargs", "error", "hint"),
    [
        ({"engine": "sumoo"}, UsageError, "engine 'sumoo' is unknown; did you mean 'sumo'?"),
        ({"control": "brakes"}, UsageError, "control 'brakes' is unknown; did you mean 'brake'?"),
        ({"reward": {"jrk": 0.0}}, UsageError, "reward constant 'jrk' is unknown; did you mean 'jerk'?"),
        ({"reward": {"jerk": "much"}}, UsageError, "reward constant 'jerk' is 'much'; give a finite number"),
        ({"reward": {"jerk": -1.0}}, UsageError, "reward constant 'jerk' is -1.0; give a finite number"),
        ({"reward": {"jerk_mps3": 0.0}}, UsageError, "reward constant 'jerk_mps3' is 0; it divides, give a number"),
        ({"reward": 5}, UsageError, "reward is 5; give a dict of constants by name."),
        ({"engine": None, "split": 3}, UsageError, "split is 3; give a string."),
        ({"max_peers": "4", "horizon_steps": 4.5}, UsageError, "max_peers is '4'; give a whole number."),
        ({"radio": 5}, UsageError, "radio is 5; give a string, a path or a list of strings."),
        ({"reward": {"jerk": True}}, UsageError, "reward constant 'jerk' is True; give a finite number"),
        ({"scenario_list": "curve"}, UsageError, "scenario_list is 'curve'; give a list of strings."),
        ({"max_peers": 10**12}, UsageError, "max_peers is 1000000000000; it must lie between 1 and 2000."),
        ({"reward": {"jerk": float("nan")}}, UsageError, "reward constant 'jerk' is nan; give a finite number"),
        ({"split": "trian"}, UsageError, "split 'trian' is unknown; did you mean 'train'?"),
        (
            {"scenario_list": ["curv"]},
            UsageError,
            "scenario_list names 'curv', which is unknown; did you mean 'curve'?",
        ),
        ({"scenario_list": []}, UsageError, "there is no scenario to play"),
        ({"radio": []}, UsageError, "radio is an empty list; name one radio or more."),
        ({"radio": ""}, UsageError, "radio '' is unknown; known are:"),
        ({"radio": "convy"}, UsageError, "did you mean 'convoy'?"),
        ({"scenario": "nowhere"}, ScenarioError, "nowhere: no such scenario directory; give one, or a .sumocfg file."),
        ({"scenario": "nowhere", "scenario_list": ["curve"]}, UsageError, "excludes dataset_dir= and scenario_list="),
        ({"dataset_dir": "nowhere"}, ScenarioError, "manifest.json: no such file"),
        ({"max_peers": 3}, UsageError, "straight: has 4 peers, but max_peers is 3; raise max_peers."),
        ({"messages_per_peer": 0}, UsageError, "messages_per_peer is 0; it must lie between 1 and"),
        ({"horizon_steps": 0}, UsageError, "horizon_steps is 0; it must lie between 1 and"),
    ],
)
def test_an_argument_that_does_not_exist_is_refused_at_once(make, kwargs, error, hint):
    with pytest.raises(error) as refused:
        make(**kwargs)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_integers_of_numpy_are_integers(make):
    env = make(max_peers=np.int64(5), messages_per_peer=np.int32(2), horizon_steps=np.uint8(7))
    assert env.observation_space["peers"].shape == (10, 8)
    env.reset(seed=1)


def test_an_unknown_render_mode_is_refused():
    with pytest.raises(UsageError, match="render_mode 'rgb' is unknown; known are: ansi, human, rgb_array"):
        ConvoyEnv(render_mode="rgb")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"scenario": "curve"}, "reset option 'scenario' is unknown; did you mean 'scenario_id'?"),
        ({"scenario_id": "strait"}, "scenario_id 'strait' is unknown; did you mean 'straight'?"),
        ({"scenario_id": 7}, "scenario_id is 7; give a string."),
        ({"scenario_id": ["curve"]}, "scenario_id is ['curve']; give a string."),
        ({"episode": 5}, "episode is 5; give a dict of ranges by dotted keys."),
        ({"episode": {5: 1}}, "episode is {5: 1}; give a dict of ranges by dotted keys."),
        ({"episode": {"driver.inattention_s": (1, 1e300)}}, "driver.inattention_s.1 is 1e+300, input should be less"),
        ({"episode": {"hazard.onset_s": (1, 1e300)}}, "hazard.onset_s.1 is 1e+300, input should be less than"),
        ({"episode": {"hazard.rnk": (1, 1)}}, "there is no 'hazard.rnk'; did you mean 'hazard.rank'?"),
        ({"episode": {"hazrd.rank": (1, 1)}}, "there is no 'hazrd.rank'; did you mean 'hazard.rank'?"),
        ({"episode": {"hazard.rank": (2, 1)}}, "rank: the lower end 2 is above the upper end 1"),
    ],
)
def test_a_reset_option_that_does_not_exist_is_refused_and_the_environment_goes_on(make, options, hint):
    env = make()
    expected = bits(env, seed=3, steps=5)
    with pytest.raises(RoadsenseError) as refused:
        env.reset(seed=3, options=options)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert bits(env, seed=3, steps=5) == expected


def test_nan_is_refused_and_values_outside_are_clipped(make):
    env = make().unwrapped
    env.reset(seed=1)
    with pytest.raises(ValueError, match="an action is NaN"):
        env.step(np.array([np.nan], np.float32))
    assert env.step([7.0])[0]["ego"][2] == 1.0
    assert env.step([-7.0])[0]["ego"][2] == 0.0


def test_info_has_the_same_keys_and_types_at_every_step(make):
    env = make(max_peers=5)
    stated = {"hazard.share": 1.0, "hazard.rank": (1, 1), "hazard.onset_s": (1.0, 1.0), "hazard.release_share": 0.0,
              "driver.inattentive_share": 1.0}  # fmt: skip
    infos = [env.reset(seed=1, options={"episode": stated})[1]]
    ended = False
    while not ended:
        *_, terminated, truncated, info = env.step(ZERO)
        infos.append(info)
        ended = terminated or truncated
    floats = {"gap_m", "closing_speed_mps", "required_decel_mps2"}
    integers = {"hazard_phase", "hazard_rank", "end_reason"}
    beacons = {"beacons_received", "beacons_lost"}
    for info in infos:
        assert info.keys() == floats | integers | beacons | {"reward_terms"}
        assert all(isinstance(info[name], np.float64) for name in floats)
        assert all(isinstance(info[name], np.int64) for name in integers)
        assert all(info[name].shape == (5,) and info[name].dtype == np.int64 for name in beacons)
        assert tuple(info["reward_terms"]) == REWARD_TERMS
        assert all(isinstance(term, float) for term in info["reward_terms"].values())
    assert [info["end_reason"] for info in infos] == [0] * (len(infos) - 1) + [1]
    assert {info["hazard_phase"] for info in infos} == {0, 1}


def test_what_a_step_returned_is_not_rewritten_by_the_next(make):
    env = make()
    observation, info = env.reset(seed=4)
    kept = {name: part.copy() for name, part in {**observation, "received": info["beacons_received"]}.items()}
    for _ in range(10):
        env.step(ZERO)
    assert all(np.array_equal(part, kept[name]) for name, part in observation.items())
    assert np.array_equal(info["beacons_received"], kept["received"])


def test_an_environment_is_remade_from_the_json_of_its_spec(make):
    kwargs = {"max_peers": 6, "messages_per_peer": 2, "horizon_steps": 90, "control": "acceleration",
              "reward": {"jerk": 0.1}, "scenario_list": ["curve"], "radio": "drive"}  # fmt: skip
    env = make(**kwargs)
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert json.loads(env.spec.to_json())["kwargs"] == kwargs
    again = gym.make(spec)
    try:
        assert bits(again, seed=2) == bits(env, seed=2)
    finally:
        again.close()


DRAWS = (
    "seed", "hazard_kind", "hazard_rank", "hazard_decel_mps2", "onset_step", "over_step", "reaction_steps",
    "inattentive_from", "attentive_from",
)  # fmt: skip


def test_naming_another_scenario_shifts_no_other_draw(make):
    """The built-in scenarios state the same ranges, so the whole draw of an episode is equal over all of them."""
    env = make()
    worlds = env.unwrapped.worlds

    def played(**options):
        observation, _ = env.reset(seed=8, options=options or None)
        draws = [worlds.records[0][name].item() for name in DRAWS]
        lost = [env.step(ZERO)[4]["beacons_lost"].tolist() for _ in range(10)]
        env.reset()
        following = (worlds.scenarios[0].scenario_id, worlds.records[0]["seed"].item())
        return draws, lost, following, observation["peers"].tobytes()

    drawn = played()
    named = {name: played(scenario_id=name) for name in ("straight", "curve", "arterial")}
    assert all(one[0] == drawn[0] for one in named.values())
    assert all(one[2] == drawn[2] for one in named.values())
    assert len({one[3] for one in named.values()}) == 3  # other roads indeed
    assert drawn[1] in [one[1] for one in named.values()]


def test_overriding_one_range_moves_no_other_draw(make):
    env = make()
    record = env.unwrapped.worlds.records[0]
    env.reset(seed=8)
    plain = {name: record[name].item() for name in DRAWS}
    env.reset(seed=8, options={"episode": {"hazard.decel_mps2": (8.0, 8.0)}})
    changed = {name: record[name].item() for name in DRAWS}
    assert changed.pop("hazard_decel_mps2") == 8.0 != plain.pop("hazard_decel_mps2")
    assert changed == plain


def test_seeds_reproduce_and_differ_and_episodes_of_a_seed_follow_each_other(make):
    env = make(scenario_list=["straight"])
    first = [bits(env, seed=1), bits(env), bits(env)]
    assert len(set(first)) == 3
    assert [bits(env, seed=1), bits(env), bits(env)] == first
    assert bits(env, seed=2) not in first


def test_without_a_seed_every_environment_draws_its_own(make):
    assert bits(make(scenario_list=["straight"]), steps=20) != bits(make(scenario_list=["straight"]), steps=20)


def test_two_environments_side_by_side_change_nothing_in_each_other(make):
    first = make(scenario_list=["curve"])
    alone = [bits(first, seed=1), bits(first, seed=2)]
    second = make(scenario_list=["curve"])
    seen = {}
    for env, seed in ((first, 1), (second, 2)):
        seen[seed] = [part.tobytes() for part in env.reset(seed=seed)[0].values()]
    for _ in range(80):
        for env, seed in ((first, 1), (second, 2)):
            observation, reward, *_ = env.step(ZERO)
            seen[seed] += [part.tobytes() for part in observation.values()] + [np.float64(reward).tobytes()]
    assert [b"".join(seen[1]), b"".join(seen[2])] == alone


def test_a_plain_script_without_a_main_guard_steps_many_worlds():
    script = (
        "import gymnasium as gym, numpy as np, roadsense\n"
        "envs = gym.make_vec('Convoy-v0', num_envs=2)\n"
        "first, _ = envs.reset(seed=3)\n"
        "env = gym.make('Convoy-v0')\n"
        "alone, _ = env.reset(seed=4)\n"
        "assert np.array_equal(first['peers'][1], alone['peers'])\n"
        "envs.step(np.zeros((2, 1), np.float32))\n"
        "print('fine')\n"  # and nobody closes anything
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "fine"), run.stderr
    assert run.stderr == ""


def test_ansi_renders_a_line_of_the_truth(make):
    env = make(render_mode="ansi", scenario_list=["straight"])
    env.reset(seed=1)
    env.step([1.0])
    state = env.unwrapped.worlds.traffic.state
    line = env.render()
    assert line.startswith(f"t=  0.1 s  v={state.speed_mps[0, 0]:5.2f} m/s")
    assert "action= 1.00  hazard=none yet" in line
    assert "\n" not in line


def test_a_closed_environment_refuses_to_step_and_a_reset_opens_it_again(make):
    """Stepping on would move the simulation of whichever environment owns libsumo by then."""
    closed = make()
    expected = [bits(closed, seed=1, steps=20), bits(closed, steps=20)]
    bits(closed, seed=1, steps=20)
    closed.close()
    closed.close()
    other = make()
    bits(other, seed=2, steps=5)
    positions = other.unwrapped.worlds.traffic.state.position_m.copy()
    with pytest.raises(TrafficError, match="closed"):
        closed.step(ZERO)
    assert bits(closed, steps=20) == expected[1]
    other.step(ZERO)
    moved = other.unwrapped.worlds.traffic.state.position_m - positions
    assert ((moved[0, :5] > 1.0) & (moved[0, :5] < 3.0)).all()


def test_of_several_radios_every_episode_draws_one_and_plays_as_with_that_one_alone():
    envs = [ConvoyEnv(scenario_list=["straight"], engine="native", radio=radio)
            for radio in (["off", "ideal"], "off", "ideal")]  # fmt: skip
    drawn = []
    try:
        for episode in range(12):
            mixed, *alone = [env.reset(seed=3 if episode == 0 else None)[0] for env in envs]
            drawn.append(int(mixed["peer_mask"].any()))
            for name, value in alone[drawn[-1]].items():
                assert np.array_equal(mixed[name], value)
    finally:
        for env in envs:
            env.close()
    assert 2 <= sum(drawn) <= 10
