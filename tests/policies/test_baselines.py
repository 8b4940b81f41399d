"""Baselines by name: what all of them keep to, and what they are worth on equal episodes of the built-in set."""

import itertools

import numpy as np
import pytest

from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player
from roadsense.errors import UsageError
from roadsense.evaluation.rollout import play
from roadsense.policies.baselines import BASELINES, make_baseline
from tests.policies.scenes import measured


def test_random_draws_by_the_seed_of_the_episode_and_reads_no_truth():
    policy = make_baseline("random")
    seen, seeds = Observation.zeros(3, 4), np.array([7, 8, 7], np.uint64)
    policy.reset(np.ones(3, np.bool_), seeds)
    first = np.array([policy.act_many(seen, None) for _ in range(20)])
    assert np.array_equal(first[:, 0], first[:, 2]) and not np.array_equal(first[:, 0], first[:, 1])
    assert ((0.0 <= first) & (first <= 1.0)).all() and len(np.unique(first[:, 0])) == 20
    policy.reset(np.array([False, True, False]), seeds)
    assert np.array_equal(policy.act_many(seen, None)[1], first[0, 1])


def note_truth(policy):
    """What the policy is given as truth from now on, decision after decision."""
    act, given = policy.act_many, []

    def noted(seen, truth):
        given.append(truth)
        return act(seen, truth)

    policy.act_many = noted
    return given


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="policy 'v2v_ruel' is unknown; did you mean 'v2v_rule'"):
        make_baseline("v2v_ruel")


def test_only_who_says_so_is_given_the_truth():
    given = {}
    for name in BASELINES:
        policy = make_baseline(name)
        given[name] = note_truth(policy)
        player = Player(1, scenario_list=["straight"], engine="native", control=policy.control, horizon_steps=3)
        try:
            list(play(policy, player, 1))
        finally:
            player.close()
    assert all(given.values())
    assert {name for name, truths in given.items() if any(truth is not None for truth in truths)} == {
        "oracle", "idm", "ttc_aeb", "r157_human", "first_reception", "brake_at_onset",
    }  # fmt: skip


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
