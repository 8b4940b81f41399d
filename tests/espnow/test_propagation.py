"""Physics of a frame's power: by hand, and against published field tests."""

import math

import numpy as np
import pytest

from roadsense.espnow.play import Motion, play
from roadsense.espnow.propagation import cars_between
from tests.espnow.drives import with_sections


def delivered(ahead_m, worlds=60, steps=200, speed_mps=0.0, **physics):
    """Share of beacons that arrive between any two cars, [receiver, sender], and the frames."""
    params = with_sections("ideal", loss=FAR, propagation={"shadow_sd_db": 0.0, **physics})
    cars = np.tile(np.asarray(ahead_m, float), (worlds, 1))
    frames = play(params, range(worlds), Motion.straight(cars, speed_mps, steps)).frames
    share = np.zeros((len(ahead_m), len(ahead_m)))
    for receiver in range(len(ahead_m)):
        for sender in range(len(ahead_m)):
            these = frames[(frames["receiver"] == receiver) & (frames["sender"] == sender)]
            share[receiver, sender] = np.isfinite(these["arrival_s"]).mean() if len(these) else math.nan
    return share, frames


FAR = {"from_m": [0.0], "probability": [0.0], "mean_burst": [1.0], "range_m": 2000.0}


@pytest.mark.parametrize(("distance_m", "low", "high"), [(20, 0.999, 1.0), (150, 0.88, 0.92), (300, 0.56, 0.62)])
def test_range_in_the_open_is_about_as_published(distance_m, low, high):
    share, _ = delivered([0.0, float(distance_m)])
    assert low <= share[0, 1] <= high


def test_a_car_in_between_costs_what_it_is_said_to():
    """10 dB at an exponent of 3 are a factor of 2.15 in distance."""
    blocked, _ = delivered([0.0, 50.0, 100.0], fading_far_from_m=0.0, blocking_db=10.0)
    open_road, _ = delivered([0.0, 100.0 * 10 ** (10 / 30)], fading_far_from_m=0.0)
    clear, _ = delivered([0.0, 100.0], fading_far_from_m=0.0)
    assert blocked[0, 2] == pytest.approx(open_road[0, 1], abs=0.02)
    assert clear[0, 1] > blocked[0, 2] + 0.05


def test_who_stands_in_between():
    x, y = np.array([0.0, 100.0, 50.0, 50.0, 120.0, -10.0, 30.0]), np.array([0.0, 0.0, 1.4, 1.6, 0.0, 0.0, 0.0])
    alive = np.array([True] * 6 + [False])
    assert cars_between(x, y, alive, 0, 1) == 1  # 1.4 m aside; not 1.6, not beyond either end, not what is gone
    assert cars_between(x, y, alive, 1, 0) == 1
    assert cars_between(x, y, alive, 5, 4) == 3
    assert cars_between(x, y, np.ones(7, bool), 0, 1) == 2


def test_shadowing_changes_with_the_way_not_with_time():
    """What standing cars have at first they keep; moving ones forget it over the correlation distance."""

    def alike(speed_mps, apart_steps):
        steps, physics = apart_steps + 3, {"shadow_sd_db": 12.0, "fading_m": (100.0, 100.0)}
        _, frames = delivered([0.0, 150.0], worlds=400, steps=steps, speed_mps=speed_mps, **physics)
        link = frames[(frames["receiver"] == 0) & (frames["sender"] == 1)]
        arrived = [np.isfinite(link["arrival_s"][link["world"] == world]) for world in range(400)]
        return np.corrcoef([one[0] for one in arrived], [one[apart_steps] for one in arrived])[0, 1]

    assert alike(0.0, 100) > 0.6
    assert alike(20.0, 2) > 0.25
    assert abs(alike(20.0, 100)) < 0.2


def test_fading_is_deeper_where_it_is_far():
    near, _ = delivered([0.0, 150.0], fading_far_from_m=1000.0)
    far, _ = delivered([0.0, 150.0], fading_far_from_m=100.0)
    assert near[0, 1] > far[0, 1] + 0.03
