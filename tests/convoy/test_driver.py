"""The driver by hand: car following, speed limits, emergency response, inattention."""

import math

import numpy as np
import pytest

from roadsense.convoy.driver import (
    EMERGENCY_DECEL_MPS2,
    PERCEPTION_AND_REACTION_S,
    desired_speed,
    driver_accel,
    idm,
    look,
)
from roadsense.convoy.truth import refresh_truth
from tests.convoy.worlds import one_record, straight_road, traffic_of, unseen


def test_idm_at_rest_on_a_free_road_accelerates_fully():
    assert idm(0.0, 25.0, math.inf, 0.0, 2.6, 1.0, 2.5) == 2.6


def test_idm_formula():
    v, dv, gap = 20.0, 5.0, 40.0
    wanted = 2.5 + v * 1.0 + v * dv / (2 * math.sqrt(2.6 * 4.5))
    expected = 2.6 * (1 - (v / 25.0) ** 4 - (wanted / gap) ** 2)
    assert idm(v, 25.0, gap, dv, 2.6, 1.0, 2.5) == pytest.approx(expected)


def test_passing_a_lower_limit_is_no_emergency():
    assert idm(25.0, 13.9, math.inf, 0.0, 2.6, 1.0, 2.5) == pytest.approx(-2.0)


def test_desired_speed_eases_toward_a_lower_limit():
    road = straight_road(limits=((0.0, 25.0), (500.0, 10.0)))
    assert desired_speed(road, 0, 100.0, 1.0) == 25.0
    assert desired_speed(road, 0, 450.0, 1.0) == pytest.approx(math.sqrt(100.0 + 2 * 2.0 * 50.0))
    assert desired_speed(road, 0, 600.0, 1.0) == 10.0


def drive(record, traffic, steps):
    """Driver's wishes over steps in which nothing moves, which is enough to see delays."""
    wishes = []
    for _ in range(steps):
        refresh_truth(record[0], traffic, 0, *unseen(traffic))
        look(record[0], traffic, 0)
        wishes.append(driver_accel(record[0], traffic, straight_road(), 0))
        record["step"] += 1
    return wishes


def test_he_answers_one_reaction_time_late():
    record = one_record(reaction_steps=8)
    far, near = traffic_of((0, 20, 0), (100, 20, 0)), traffic_of((0, 20, 0), (35, 20, 0))
    drive(record, far, 10)
    wishes = drive(record, near, 10)
    assert len(set(wishes[:8])) == 1
    assert wishes[8] < wishes[7]


def test_emergency_response_comes_after_perception_and_reaction_with_limited_jerk():
    record = one_record(reaction_steps=0)
    wishes = np.array(drive(record, traffic_of((0, 20, 0), (400, 20, 0)), 1))
    # Closing at 20 m/s on a standing car 60 m away calls for 3.6 m/s²; his own following is put out of the way.
    record["driver_headway_s"], record["driver_min_gap_m"] = -100.0, 0.0
    traffic = traffic_of((0, 20, 0), (60, 0, -9))
    wishes = np.array(drive(record, traffic, 25))
    waits = round(PERCEPTION_AND_REACTION_S / 0.1)
    assert wishes[: waits - 1].min() > -2.1
    ramp = wishes[waits : waits + 4]
    assert np.allclose(np.diff(ramp), -1.265)
    assert wishes[-1] == pytest.approx(-EMERGENCY_DECEL_MPS2)


def test_inattentive_he_holds_the_pedal_and_then_reacts():
    record = one_record(reaction_steps=0, inattentive_from=0, attentive_from=5)
    wishes = drive(record, traffic_of((0, 20, 0), (20, 0, -9)), 8)
    assert wishes[:5] == [0.0] * 5
    assert wishes[5] < -5.0
