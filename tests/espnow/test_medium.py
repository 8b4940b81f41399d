"""One medium for all, and who repeats whom: against published figures and by hand."""

import math

import numpy as np
import pytest

from roadsense.espnow.play import Motion, play
from roadsense.espnow.sections import Phy
from tests.espnow.drives import Drive, with_sections

NO_TAIL = {"shift_ms": 2.0, "shape": 1.6, "scale_ms": 1.0, "tail_probability": 0.0, "tail_ms": [0.0, 0.0]}


def lossless_up_to(reach_m):
    """A loss table by which everything within ``reach_m`` arrives and nothing beyond does."""
    return {"from_m": [0.0], "probability": [0.0], "mean_burst": [1.0], "range_m": reach_m}


@pytest.mark.parametrize(
    ("rate_kbps", "payload_bytes", "airtime_ms"), [(1000.0, 90, 1.256), (1000.0, 250, 2.536), (250.0, 90, 4.448)]
)
def test_airtime_of_a_frame(rate_kbps, payload_bytes, airtime_ms):
    assert 1e3 * Phy(rate_kbps=rate_kbps, payload_bytes=payload_bytes).airtime_s == pytest.approx(airtime_ms)


def collided(cars, worlds, steps=150, **drive):
    """Shares of beacons to the ego that collided, by world; nothing else is ever lost."""
    road = Drive(with_sections("ideal", phy={}), list(5.0 + np.arange(cars - 1)), seeds=tuple(range(worlds)), **drive)
    road.run(3)
    lost = sum(road.state.lost[:, 1:].copy() for _ in road.steps(steps))
    return lost.mean(axis=1) / steps


@pytest.mark.parametrize(("cars", "percent"), [(3, 0.07), (6, 0.4), (10, 0.3), (20, 1.0), (40, 2.7)])
def test_a_crowd_collides_as_often_as_published(cars, percent):
    """10 Hz, 1.26 ms frames, every car with a phase of its own; the figures are rounded and of few runs."""
    shares = 100.0 * collided(cars, worlds=8000 // cars)
    half = 1.96 * shares.std(ddof=1) / math.sqrt(len(shares))
    print(f"{cars} cars: {shares.mean():.2f} +- {half:.2f} % of beacons collide, published {percent} %")
    assert abs(shares.mean() - percent) <= half + max(0.15, 0.25 * percent)


def test_two_cars_never_lose_a_beacon_to_the_ego_but_when_the_ego_sends():
    """Only the ego itself is there to collide with: within a slot of each other, 2 · 20 µs of 100 ms."""
    shares = collided(2, worlds=20_000, steps=20)
    assert 0.0 < shares.mean() < 3 * 4e-4


def test_a_pair_in_step_collides_again_and_again():
    """Drift is slow: who met once meets for many periods, which independent losses would not do."""
    road = Drive(with_sections("ideal", phy={}), [5.0, 6.0], seeds=tuple(range(3000)))
    road.run(3)
    lost = np.array([road.state.lost[:, 1] > 0 for _ in road.steps(60)])
    again = (lost[1:] & lost[:-1]).sum() / lost[:-1].sum()
    assert lost.sum() > 50 and again > 0.5


def test_who_waits_for_a_frame_to_end_arrives_later_by_its_rest():
    """Many cars: latency grows by the wait, and never shrinks."""
    alone, crowd = (
        Drive(with_sections("ideal", phy={"rate_kbps": 250.0}, latency=NO_TAIL), ahead, seeds=tuple(range(200)), kept=2)
        for ahead in ([20.0], [20.0, *np.linspace(30, 60, 12)])
    )
    ages = []
    for drive in (alone, crowd):
        drive.run(5)
        found = []
        for _ in drive.steps(40):
            new = drive.state.received[:, 1] > 0
            found.append((drive.state.message_arrival_s - drive.state.message_sent_s)[new, 1, 0])
        ages.append(np.concatenate(found))
    assert ages[0].min() >= 0.002 + 0.004448
    assert ages[1].mean() > ages[0].mean() + 0.001
    assert ages[1].min() >= 0.002 + 0.004448


def relayed_ages_ms(ahead, steps=60, **relays):
    """(age, hops) of the last car's messages, which reach the ego through the cars between alone."""
    reach_m = ahead[-1] - 1.0
    params = with_sections("ideal", phy={}, relays=relays, loss=lossless_up_to(reach_m), latency=NO_TAIL)
    drive = Drive(params, ahead, seeds=tuple(range(300)), speed_mps=10.0)
    drive.run(40)
    ages, hops, last = [], [], len(ahead)
    for _ in drive.steps(steps):
        state = drive.state
        new = state.received[:, last] > 0
        ages.append(1000.0 * (state.message_arrival_s - state.message_sent_s)[new, last, 0])
        hops.append(state.message_hops[new, last, 0])
    return np.concatenate(ages), np.concatenate(hops)


def test_a_relayed_message_is_as_late_as_measured():
    """35 to 40 ms later on average than a direct one, p95 70 to 80 ms: convoys with two or three cars between."""
    direct_ms = 1.256 + 2.0 + 1.6
    found = [relayed_ages_ms(ahead) for ahead in ([15.0, 30.0, 45.0], [12.0, 24.0, 36.0, 48.0])]
    later = np.concatenate([ages for ages, _ in found]) - direct_ms
    assert (np.concatenate([hops for _, hops in found]) == 1).mean() > 0.95
    print(f"{later.mean():.1f} ms later, p95 {np.percentile(later, 95):.1f} ms, n = {len(later)}")
    assert 35.0 <= later.mean() <= 40.0
    assert 70.0 <= np.percentile(later, 95) <= 82.0


@pytest.mark.parametrize(("max_hops", "reached"), [(1, False), (2, True), (3, True)])
def test_a_message_goes_through_so_many_relays_and_no_more(max_hops, reached):
    """Each car reaches its neighbour alone; the third ahead is two relays away."""
    params = with_sections("ideal", phy={}, relays={"max_hops": max_hops}, loss=lossless_up_to(25.0))
    drive = Drive(params, [20.0, 40.0, 60.0], seeds=tuple(range(20)), speed_mps=10.0).run(60)
    assert (drive.state.message_count[:, 2] > 0).all() and (drive.state.message_hops[:, 2, 0] == 1).all()
    assert (drive.state.message_count[:, 3] > 0).all() == reached
    assert not reached or (drive.state.message_hops[:, 3, 0] == 2).all()


def test_who_is_not_ahead_of_a_relay_is_not_relayed():
    """Driving along x: from 40 m the ego's neighbour relays the car ahead of it, but not one beside it."""
    params = with_sections("ideal", phy={}, relays={}, loss=lossless_up_to(38.0))
    drive = Drive(params, [20.0, 20.0 + 25.0], seeds=(1, 2, 3), speed_mps=10.0)
    drive.run(40)
    assert (drive.state.message_count[:, 2] > 0).all()
    beside = Drive(params, [20.0, 20.0], seeds=(1, 2, 3), speed_mps=10.0)
    beside.y = np.zeros_like(beside.zero)
    beside.y[:, 2] = 33.0  # 38.6 m from the ego, 33 m from its neighbour, at a right angle
    beside.run(40)
    assert (beside.state.message_count[:, 1] > 0).all() and not beside.state.message_count[:, 2].any()


def test_relaying_redraws_no_loss():
    """Two relays between, and a link to the ego that is down is down for what they relay too."""
    params = with_sections(
        "ideal", relays={}, loss={"from_m": [0.0], "probability": [0.5], "mean_burst": [1000.0], "range_m": 450.0}
    )
    drive = Drive(params, [10.0, 20.0], seeds=tuple(range(400)), speed_mps=10.0).run(40)
    down = drive.arrays.links["bad"][:, 0, 1:3].all(axis=1)
    assert 60 < down.sum() < 160
    before = drive.state.received_total.copy()
    drive.run(10)
    still = down & drive.arrays.links["bad"][:, 0, 1:3].all(axis=1)
    assert still.sum() > 50
    assert (drive.state.received_total - before)[still, 1:].sum() <= 0.02 * still.sum() * 20


def test_a_message_counts_once_whatever_ways_it_comes():
    params = with_sections("convoy", phy={}, relays={})
    drive = Drive(params, [15.0, 30.0, 45.0], seeds=tuple(range(30)), first=0, speed_mps=10.0)
    drive.run(401)
    beacons = 400
    assert (drive.state.received_total[:, 1:] <= beacons + 1).all()
    alone = Drive(
        params.model_copy(update={"relays": None}), [15.0, 30.0, 45.0], seeds=tuple(range(30)), speed_mps=10.0
    )
    alone.run(401)
    assert drive.state.received_total[:, 3].mean() > alone.state.received_total[:, 3].mean() + 0.05 * beacons


def test_more_cars_lose_more_by_contention_alone():
    """Frames that did not collide are lost as often among 8 cars as among 2, and all that collided are lost."""
    p = 0.2
    flat = {"from_m": [0.0], "probability": [p], "mean_burst": [1.5], "range_m": 500.0}
    params = with_sections("ideal", loss=flat, phy={"rate_kbps": 250.0})
    for cars, seeds in ((2, range(300)), (8, range(60))):
        line_up = Motion.straight(np.tile(5.0 * np.arange(cars), (len(seeds), 1)), 0.0, 200)
        frames = play(params, seeds, line_up).frames
        lost, collided = np.isinf(frames["arrival_s"]), frames["collided"]
        spread = math.sqrt(p * (1 - p) * 2.0 / (~collided).sum())  # bursts of 1.5 double the variance at most
        assert abs(lost[~collided].mean() - p) < 4.0 * spread
        assert lost[collided].all()
        share = collided.mean()
        assert (share > 0.004) == (cars == 8)
        assert lost.mean() == pytest.approx(1 - (1 - p) * (1 - share), abs=4 * spread)
