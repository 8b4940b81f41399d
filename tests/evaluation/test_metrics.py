import math

import numpy as np
import pytest

from roadsense.convoy.trace import hazard_happened
from roadsense.evaluation.metrics import calm, false_brakes, measure, reaction_times_s, time_to_collision

from .traces import braking_hazard, pulse, trace


def test_time_to_collision_is_gap_over_closing_speed():
    found = time_to_collision(np.array([30.0, 30.0, 30.0, -1.0]), np.array([10.0, 0.0, -5.0, 2.0]))
    assert found.tolist() == [3.0, math.inf, math.inf, -0.5]


def test_every_rise_above_015_g_in_a_calm_step_is_a_false_brake():
    # 0.15 g is 1.4715 m/s²: a demand held for seven steps is one event, 1.4 m/s² none
    assert false_brakes(trace(demand_mps2=pulse(20, (3, 10), (15, 16)))) == (2, 20, 8)
    assert false_brakes(trace(demand_mps2=pulse(20, (3, 10), level=1.4))) == (0, 20, 0)
    assert false_brakes(trace(demand_mps2=pulse(20, (0, 20), level=1.48))) == (1, 20, 20)  # also from the first step


@pytest.mark.parametrize(
    ("changes", "quiet"),
    [
        ({"required_decel_mps2": np.full(21, 1.01)}, 0),
        ({"required_decel_mps2": np.full(21, 0.99)}, 20),
        ({"closing_speed_mps": np.full(21, 7.6)}, 0),  # 30 m / 7.6 m/s = 3.9 s
        ({"closing_speed_mps": np.full(21, 7.4)}, 20),  # 4.05 s
    ],
)
def test_a_step_with_a_need_is_not_calm(changes, quiet):
    found = trace(demand_mps2=pulse(20, (3, 10)), **changes)
    assert calm(found).sum() == quiet
    assert false_brakes(found)[0] == (1 if quiet else 0)


def test_an_active_hazard_is_not_calm_and_a_released_one_only_once_the_driver_looks():
    assert calm(braking_hazard(onset=5)).tolist() == [True] * 5 + [False] * 15
    phase = np.array([0] * 5 + [1] * 5 + [2] * 11)
    released = braking_hazard(onset=5, hazard_phase=phase, over_step=10)
    assert calm(released).tolist() == [True] * 5 + [False] * 15
    looking = braking_hazard(onset=5, hazard_phase=phase, over_step=10, attentive_from=14)
    assert calm(looking).tolist() == [True] * 5 + [False] * 9 + [True] * 6


def test_a_hazard_happened_only_if_its_target_braked():
    assert hazard_happened(braking_hazard())
    weak = braking_hazard()
    weak.accel_mps2[:, 1] *= 0.79  # 4.74 of 6 m/s²
    assert not hazard_happened(weak)
    assert not hazard_happened(trace())
    standing = braking_hazard(hazard_kind=2, onset=0, speed_mps=np.tile([20.0, 0.0], (21, 1)))
    assert hazard_happened(standing)
    standing.speed_mps[3, 1] = 0.1
    assert not hazard_happened(standing)


def test_reaction_counts_from_the_onset_and_from_the_first_beacon_that_tells():
    heard = np.arange(21) >= 7
    late = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (9, 20), level=0.4))
    assert reaction_times_s(late) == pytest.approx((0.4, 0.2))
    early = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (6, 20)))
    assert reaction_times_s(early) == pytest.approx((0.1, -0.1))
    before = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (0, 4)))
    assert all(math.isnan(value) for value in reaction_times_s(before))  # braking before the onset is no reaction
    below = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (9, 20), level=0.39))
    assert all(math.isnan(value) for value in reaction_times_s(below))  # the dead band ends at 0.05 · 8 m/s²
    unheard = reaction_times_s(braking_hazard(onset=5, demand_mps2=pulse(20, (9, 20))))
    assert unheard[0] == pytest.approx(0.4)
    assert math.isnan(unheard[1])
    ended = braking_hazard(steps=4, onset=4, hazard_phase=np.zeros(5, int))
    assert all(math.isnan(value) for value in reaction_times_s(ended))


def test_a_quiet_episode_by_hand():
    found = measure(trace())
    assert found.distance_km == pytest.approx(0.04)  # 2 s at 20 m/s
    assert found.total_reward == -10.0
    assert (found.end_reason, found.valid, found.collision, found.truncated) == ("horizon", True, False, True)
    assert found.mean_time_gap_s == pytest.approx(1.5)  # 30 m at 20 m/s
    assert found.delivery_ratio == 0.75
    assert found.age_p95_s == pytest.approx(0.1)
    assert found.min_ttc_s == math.inf
    assert math.isnan(found.impact_speed_mps)


def test_a_collision_by_hand():
    gap = np.linspace(10.0, 0.0, 21)
    closing = np.full(21, 5.0)
    found = measure(
        braking_hazard(end_reason=1, impact_speed_mps=7.5, gap_m=gap, closing_speed_mps=closing,
                       required_decel_mps2=np.linspace(0.0, 20.0, 21))
    )  # fmt: skip
    assert (found.end_reason, found.collision, found.truncated) == ("collision", True, False)
    assert found.impact_speed_mps == 7.5
    assert found.min_ttc_s == found.min_gap_m == 0.0
    assert found.max_required_decel_mps2 == 20.0


def test_peers_that_touch_make_an_episode_invalid():
    assert not measure(trace(end_reason=4)).valid


def test_jerk_is_the_change_of_acceleration_in_a_step():
    accel = np.zeros((21, 2))
    accel[10:, 0] = -3.0  # one change of 3 m/s² in 0.1 s
    assert measure(trace(accel_mps2=accel)).jerk_p95_mps3 == pytest.approx(np.percentile([0.0] * 19 + [30.0], 95))


def test_what_an_episode_cannot_show_is_nan():
    standing = trace(speed_mps=np.zeros((21, 2)), beacons_received=np.zeros(2, int), beacons_lost=np.zeros(2, int),
                     age_s=np.full((21, 2), np.nan))  # fmt: skip
    found = measure(standing)
    assert all(map(math.isnan, (found.mean_time_gap_s, found.delivery_ratio, found.age_p95_s)))
