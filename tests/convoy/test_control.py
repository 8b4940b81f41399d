"""Requests, dead band, actuator and holds, by hand."""

import math

import gymnasium as gym
import numpy as np
import pytest

from roadsense._data import scenarios_dir
from roadsense.convoy.control import actuate, auto_hold, commanded_accel, requested_decel, steer_peers
from roadsense.convoy.world import Targets
from tests.convoy.worlds import one_record, traffic_of

BRAKE, ACCELERATION = 0, 1


@pytest.mark.parametrize(("action", "expected"), [(0.0, 0.0), (0.0499, 0.0), (0.05, 0.4), (1.0, 8.0)])
def test_dead_band(action, expected):
    assert requested_decel(action, BRAKE) == pytest.approx(expected)


def test_the_harder_brake_wins_and_the_dead_band_leaves_the_driver_alone():
    world = one_record()[0]
    assert commanded_accel(world, 0.5, BRAKE, -6.0) == -6.0
    assert commanded_accel(world, 0.5, BRAKE, 1.0) == -4.0
    assert commanded_accel(world, 0.04, BRAKE, 1.3) == 1.3


def test_acceleration_control_spans_brake_to_throttle():
    world = one_record()[0]
    assert [commanded_accel(world, a, ACCELERATION, 0.0) for a in (-1.0, 0.0, 1.0)] == [-8.0, 0.0, 2.6]


def test_actuator_is_first_order_with_0_2_s():
    record = one_record()
    speed = actuate(record[0], 20.0, -8.0)
    assert speed == pytest.approx(20.0 - 8.0 * (1 - math.exp(-0.5)) * 0.1)
    for _ in range(30):
        actuate(record[0], 20.0, -8.0)
    assert record["actuator_accel_mps2"][0] == pytest.approx(-8.0, abs=1e-4)


def test_speed_never_turns_negative_and_standing_stores_no_braking():
    record = one_record(actuator_accel_mps2=-8.0)
    assert actuate(record[0], 0.3, -8.0) == 0.0
    assert record["actuator_accel_mps2"][0] == 0.0


def test_no_faster_than_the_car_and_no_harder_than_the_brake():
    record = one_record(max_speed_mps=10.0, actuator_accel_mps2=2.6)
    assert actuate(record[0], 9.99, 2.6) == 10.0
    for _ in range(100):
        actuate(record[0], 9.0, -50.0)
    assert record["actuator_accel_mps2"][0] == pytest.approx(-8.0)


def test_auto_hold_takes_over_below_one_metre_per_second_only_for_an_inattentive_driver():
    record = one_record(inattentive_from=0, attentive_from=100, demand_mps2=1.0)
    assert auto_hold(record[0], 1.1, -1.0) == -1.0
    assert auto_hold(record[0], 0.9, -1.0) == -3.0
    record["demand_mps2"] = 0.0
    assert auto_hold(record[0], 0.5, 0.0) == -3.0  # still held
    record["step"] = 100
    assert auto_hold(record[0], 0.5, 0.0) == 0.0  # he looks again


def test_a_braking_peer_ramps_up_in_three_steps_and_is_released():
    record = one_record(num_events=1)
    record["event_target"][0, 0], record["event_decel_mps2"][0, 0] = 1, 9.0
    record["event_start"][0, 0], record["event_end"][0, 0] = 5, 9
    targets = Targets.zeros(1, 2)
    asked = []
    for step in range(3, 11):
        record["step"] = step
        steer_peers(record[0], traffic_of((0, 20, 0), (40, 20, 0)), targets, 0)
        asked.append((bool(targets.steered[0, 1]), round(20.0 - targets.next_speed_mps[0, 1], 6)))
    assert [steered for steered, _ in asked] == [False, False, True, True, True, True, False, False]
    assert [drop for steered, drop in asked if steered] == [0.3, 0.6, 0.9, 0.9]


def test_hold_until_onset_steers_every_peer_at_its_stated_speed():
    record = one_record(hold_until_onset=True, onset_step=4, step=3)
    targets = Targets.zeros(1, 3)
    targets.stated_speed_mps[0] = [15.0, 14.0, 13.0]
    traffic = traffic_of((0, 15, 0), (40, 13.5, 0), (80, 13, 0))
    steer_peers(record[0], traffic, targets, 0)
    assert targets.steered[0].tolist() == [False, True, True]
    assert np.array_equal(targets.next_speed_mps[0, 1:], [14.0, 13.0])
    record["step"] = 4
    steer_peers(record[0], traffic, targets, 0)
    assert not targets.steered.any()


@pytest.mark.usefixtures("require_sumo")
@pytest.mark.parametrize("engine", [pytest.param("sumo", marks=pytest.mark.proof), "native"])
def test_a_wave_swings_the_first_car_and_nobody_else_is_steered(engine):
    env = gym.make("Convoy-v0", scenario=str(scenarios_dir() / "base" / "straight"), engine=engine).unwrapped
    changes = {"hazard.share": 0.0, "ordinary.brakings": (0, 0), "wave.amplitude_mps": 1.5, "wave.frequency_hz": 0.25}
    env.reset(seed=3, options={"episode": changes})
    state = env.worlds.traffic.state
    for step in range(1, 81):
        env.step(np.zeros(1, np.float32))
        assert state.speed_mps[0, 4] == pytest.approx(20.0 - 1.5 * (1.0 - math.cos(2.0 * math.pi * 0.25 * step * 0.1)))
        assert env.worlds.targets.steered[0].tolist() == [True, False, False, False, True] + [False] * 12
    env.close()
