"""Ground truth by hand."""

import math

import numpy as np
import pytest

from roadsense.convoy.truth import (
    find_follower,
    find_leader,
    peers_touch,
    refresh_truth,
    required_decel,
    required_decel_of_all,
    survey,
)
from tests.convoy.worlds import one_record, traffic_of, unseen


def surveyed(traffic):
    side, reach_m = unseen(traffic)
    return side, reach_m, survey(traffic, 0, side, reach_m)


def leader(traffic):
    return find_leader(0, *surveyed(traffic))


def follower(traffic):
    return find_follower(traffic, 0, surveyed(traffic)[0], traffic.alive.shape[1])


def needed(traffic):
    return required_decel_of_all(traffic, 0, *surveyed(traffic))


def touch(traffic):
    return peers_touch(traffic, 0, *surveyed(traffic))


@pytest.mark.parametrize(
    ("speed", "lead_speed", "lead_accel", "room", "expected"),
    [
        (20.0, 20.0, 0.0, 10.0, 0.0),  # nothing closes
        (20.0, 10.0, 0.0, 25.0, 100.0 / 50.0),  # Δv²/(2·room)
        (20.0, 20.0, -5.0, 10.0, 400.0 / (2 * (10.0 + 40.0))),  # both to a standstill
        (10.0, 0.0, -8.0, 5.0, 10.0),  # a standing car: v²/(2·room)
        (20.0, 25.0, -0.4, 10.0, 0.0),  # a lead that hardly slows does not brake to a stop
        (20.0, 10.0, 0.0, 0.0, 20.0),  # no room left: the cap
        (0.0, 0.0, -5.0, -1.0, 0.0),  # a standing car needs nothing
    ],
)
def test_required_decel(speed, lead_speed, lead_accel, room, expected):
    assert required_decel(speed, lead_speed, lead_accel, room) == pytest.approx(expected)


def test_leader_is_the_nearest_car_ahead_whatever_the_columns():
    traffic = traffic_of((0, 20, 0), (90, 20, 0), (30, 20, 0), (-10, 20, 0))
    assert leader(traffic) == 2
    assert follower(traffic) == 3
    traffic = traffic_of((0, 20, 0), (-5, 20, 0))
    assert leader(traffic) == -1


def test_a_car_off_the_route_is_no_leader():
    traffic = traffic_of((0, 20, 0), (30, 20, 0), (60, 20, 0))
    traffic.on_route[0, 1], traffic.leaves_m[0, 1] = False, -np.inf
    assert leader(traffic) == 2


def test_a_car_that_turns_off_is_in_the_way_until_its_tail_has_left():
    traffic = traffic_of((0, 20, 0), (30, 5, 0), (60, 20, 0))
    traffic.on_route[0, 1], traffic.leaves_m[0, 1] = False, 25.1
    assert leader(traffic) == 1
    assert needed(traffic) == pytest.approx(15.0**2 / (2 * 23.0))
    traffic.leaves_m[0, 1] = 25.0
    assert leader(traffic) == 2


def test_a_car_that_turns_off_runs_into_nobody_on_the_route():
    """A lorry behind, 12 m long: its front is 9 m into the other road, where it would reach the car ahead."""
    turning, standing = (400.0, 5, 0), (405.0, 0, 0)
    for ego, other in ((standing, (440.0, 0, 0)), ((300.0, 0, 0), standing)):
        traffic = traffic_of(ego, turning, other)
        traffic.length_m[0, 1], traffic.on_route[0, 1], traffic.leaves_m[0, 1] = 12.0, False, 391.0
        assert not touch(traffic)
        assert follower(traffic) == -1
        assert leader(traffic) == (2 if ego is standing else 1)


def test_required_decel_of_all_leaves_room_for_the_cars_between():
    # Rank 2 brakes at 8 from 20 m/s, 60 m ahead: room = 60 - 5 - 7.5 - 2 = 45.5, plus 25 m of braking distance.
    traffic = traffic_of((0, 20, 0), (30, 20, 0), (60, 20, -8))
    assert needed(traffic) == pytest.approx(400.0 / (2 * (45.5 + 25.0)))


def test_touching_peers_are_found_in_any_column_order():
    assert touch(traffic_of((0, 20, 0), (54.9, 20, 0), (50, 20, 0)))
    assert not touch(traffic_of((0, 20, 0), (55.1, 20, 0), (50, 20, 0)))


def test_refresh_truth_writes_gap_and_phase():
    record = one_record(onset_step=10, over_step=20)
    traffic = traffic_of((0, 22, 0), (35, 20, 0))
    for step, phase in ((9, 0), (10, 1), (19, 1), (20, 2)):
        record["step"] = step
        refresh_truth(record[0], traffic, 0, *unseen(traffic))
        assert record["hazard_phase"][0] == phase
    assert record["gap_m"][0] == 30.0
    assert record["closing_speed_mps"][0] == 2.0
    alone = traffic_of((0, 22, 0))
    refresh_truth(record[0], alone, 0, *unseen(alone))
    assert math.isinf(record["gap_m"][0]) and math.isinf(record["rear_gap_m"][0])


def test_a_car_that_was_driven_through_is_still_the_one_that_was_hit():
    """A 0.5 m long leader 0.2 m ahead lies behind the front bumper one step of 20 m/s later."""
    record, traffic = one_record(), traffic_of((0, 20, 0), (0.7, 0, 0), (60, 0, 0))
    traffic.length_m[0, 1] = 0.5
    side, reach_m = unseen(traffic)
    refresh_truth(record[0], traffic, 0, side, reach_m)
    assert record["gap_m"][0] == pytest.approx(0.2) and side[0].tolist() == [0, 1, 1]
    traffic.position_m[0, 0] = 2.0
    refresh_truth(record[0], traffic, 0, side, reach_m)
    assert record["leader"][0] == 1
    assert record["gap_m"][0] == pytest.approx(-1.8)
    assert record["closing_speed_mps"][0] == 20.0


def test_the_gap_behind_is_to_the_car_that_was_behind():
    record, traffic = one_record(), traffic_of((0, 0, 0), (-5.5, 20, 0), (40, 20, 0))
    traffic.length_m[0, 0] = 1.0
    side, reach_m = unseen(traffic)
    refresh_truth(record[0], traffic, 0, side, reach_m)
    assert (record["follower"][0], record["rear_gap_m"][0], record["leader"][0]) == (1, pytest.approx(4.5), 2)
    traffic.position_m[0, 1] = 0.5  # its front bumper is past the ego's own
    refresh_truth(record[0], traffic, 0, side, reach_m)
    assert (record["follower"][0], record["rear_gap_m"][0], record["leader"][0]) == (1, pytest.approx(-1.5), 2)


def test_a_car_that_was_gone_for_a_step_has_no_side():
    record, traffic = one_record(), traffic_of((100, 20, 0), (108, 20, 0))
    side, reach_m = unseen(traffic)
    refresh_truth(record[0], traffic, 0, side, reach_m)
    traffic.alive[0, 1] = False
    refresh_truth(record[0], traffic, 0, side, reach_m)
    traffic.alive[0, 1], traffic.position_m[0, 1] = True, 92.0  # another car in that column
    refresh_truth(record[0], traffic, 0, side, reach_m)
    assert (record["leader"][0], record["follower"][0]) == (-1, 1)
