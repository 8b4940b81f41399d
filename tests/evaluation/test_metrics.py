import math

import numpy as np
import pytest

from roadsense.convoy.trace import hazard_happened
from roadsense.evaluation.metrics import calm, false_brakes, hazard_begins, measure, reaction
from roadsense.evaluation.surrogates import time_to_collision

from .traces import braking_hazard, pulse, trace


def test_time_to_collision_is_gap_over_closing_speed():
    found = time_to_collision(np.array([30.0, 30.0, 30.0, -1.0, -1.0]), np.array([10.0, 0.0, -5.0, 2.0, -2.0]))
    assert found.tolist() == [3.0, math.inf, math.inf, 0.0, 0.0]  # in contact there is no time left


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
    assert reaction(late) == (False, pytest.approx(0.4), pytest.approx(0.2))
    early = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (6, 20)))
    assert reaction(early) == (False, pytest.approx(0.1), pytest.approx(-0.1))
    before = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (0, 4)))
    assert no_reaction(before)  # braking before the onset is no reaction
    below = braking_hazard(onset=5, target_heard=heard, demand_mps2=pulse(20, (9, 20), level=0.39))
    assert no_reaction(below)  # the dead band ends at 0.05 · 8 m/s²
    unheard = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (9, 20))))
    assert unheard.from_onset_s == pytest.approx(0.4)
    assert math.isnan(unheard.from_reception_s)
    ended = braking_hazard(steps=4, onset=4, hazard_phase=np.zeros(5, int))
    assert no_reaction(ended)


def no_reaction(episode):
    answer = reaction(episode)
    return math.isnan(answer.from_onset_s) and math.isnan(answer.from_reception_s) and not answer.braking_at_onset


def test_braking_that_was_on_before_the_onset_is_no_reaction():
    always = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (0, 20))))
    assert always.braking_at_onset and math.isnan(always.from_onset_s)
    again = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (0, 7), (11, 20))))
    assert again[:2] == (True, pytest.approx(0.6))
    released = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (0, 5), (11, 20))))
    assert released[:2] == (False, pytest.approx(0.6))
    assert measure(braking_hazard(onset=5, demand_mps2=pulse(20, (0, 20)))).reacted is False


def test_a_flicker_is_no_reaction():
    flicker = [(step, step + 1) for step in range(6, 18, 2)]
    assert no_reaction(braking_hazard(onset=5, demand_mps2=pulse(20, *flicker, level=1.0)))
    held = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (6, 7), (10, 13), level=1.0)))
    assert held.from_onset_s == pytest.approx(0.5)
    strong = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (6, 7), level=1.5)))
    assert strong.from_onset_s == pytest.approx(0.1)
    cut_off = reaction(braking_hazard(onset=5, demand_mps2=pulse(20, (18, 20), level=1.0)))
    assert cut_off.from_onset_s == pytest.approx(1.3)


def test_a_brake_long_after_the_hazard_is_no_reaction_to_it():
    phase = np.array([0] * 6 + [1] * 5 + [2] * 10)
    over = {"onset": 5, "hazard_phase": phase, "over_step": 10, "attentive_from": 12}
    late = braking_hazard(**over, demand_mps2=pulse(20, (15, 18)))
    assert false_brakes(late)[0] == 1
    assert no_reaction(late) and not measure(late).reacted
    within = braking_hazard(**over, demand_mps2=pulse(20, (9, 18)))
    assert reaction(within).from_onset_s == pytest.approx(0.4)


def test_a_car_that_stands_far_ahead_calls_for_an_answer_once_the_truth_asks_for_braking():
    standing = {"hazard_kind": 2, "onset": 0, "required_decel_mps2": np.linspace(0.0, 2.0, 21)}  # 1 m/s² at step 10
    found = braking_hazard(**standing, demand_mps2=pulse(20, (3, 5), (12, 20)), target_heard=np.ones(21, bool))
    assert hazard_begins(found) == 10
    assert calm(found).tolist() == [True] * 10 + [False] * 10
    assert false_brakes(found) == (1, 10, 2)  # the first braking came before there was a need
    assert reaction(found) == (False, pytest.approx(0.2), pytest.approx(0.2))
    far = measure(braking_hazard(**{**standing, "required_decel_mps2": np.zeros(21)}))
    assert not far.hazard_called and far.calm_steps == 20


def test_the_calm_distance_is_what_was_driven_in_calm_steps():
    assert measure(braking_hazard(onset=5)).calm_distance_km == pytest.approx(5 * 0.002)


def test_a_car_that_runs_into_the_ego_is_counted_apart():
    found = measure(trace(end_reason=5, impact_speed_mps=4.0))
    assert (found.end_reason, found.collision, found.rear_contact, found.truncated) == (
        "rear_contact",
        False,
        True,
        False,
    )
    assert found.impact_speed_mps == 4.0 and found.valid


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
