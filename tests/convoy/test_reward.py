"""Each reward term by hand."""

import numpy as np
import pytest

from roadsense.convoy.reward import REWARD_TERMS, RewardConfig, reward_constants, score
from tests.convoy.worlds import one_record, traffic_of

CONSTANTS = reward_constants(RewardConfig())


def terms_of(record, traffic):
    terms = np.zeros(len(REWARD_TERMS))
    total = score(record[0], traffic, 0, CONSTANTS, terms)
    assert total == pytest.approx(terms.sum())
    return dict(zip(REWARD_TERMS, terms, strict=True))


def test_collision_costs_more_the_faster_and_is_bounded():
    slow = terms_of(one_record(gap_m=-0.1, closing_speed_mps=0.0, leader=1), traffic_of((0, 0, 0), (4, 0, 0)))
    fast = terms_of(one_record(gap_m=-0.1, closing_speed_mps=10.0, leader=1), traffic_of((0, 0, 0), (4, 0, 0)))
    worst = terms_of(one_record(gap_m=-0.1, closing_speed_mps=40.0, leader=1), traffic_of((0, 0, 0), (4, 0, 0)))
    assert (slow["collision"], fast["collision"], worst["collision"]) == (-100.0, -200.0, -300.0)


def test_unsafe_gap_counts_required_deceleration_and_nearness_while_moving():
    record = one_record(required_decel_mps2=5.0, gap_m=1.5, leader=1)
    assert terms_of(record, traffic_of((0, 10, 0), (6.5, 10, 0)))["unsafe_gap"] == pytest.approx(-0.025 - 0.1)
    assert terms_of(record, traffic_of((0, 0, 0), (6.5, 0, 0)))["unsafe_gap"] == 0.0


def test_unneeded_braking_is_free_up_to_the_need_and_cheaper_in_a_hazard():
    free = one_record(demand_mps2=3.0, needed_before_mps2=2.0)
    assert terms_of(free, traffic_of((0, 10, 0)))["unneeded_braking"] == 0.0
    calm = one_record(demand_mps2=8.0)
    assert terms_of(calm, traffic_of((0, 10, 0)))["unneeded_braking"] == pytest.approx(-0.2 * 7.5 / 8)
    hazard = one_record(demand_mps2=8.0, hazard_phase=1)
    assert terms_of(hazard, traffic_of((0, 10, 0)))["unneeded_braking"] == pytest.approx(-0.04 * 7.5 / 8)


def test_jerk_is_measured_on_the_car_not_on_the_request():
    record = one_record(previous_accel_mps2=0.0)
    assert terms_of(record, traffic_of((0, 10, -0.5)))["jerk"] == pytest.approx(-0.02 * 0.25)
    assert terms_of(record, traffic_of((0, 10, -5.0)))["jerk"] == pytest.approx(-0.02)


def test_dropping_back_costs_progress():
    record = one_record(gap_m=8 + 2.5 * 20 + 25, leader=1)
    assert terms_of(record, traffic_of((0, 20, 0), (88, 20, 0)))["missed_progress"] == pytest.approx(-0.0025)
