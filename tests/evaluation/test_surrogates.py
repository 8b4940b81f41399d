import math

import numpy as np
import pytest

from roadsense.evaluation.metrics import measure
from roadsense.evaluation.surrogates import (
    decel_to_avoid_crash,
    jerk_limit,
    modified_decel_to_avoid_crash,
    time_exposed,
    time_integrated,
)

from .traces import pulse, trace


def test_exposure_counts_and_integrates_time_below_three_seconds():
    ttc = np.array([math.inf, 3.0, 2.5, 1.0, 0.0])
    assert time_exposed(ttc) == pytest.approx(0.3)
    assert time_integrated(ttc) == pytest.approx(0.1 * (0.5 + 2.0 + 3.0))


def test_drac_is_closing_speed_squared_over_twice_the_gap():
    found = decel_to_avoid_crash(np.array([20.0, 20.0, 0.5, -1.0, math.inf]), np.array([10.0, -3.0, 30.0, 2.0, 0.0]))
    assert found.tolist() == [2.5, 0.0, 20.0, 20.0, 0.0]


def test_mdrac_grants_a_second_to_react():
    # 20 m at 10 m/s is 2 s: one is left, 10 / (2 · 1) = 5 m/s²; at 1 s and below nothing helps
    found = modified_decel_to_avoid_crash(np.array([20.0, 10.0, 9.0, 20.0]), np.array([10.0, 10.0, 10.0, 0.0]))
    assert found.tolist() == [5.0, 20.0, 20.0, 0.0]


def test_comfortable_jerk_falls_with_speed():
    assert jerk_limit(np.array([0.0, 5.0, 12.5, 20.0, 40.0])).tolist() == [5.0, 5.0, 3.75, 2.5, 2.5]


def test_a_quiet_episode_is_never_close():
    quiet = measure(trace())
    assert (quiet.tet_s, quiet.tit_s2, quiet.max_drac_mps2, quiet.mdrac_share) == (0.0, 0.0, 0.0, 0.0)
    assert (quiet.hard_brakes_3, quiet.hard_brakes_4_5, quiet.jerk_share) == (0, 0, 0.0)
    assert quiet.min_time_gap_s == pytest.approx(1.5)
    # both at 20 m/s: 20·0.5 + 0.5·2.6·0.25 + 21.3²/9 − 20²/18 = 10.325 + 50.41 − 22.222… = 38.51 m, the gap is 30
    assert quiet.rss_deficit_share == 1.0
    assert quiet.max_rss_deficit_m == pytest.approx(8.5128, abs=1e-4)


def test_hard_brakes_are_counted_by_their_beginnings():
    accel = np.zeros((21, 2))
    accel[3:6, 0], accel[8:12, 0], accel[15, 0] = -3.2, -5.0, -2.9
    found = measure(trace(accel_mps2=accel))
    assert (found.hard_brakes_3, found.hard_brakes_4_5) == (2, 1)


def test_what_the_demand_adds_to_the_driver_counts_in_calm_steps_alone():
    asked = pulse(20, (3, 10), level=3.0)
    driver = np.full(20, -1.0)
    assert measure(trace(demand_mps2=asked, driver_accel_mps2=driver)).peak_added_decel_mps2 == 2.0
    needed = np.full(21, 1.5)
    assert measure(trace(demand_mps2=asked, required_decel_mps2=needed)).peak_added_decel_mps2 == 0.0


def test_gain_compares_the_speeds_of_tail_and_head():
    time = np.arange(21) * 0.1
    head, tail = 20.0 + 2.0 * np.sin(time), 20.0 + 3.0 * np.sin(time)
    found = measure(trace(speed_mps=np.column_stack([tail, head]))).head_to_tail_gain
    assert found == pytest.approx(1.5)
    assert math.isnan(measure(trace()).head_to_tail_gain)  # the head varies nothing


def test_a_failed_episode_says_why():
    assert measure(trace()._replace(failure="the action at step 3 is not a number")).failure.startswith("the action")
