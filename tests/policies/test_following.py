"""Policies that drive alone: single decisions by hand, and how they drive where nothing happens."""

import numpy as np
import pytest

from roadsense.convoy.world import EndReason
from roadsense.policies.baselines import make_baseline
from tests.policies.scenes import CALM, accels, heard, measured, traces


def behind(gap_m, *, speed=20.0, relative=0.0, lead_accel=0.0, accel=0.0):
    return heard(speed, (gap_m + 5.0, relative, lead_accel), accel_mps2=accel)


def test_cacc_by_its_three_modes():
    # 6 m and one second at 20 m/s: 26 m is right
    assert accels("cacc", behind(26.1)) == pytest.approx([4.5 * 0.1], abs=1e-4)
    assert accels("cacc", behind(26.1, relative=-2.0)) == pytest.approx([0.45 + 0.125 * -2.0], abs=1e-4)
    assert accels("cacc", behind(36.0, relative=-2.0)) == pytest.approx([0.05 * 10.0 + 0.5 * -2.0], abs=1e-4)
    assert accels("cacc", behind(25.0)) == pytest.approx([-4.5], abs=1e-4)
    assert accels("cacc", behind(25.0, relative=1.0, accel=-2.0)) == pytest.approx([-4.5 + 0.5 * (1.0 - 2.0)], abs=1e-4)


def test_ploeg_by_its_differential_equation():
    # 8 m and half a second at 20 m/s: 18 m is right
    seen = behind(20.0, relative=1.0, lead_accel=-1.0, accel=0.4)
    wanted = 0.2 * 2.0 + 0.7 * (1.0 - 0.5 * 0.4) - 1.0
    first = 0.2 * wanted  # 0.1 s of the 0.5 s it takes
    assert accels("ploeg", seen, seen) == pytest.approx([first, first + 0.2 * (wanted - first)], abs=1e-4)
    assert accels("ploeg", behind(18.0), behind(18.0)) == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("name", ["cacc", "ploeg"])
def test_behind_nobody_the_speed_is_kept(name):
    assert accels(name, heard(20.0), heard(20.0, (-10.0, 0.0, -5.0))) == [0.0, 0.0]
    assert accels(name, *[behind(300.0, speed=29.5)] * 20)[-1] == pytest.approx(0.4 * 0.5, abs=1e-4)  # 30 m/s at most


def test_a_leader_that_falls_silent_is_followed_on():
    braking, another = (26.0 + 5.0, -2.0, -3.0), (26.0 + 5.0 + 35.0, 0.0, 0.0)
    both, one = heard(20.0, another, braking), heard(20.0, another)
    found = accels("cacc", both, *[one] * 32)
    # a step later: 25.8 m behind a car at 17.7 m/s; then 25.57 m at 17.4 m/s
    assert found[1] == pytest.approx(4.5 * -0.2 + 0.5 * -2.3, abs=1e-4)
    assert found[2] == pytest.approx(4.5 * -0.43 + 0.5 * -2.6, abs=1e-4)
    assert found[30] == pytest.approx(-8.0)
    assert found[31] == found[32] == pytest.approx(0.05 * 35.0, abs=1e-3)  # after 3 s the other one is the leader
    assert accels("cacc", both, *[heard(20.0)] * 31)[-2:] == [pytest.approx(-8.0), 0.0]
    # whoever comes to drive between is the leader at once
    assert accels("cacc", one, both)[1] == pytest.approx(0.5 * -2.0, abs=1e-4)


def test_worlds_and_episodes_are_remembered_apart():
    policy = make_baseline("ploeg")
    policy.reset(np.ones(2, np.bool_), np.zeros(2, np.uint64))
    seen = [np.concatenate(pair) for pair in zip(behind(20.0), behind(16.0), strict=True)]
    first = policy.act_many(type(behind(20.0))(*seen), None)
    policy.reset(np.array([True, False]), np.zeros(2, np.uint64))
    again = policy.act_many(type(behind(20.0))(*seen), None)
    assert again[0] == first[0] > 0.0 > first[1] > again[1]


@pytest.mark.parametrize(("name", "low_s", "high_s"), [("cacc", 1.3, 1.7), ("ploeg", 0.8, 1.2), ("idm", 1.2, 1.5)])
def test_in_calm_traffic_they_follow_at_their_time_gap(name, low_s, high_s):
    """At 20 m/s: the headway of 1.0, 0.5 and 1.0 s, and what the gap at a standstill adds."""
    for trace in traces(make_baseline(name), 60, CALM):
        assert (trace.end_reason, trace.num_steps) == (EndReason.HORIZON, 400)
    assert low_s < np.mean([episode.mean_time_gap_s for episode in measured(make_baseline(name), 60, CALM)]) < high_s


def test_losses_in_bursts_do_not_let_the_leader_vanish():
    """Followed only while they are heard, leaders that fall silent would cost nearly half of these a collision."""
    ends = [trace.end_reason for trace in traces(make_baseline("ploeg"), 100, CALM, radio="lossy:0.3,4.6")]
    assert ends.count(EndReason.COLLISION) < 15
