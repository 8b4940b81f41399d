"""Baselines: single decisions by hand, and what they are worth on equal episodes of the built-in set."""

import itertools

import numpy as np
import pytest

from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation
from roadsense.convoy.player import Player
from roadsense.convoy.trace import TraceRecorder
from roadsense.errors import UsageError
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import play
from roadsense.policies.baselines import BASELINES, make_baseline

FIRST = np.ones(1, np.bool_)
SEED = np.array([5], np.uint64)


def heard(speed_mps, *peers, capacity=4):
    """An observation of one world; peers are (forward [m], relative speed [m/s], acceleration [m/s²])."""
    seen = Observation.zeros(1, capacity)
    seen.ego[0, 0] = speed_mps / EGO_FEATURES[0].scale
    for row, values in enumerate(peers):
        for column, value in zip((0, 2, 5), values, strict=True):
            seen.peers[0, row, column] = value / PEER_FEATURES[column].scale
        seen.peer_mask[0, row] = 1
    return seen


def demands(name, *observations):
    """Demand [m/s²] of a baseline for one observation after the other."""
    policy = make_baseline(name)
    policy.reset(FIRST, SEED)
    return [8.0 * policy.act(seen, None)[0] for seen in observations]


def test_the_rules_answer_hard_braking_that_a_peer_reports_from_their_threshold_on():
    for name, threshold in (("v2v_rule", 2.5), ("v2v_tuned", 3.2)):
        far = [heard(20.0, (90.0, 0.0, -threshold - excess)) for excess in (-0.1, 0.1)]
        assert demands(name, *far) == pytest.approx([0.0, threshold + 0.1], abs=1e-5)


def test_the_rules_brake_by_the_required_deceleration():
    # 20 m/s towards a standing car 62 m ahead: room 62 - 5 - 2 = 55 m, v²/(2·55) = 3.64 m/s²; tuned keeps 6 m
    standing = heard(20.0, (62.0, -20.0, 0.0))
    assert demands("v2v_rule", standing) == pytest.approx([400.0 / 110.0], rel=1e-5)
    assert demands("v2v_tuned", standing) == pytest.approx([400.0 / 102.0], rel=1e-5)
    # a car between takes 7.5 m of that room
    behind_another = heard(20.0, (62.0, -20.0, 0.0), (30.0, 0.0, 0.0))
    assert demands("v2v_rule", behind_another) == pytest.approx([400.0 / (2 * 47.5)], rel=1e-5)


def test_nobody_behind_is_braked_for():
    behind = heard(20.0, (-30.0, 0.0, -8.0), (-10.0, 5.0, -8.0))
    assert demands("v2v_rule", behind) == demands("v2v_tuned", behind) == [0.0]


def test_the_tuned_rule_holds_what_the_plain_one_lets_go():
    hard, calm, silence = heard(20.0, (60.0, 0.0, -8.0)), heard(20.0, (60.0, 0.0, 0.0)), heard(20.0)
    receding = heard(20.0, (60.0, 5.0, 0.0))
    standing, leaving = heard(0.5, (10.0, 0.4, 0.0)), heard(0.5, (10.0, 2.0, 0.0))
    assert demands("v2v_rule", hard, calm, silence) == pytest.approx([8.0, 0.0, 0.0])
    assert demands("v2v_tuned", hard, calm) == pytest.approx([8.0, 1.0])  # until the gap grows
    assert demands("v2v_tuned", hard, receding) == pytest.approx([8.0, 0.0])
    assert demands("v2v_tuned", hard, standing, leaving) == pytest.approx([8.0, 1.0, 0.0])  # until the other one goes
    assert demands("v2v_tuned", hard, silence, silence) == pytest.approx([8.0, 8.0, 8.0])  # everything went stale
    assert demands("v2v_tuned", silence, calm) == [0.0, 0.0]  # what never began is not held


def test_random_draws_by_the_seed_of_the_episode_and_reads_no_truth():
    policy = make_baseline("random")
    seen, seeds = Observation.zeros(3, 4), np.array([7, 8, 7], np.uint64)
    policy.reset(np.ones(3, np.bool_), seeds)
    first = np.array([policy.act(seen, None) for _ in range(20)])
    assert np.array_equal(first[:, 0], first[:, 2]) and not np.array_equal(first[:, 0], first[:, 1])
    assert ((0.0 <= first) & (first <= 1.0)).all() and len(np.unique(first[:, 0])) == 20
    policy.reset(np.array([False, True, False]), seeds)
    assert np.array_equal(policy.act(seen, None)[1], first[0, 1])


def note_truth(policy):
    """What the policy is given as truth from now on, decision after decision."""
    act, given = policy.act, []

    def noted(seen, truth):
        given.append(truth)
        return act(seen, truth)

    policy.act = noted
    return given


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="policy 'v2v_ruel' is unknown; did you mean 'v2v_rule'"):
        make_baseline("v2v_ruel")


@pytest.mark.usefixtures("require_sumo")
def test_only_who_says_so_is_given_the_truth():
    given = {}
    for name in BASELINES:
        policy = make_baseline(name)
        given[name] = note_truth(policy)
        player = Player(1, scenario_list=["straight"], control=policy.control, horizon_steps=3)
        try:
            list(play(policy, player, 1))
        finally:
            player.close()
    assert all(given.values())
    assert {name for name, truths in given.items() if any(truth is not None for truth in truths)} == {"oracle", "idm"}


def measured(policy, episodes, **kwargs):
    """Every episode of the built-in list as a policy drives it."""
    player = Player(1, split="val", max_peers=4, **kwargs)
    try:
        return [measure(trace) for trace in play(policy(player) if callable(policy) else policy, player, episodes)]
    finally:
        player.close()


@pytest.mark.usefixtures("require_sumo")
def test_the_reward_ranks_policies_as_a_safety_reviewer_would():
    """On equal episodes: perfect information > tuned rule > rule > no assistance, and rule > always braking."""
    names = ("oracle", "v2v_tuned", "v2v_rule", "always_brake", "none")
    returns = {
        name: np.array([episode.total_reward for episode in measured(make_baseline(name), 60)]) for name in names
    }
    for better, worse in (*itertools.pairwise(names[:4]), ("v2v_rule", "none")):
        ahead = returns[better] - returns[worse]
        half = 1.96 * ahead.std(ddof=1) / np.sqrt(len(ahead))
        print(f"{better} - {worse}: {ahead.mean():.2f} +- {half:.2f}, n = {len(ahead)}")
        assert ahead.mean() > half, (better, worse)


class BrakesWhenHeard:
    """Full braking from the first message on that tells of the hazard: no policy that only listens can be better."""

    name, control, privileged = "reactive bound", "brake", False

    def __init__(self, player):
        self._worlds, self._recorder, self._heard = player.worlds, TraceRecorder(player.worlds), False

    def reset(self, chosen, seeds):
        self._heard = False
        self._recorder.begin(chosen)

    def act(self, observation, truth):
        if self._worlds.records["step"][0] > 0:
            self._recorder.record(FIRST)
        self._heard = bool(self._recorder.trace(0).target_heard[-1])
        return np.array([float(self._heard)])


@pytest.mark.usefixtures("require_sumo")
@pytest.mark.parametrize(("radio", "at_most"), [("convoy", 0), ("lossy:0.3,4.6", 1)])
def test_braking_at_the_first_message_that_tells_avoids_nearly_every_collision(radio, at_most):
    """About 0.4 % are left in bursts: rank 1 with its first beacons lost."""
    hazards = [episode for episode in measured(BrakesWhenHeard, 120, radio=radio) if episode.hazard_happened]
    assert len(hazards) > 60
    assert sum(episode.collision for episode in hazards) <= at_most
    assert not any(episode.false_brakes for episode in hazards)
