"""The laws that never break, each as a test that fails when the law is broken."""

import itertools
import json
import shutil
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import roadsense  # noqa: F401
from roadsense._data import params_dir, scenarios_dir
from roadsense.convoy.player import Player
from roadsense.convoy.source import BUILT_IN
from roadsense.convoy.world import EndReason
from roadsense.errors import InputMismatchError, UsageError
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import play
from roadsense.policies.baselines import make_baseline
from roadsense.statistics import clopper_pearson
from roadsense.traffic.base import EGO, STEP_S

from ..datasets.by_hand import dataset_of

pytestmark = pytest.mark.usefixtures("require_sumo")

ZERO = np.zeros(1, np.float32)


@pytest.fixture
def make():
    """Makes environments and closes them all."""
    opened = []

    def build(**kwargs):
        opened.append(gym.make("Convoy-v0", disable_env_checker=True, **kwargs))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def rollout(env, seed, steps=120, options=None, action=ZERO):
    """Observations, rewards and true positions of an episode's first steps."""
    observation, _ = env.reset(seed=seed, options=options)
    seen, rewards, positions = [observation], [], [env.unwrapped.worlds.traffic.state.position_m[0].copy()]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        positions.append(env.unwrapped.worlds.traffic.state.position_m[0].copy())
        if terminated or truncated:
            break
    return seen, np.array(rewards), np.array(positions)


def flat(observations):
    return np.concatenate([np.concatenate([part.ravel() for part in one.values()]) for one in observations])


@pytest.mark.parametrize("name", BUILT_IN)
def test_law_1_everyone_is_on_the_road_at_0_as_stated(make, name):
    env = make(scenario_list=[name])
    for seed in range(3):
        env.reset(seed=seed)
        scenario, state = env.unwrapped.worlds.scenarios[0], env.unwrapped.worlds.traffic.state
        cars = scenario.vehicles
        assert state.alive[0].sum() == len(cars)
        assert np.array_equal(state.speed_mps[0, : len(cars)], [car.depart_speed_mps for car in cars])
        assert np.array_equal(state.position_m[0, : len(cars)], [car.depart_pos_m for car in cars])
        assert (state.accel_mps2[0] == 0.0).all()
        env.step(ZERO)  # a state left by an episode must not leak into the next


def test_law_2_rows_are_shuffled_anew_and_capacity_means_nothing(make):
    small, _, _ = rollout(make(max_peers=4, radio="ideal"), seed=3, steps=60)
    large, _, _ = rollout(make(max_peers=16, radio="ideal"), seed=3, steps=60)
    orders = set()
    for a, b in zip(small, large, strict=True):
        assert b["peer_mask"].tolist() == [1] * 4 + [0] * 12  # everybody: nobody is cut off
        assert np.array_equal(np.sort(a["peers"], axis=0), np.sort(b["peers"][:4], axis=0))
        assert np.array_equal(a["ego"], b["ego"])
        orders.add(tuple(np.argsort(b["peers"][:4, 0])))
    assert len(orders) > 10  # of the 24 orders of four peers


def test_law_2_every_episode_shuffles_in_its_own_way(make):
    """Under the ideal radio nothing but the order of rows tells episodes of one speed apart."""
    env = make(radio="ideal", scenario_list=["straight"])
    orders = set()
    for seed in range(6):
        seen, _, _ = rollout(env, seed, steps=5)
        assert all(one["peer_mask"].sum() == 4 for one in seen)
        orders.add(tuple(tuple(np.argsort(one["peers"][:4, 0]).tolist()) for one in seen))
    assert len(orders) == 6


def test_law_2_a_row_that_falls_empty_holds_zeros(make):
    seen, _, _ = rollout(make(radio="drive"), seed=3, steps=200, action=np.full(1, 0.3, np.float32))
    counts = []
    for one in seen:
        used = one["peer_mask"] == 1
        counts.append(int(used.sum()))
        assert not one["peers"][~used].any()
        assert one["peers"][used].any(axis=1).all()
    assert any(later < now for now, later in itertools.pairwise(counts))


@pytest.mark.parametrize("name", BUILT_IN)
def test_law_3_the_world_does_not_brake_for_the_policy(name):
    """Nobody assists and the driver never looks: rank 1 braking to a stop ends in a collision, n >= 200 a road."""
    to_a_stop = {"hazard.share": 1.0, "hazard.rank": (1, 1), "hazard.release_share": 0.0}
    never_looks = {"driver.inattentive_share": 1.0, "driver.inattention_s": None}
    never, drawn = unassisted(name, 200, {**to_a_stop, **never_looks}), unassisted(name, 200, to_a_stop)
    for who, collisions in (("who never looks", never), ("with the drawn inattention", drawn)):
        low, high = clopper_pearson(collisions, 200)
        print(f"{name}, driver {who}: {collisions}/200 collisions, 95 % interval [{low:.3f}, {high:.3f}]")
    assert never >= 190
    assert drawn < never  # drivers who look do brake


def unassisted(name, episodes, stated):
    """Collisions of as many rank-1 hazards that nobody assists in, with these ranges over the scenario's own."""
    player = Player(1, scenario_list=[name])
    try:
        measured = [measure(trace) for trace in play(make_baseline("none"), player, episodes, changes=stated)]
    finally:
        player.close()
    assert all(episode.hazard_happened and episode.hazard_rank == 1 for episode in measured)
    return sum(episode.collision for episode in measured)


@pytest.mark.parametrize("length_m", [0.5, 1.6, 2.2])
def test_law_3_a_leader_too_short_for_a_step_is_not_driven_through(make, tmp_path, length_m):
    """At 20 m/s a step is 2 m: the front bumper passes a bicycle between two looks."""
    folder = shutil.copytree(scenarios_dir() / "base" / "straight", tmp_path / "short")
    file = folder / "vehicles.rou.xml"
    file.write_text(file.read_text().replace('id="peer" carFollowModel="Krauss" length="5"',
                                             f'id="peer" carFollowModel="Krauss" length="{length_m}"'))  # fmt: skip
    env = make(scenario=str(folder))
    stated = {"hazard.share": 1.0, "hazard.rank": (1, 1), "hazard.release_share": 0.0, "driver.inattentive_share": 1.0}
    for seed in range(25):
        env.reset(seed=seed, options={"episode": stated})
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step(ZERO)
        assert (terminated, info["end_reason"]) == (True, EndReason.COLLISION), seed


def test_law_4_the_radio_changes_what_is_seen_and_nothing_that_is_scored(make):
    """Neither its losses (off) nor its noise (ideal has none) reach rewards, ends or the traffic."""
    heard, reward_heard, truth_heard = rollout(make(radio="convoy"), seed=11, steps=300)
    silent, reward_silent, truth_silent = rollout(make(radio="off"), seed=11, steps=300)
    exact, reward_exact, truth_exact = rollout(make(radio="ideal"), seed=11, steps=300)
    assert np.array_equal(truth_heard, truth_silent) and np.array_equal(truth_heard, truth_exact)
    assert np.array_equal(reward_heard, reward_silent) and np.array_equal(reward_heard, reward_exact)
    assert sum(int(one["peer_mask"].sum()) for one in silent) == 0
    assert sum(int(one["peer_mask"].sum()) for one in heard) > 300
    assert not np.array_equal(flat(heard), flat(exact))


def test_law_4_nothing_that_is_seen_is_the_truth(make):
    """Every measured number differs from the true one nearly always; under the ideal radio the ego's own agree."""
    for radio, at_most in (("convoy", 0.02), ("ideal", 1.0)):
        env = make(radio=radio, scenario_list=["curve"])
        env.reset(seed=3)
        state = env.unwrapped.worlds.traffic.state
        agree = []
        for _ in range(60):
            observation, *_ = env.step(ZERO)
            used = observation["peer_mask"] == 1
            heading = state.heading_rad[0] - state.heading_rad[0, EGO]
            truths = (state.speed_mps[0] - state.speed_mps[0, EGO], np.sin(heading), state.accel_mps2[0])
            columns = zip((2, 3, 5), (20.0, 1.0, 9.0), truths, strict=True)
            own = [observation["ego"][0] * 30.0 - state.speed_mps[0, EGO],
                   observation["ego"][1] * 9.0 - state.accel_mps2[0, EGO]]  # fmt: skip
            agree.append([abs(error) < 1e-5 for error in own])
            for column, scale, true in columns:
                told = observation["peers"][used, column] * scale
                agree[-1].append(radio == "ideal" or any(np.abs(value - true[1:]).min() < 1e-5 for value in told))
            away_m = np.hypot(state.x_m[0] - state.x_m[0, EGO], state.y_m[0] - state.y_m[0, EGO])
            told_m = 100.0 * np.hypot(observation["peers"][used, 0], observation["peers"][used, 1])
            agree[-1].append(radio == "ideal" or any(np.abs(value - away_m[1:]).min() < 1e-4 for value in told_m))
        assert (np.mean(agree, axis=0) <= at_most).all()
        assert radio == "convoy" or np.all(agree)


def test_law_5_nothing_is_known_before_it_arrived(make):
    """Under the ideal radio a peer's row at t shows its state one tick earlier, carried on, never its present one."""
    env = make(radio="ideal", scenario_list=["straight"])
    stated = {"hazard.share": 1.0, "hazard.rank": (1, 1), "hazard.decel_mps2": (9.0, 9.0), "hazard.onset_s": (5.0, 5.0)}
    options = {"episode": stated}
    env.reset(seed=1, options=options)
    worlds = env.unwrapped.worlds
    for _ in range(56):
        before = worlds.traffic.state.accel_mps2[0].copy()
        observation, *_ = env.step(ZERO)
        used = observation["peer_mask"] == 1
        reported = np.sort(observation["peers"][used, 5] * 9.0)
        alive = worlds.traffic.state.alive[0]
        assert np.allclose(reported, np.sort(before[1:][alive[1:]]), atol=1e-5)
    assert (before < -2.0).any()


def test_law_5_a_message_is_in_the_table_from_its_arrival_on(make):
    """Every message takes 150 ms and more: none is known sooner, and none much later than at the next tick."""
    env = make(radio="delayed:150", scenario_list=["straight"])
    env.reset(seed=1)
    worlds, latest = env.unwrapped.worlds, 0.0
    for step in range(1, 60):
        env.step(ZERO)
        radio, now_s = worlds.emulator.state, step * 0.1
        known = radio.message_count[0] > 0
        arrival_s, sent_s = radio.message_arrival_s[0, known, 0], radio.message_sent_s[0, known, 0]
        assert known.sum() >= 2
        assert (arrival_s <= now_s).all() and (arrival_s >= sent_s + 0.15).all()
        latest = max(latest, float((arrival_s - (now_s - 0.1)).max()))
    assert latest > 0.0  # some arrived within the last step


@pytest.mark.parametrize("names", [None, ["curve"]], ids=["drawn", "dawdling"])
def test_law_6_same_seed_same_bits_alone_again_and_elsewhere(make, names):
    env = make(scenario_list=names)
    first, reward_first, truth_first = rollout(env, seed=5)
    rollout(env, seed=99, steps=40)
    again, reward_again, truth_again = rollout(env, seed=5)
    elsewhere, _, truth_elsewhere = rollout(make(scenario_list=names), seed=5)  # a second one lives in a worker process
    assert np.array_equal(flat(first), flat(again))
    assert np.array_equal(flat(first), flat(elsewhere))
    assert np.array_equal(reward_first, reward_again)
    assert np.array_equal(truth_first, truth_again)
    assert np.array_equal(truth_first, truth_elsewhere)
    other, _, _ = rollout(env, seed=6)
    assert not np.array_equal(flat(first)[: flat(other).size], flat(other)[: flat(first).size])


def test_law_6_another_process_gives_the_same_bits(make):
    script = (
        "import hashlib, gymnasium as gym, numpy as np, roadsense\n"
        "env = gym.make('Convoy-v0'); o, _ = env.reset(seed=5); h = hashlib.sha256()\n"
        "h.update(env.unwrapped.worlds.records.tobytes())\n"
        "for _ in range(60):\n"
        "    o, r, *_ = env.step(np.zeros(1, np.float32)); h.update(o['peers'].tobytes() + np.float64(r).tobytes())\n"
        "env.close(); print(h.hexdigest())\n"
    )
    run = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(2)]
    assert run[0].returncode == 0, run[0].stderr
    assert run[0].stdout == run[1].stdout


def test_law_6_world_i_of_a_batch_seeded_s_is_the_environment_seeded_s_plus_i(make):
    vector = gym.make_vec("Convoy-v0", num_envs=3)
    batch, _ = vector.reset(seed=40)
    seen = [[{name: part[i] for name, part in batch.items()}] for i in range(3)]
    for _ in range(50):
        batch, _, _, _, _ = vector.step(np.zeros((3, 1), np.float32))
        for i in range(3):
            seen[i].append({name: part[i] for name, part in batch.items()})
    vector.close()
    env = make()
    for i in range(3):
        alone, _, _ = rollout(env, seed=40 + i, steps=50)
        assert np.array_equal(flat(alone), flat(seen[i]))


def test_law_6_naming_a_scenario_shifts_no_draw(make):
    env = make()
    env.reset(seed=8)
    drawn = env.unwrapped.worlds.scenarios[0].scenario_id
    record = env.unwrapped.worlds.records[0].copy()
    env.reset(seed=8, options={"scenario_id": drawn})
    named = env.unwrapped.worlds.records[0]
    assert record == named


def test_law_6_different_seeds_differ_in_every_draw(make):
    env = make(scenario_list=["curve"])
    worlds, draws = env.unwrapped.worlds, []
    for seed in range(20):
        env.reset(seed=seed, options={"episode": {"driver.reaction_s": (0.2, 2.0), "hazard.share": 1.0}})
        record, radio = worlds.records[0], worlds.emulator.arrays
        for _ in range(3):
            env.step(ZERO)
        draws.append({
            "rank": record["hazard_rank"].item(), "decel": record["hazard_decel_mps2"].item(),
            "onset": record["onset_step"].item(), "over": record["over_step"].item(),
            "reaction": record["reaction_steps"].item(), "phase": radio.cars["beacon_phase_s"][0, 1].item(),
            "sensor": radio.cars["speed_mps"][0, EGO].item(), "gps": radio.cars["gps_error_x_m"][0, 2].item(),
            "traffic": worlds.traffic.state.position_m[0, 1].item(),
        })  # fmt: skip
    distinct = {name: len({draw[name] for draw in draws}) for name in draws[0]}
    assert distinct["rank"] == 4
    assert distinct["reaction"] > 8 and distinct["over"] > 5
    assert all(distinct[name] > 15 for name in ("decel", "onset", "phase", "sensor", "gps", "traffic")), distinct


def test_law_7_training_draws_scenarios_and_a_list_is_walked(make):
    drawing, walking = make(), make(scenario_list=["curve", "straight"])
    names = {"draw": [], "walk": []}
    drawing.reset(seed=1)
    walking.reset(seed=1)
    for _ in range(24):
        for key, env in (("draw", drawing), ("walk", walking)):
            names[key].append(env.unwrapped.worlds.scenarios[0].scenario_id)
            env.reset()
    assert names["walk"] == ["curve", "straight"] * 12
    assert set(names["draw"]) == set(BUILT_IN)
    assert names["draw"] != sorted(names["draw"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four scenarios to train on, three to select by, three to evaluate, and a radio that may be varied."""
    root = tmp_path_factory.mktemp("laws") / "d"
    params = json.loads((params_dir() / "espnow" / "convoy.json").read_text())
    params["randomisation"]["loss_scale"] = [0.5, 2.0]
    splits = {"train": ["t0", "t1", "t2", "t3"], "val": ["v1", "v0", "v2"], "eval": ["e2", "e0", "e1"]}
    return dataset_of(root, splits, params=params)


def played(env, episodes):
    """Names of the scenarios and the drawn loss tables of the first episodes."""
    names, losses = [], []
    env.reset(seed=1)
    for _ in range(episodes):
        names.append(env.unwrapped.worlds.scenarios[0].scenario_id)
        losses.append(env.unwrapped.worlds.emulator.tables[0].tobytes())
        env.reset()
    return names, losses


def test_law_7_only_training_draws_scenarios_and_varies_the_radio(make, dataset):
    names, losses = played(make(dataset_dir=dataset), 24)
    assert set(names) == {"t0", "t1", "t2", "t3"}
    assert names[:12] != names[12:] and names != sorted(names)
    assert len(set(losses)) == 24
    for split, listed in (("val", ["v1", "v0", "v2"]), ("eval", ["e2", "e0", "e1"])):
        names, losses = played(make(dataset_dir=dataset, split=split), 7)
        assert names == (listed * 3)[:7]
        assert len(set(losses)) == 1
    names, _ = played(make(split="eval"), 6)
    assert names == list(BUILT_IN) * 2
    with pytest.raises(UsageError, match="has no split 'vall'; did you mean 'val'"):
        make(dataset_dir=dataset, split="vall")


def test_law_7_the_built_in_set_varies_the_radio_in_training_alone(make):
    losses = {}
    for split in ("train", "val"):
        env = make(split=split).unwrapped
        losses[split] = []
        for seed in range(5):
            env.reset(seed=seed)
            losses[split].append(float(env.worlds.emulator.tables["loss_margin"][0, 1]))
    assert len(set(losses["train"])) == 5
    assert len(set(losses["val"])) == 1


def test_law_7_a_changed_byte_of_a_dataset_is_refused_by_name(make, dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "d")
    file = copy / "eval" / "e0" / "vehicles.rou.xml"
    file.write_bytes(file.read_bytes().replace(b"20", b"21", 1))
    with pytest.raises(InputMismatchError, match=r"eval/e0/vehicles\.rou\.xml: has changed"):
        make(dataset_dir=str(copy))


def test_law_8_a_step_is_a_tenth_of_a_second(make):
    env = make(scenario_list=["straight"])
    env.reset(seed=2)
    state = env.unwrapped.worlds.traffic.state
    for _ in range(20):
        before = state.position_m[0].copy()
        env.step(np.array([0.3], np.float32))
        moved = state.position_m[0] - before
        assert np.allclose(moved, state.speed_mps[0] * 0.1, atol=1e-9)
    assert STEP_S == 0.1


def test_end_reasons_and_contact_are_our_own(make):
    env = make(scenario_list=["straight"])
    stated = {"hazard.share": 1.0, "hazard.rank": (1, 1), "hazard.release_share": 0.0, "hazard.decel_mps2": (9.0, 9.0),
              "driver.inattentive_share": 1.0}  # fmt: skip
    env.reset(seed=4, options={"episode": stated})
    state, gaps_m = env.unwrapped.worlds.traffic.state, []
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(ZERO)
        ended = terminated or truncated
        gaps_m.append(info["gap_m"])
        ahead_m = state.position_m[0, 1:5] - state.length_m[0, 1:5]
        assert gaps_m[-1] == (ahead_m - state.position_m[0, EGO]).min()
    assert terminated
    assert info["end_reason"] == EndReason.COLLISION
    assert gaps_m[-1] <= 0.0 < min(gaps_m[:-1])  # at the first contact
    assert info["reward_terms"]["collision"] <= -100.0


def test_the_spec_survives_json(make):
    env = gym.make("roadsense/Convoy-v0", max_peers=5, reward={"jerk": 0.0})
    spec = json.loads(env.spec.to_json())
    assert spec["kwargs"] == {"max_peers": 5, "reward": {"jerk": 0.0}}
    env.close()
