"""What the ego knows and when: causality, ageing, staleness, order of generations, sensors at the source."""

import math

import numpy as np
import pytest

from roadsense.espnow.clock import STEP_S as RADIO_STEP_S
from roadsense.espnow.profiles import OFF, read_params
from roadsense.traffic.base import EGO, STEP_S
from tests.espnow.drives import Drive, changed

SLOW = {"shift_ms": 20.0, "shape": 1.0, "scale_ms": 8.0, "tail_probability": 0.3, "tail_ms": (50.0, 250.0)}
"""Tails so long that beacons overtake each other."""


def test_radio_and_traffic_count_time_alike():
    assert RADIO_STEP_S == STEP_S


@pytest.mark.parametrize("extrapolate", [True, False])
def test_content_is_the_senders_state_at_its_last_tick_before_sending(extrapolate):
    params = changed("ideal", gps={"extrapolate": extrapolate}, latency=SLOW)
    drive = Drive(params, [20.0, 40.0, 60.0], speed_mps=25.0, seeds=(1, 2, 3), first=-30, kept=3)
    checked = 0
    for _ in drive.steps(400):
        state = drive.state
        for world, car, entry in np.argwhere(np.arange(3) < state.message_count[..., None]):
            at = world, car, entry
            tick, sent = state.message_accel_mps2[at], state.message_sent_s[at]
            assert tick * STEP_S - 1e-9 <= sent <= (tick + 1) * STEP_S + 1e-9
            carried = 25.0 * (sent - tick * STEP_S) if extrapolate else 0.0
            assert state.message_x_m[at] == pytest.approx(drive.x(tick)[world, car] + carried, abs=1e-9)
            assert (state.message_y_m[at], state.message_hops[at]) == (0.0, 0)
            assert (state.message_speed_mps[at], state.message_heading_rad[at]) == (25.0, 0.0)
            checked += 1
    assert checked > 4000


def test_nothing_is_visible_before_it_arrived_nor_later_than_the_next_tick():
    drive = Drive(changed("ideal", latency=SLOW), [20.0, 40.0], seeds=tuple(range(10)), first=-30, kept=4)
    known, delays = set(), []
    for _ in drive.steps(500):
        state = drive.state
        arrival, sent = state.message_arrival_s, state.message_sent_s
        for world, car, entry in np.argwhere(np.arange(4) < state.message_count[..., None]):
            at = world, car, entry
            assert sent[at] + 0.02 <= arrival[at] <= drive.now_s
            message = world, car, state.message_generation[at]
            if message not in known:
                known.add(message)
                assert arrival[at] > drive.now_s - STEP_S - 1e-9
                delays.append(drive.now_s - sent[at])
    assert max(delays) > 0.25


def test_newest_generation_wins_when_beacons_overtake_each_other():
    drive = Drive(changed("ideal", latency=SLOW), [20.0], seeds=tuple(range(20)), kept=3)
    newest, overtaken = np.full(20, -1), 0
    for _ in drive.steps(500):
        state = drive.state
        for world in range(20):
            generations = state.message_generation[world, 1, : state.message_count[world, 1]]
            assert (np.diff(generations) < 0).all()
            if len(generations):
                assert generations[0] >= newest[world]
                newest[world] = generations[0]
                arrivals = state.message_arrival_s[world, 1, : len(generations)]
                overtaken += (np.diff(arrivals) > 0).any()
    assert overtaken > 1000


def test_one_kept_message_is_the_newest_of_three():
    """Keeping more messages changes neither the newest nor what arrives."""
    one, three = (
        Drive(changed("convoy", latency=SLOW), [20.0, 60.0], seeds=(5,), kept=kept).run(300).state for kept in (1, 3)
    )
    assert (one.message_count[0, 1:] == 1).all() and (three.message_count[0, 1:] == 3).all()
    for name in ("x_m", "speed_mps", "sent_s", "arrival_s", "generation"):
        np.testing.assert_array_equal(
            getattr(one, f"message_{name}")[0, 1:, 0], getattr(three, f"message_{name}")[0, 1:, 0]
        )
    np.testing.assert_array_equal(one.received_total, three.received_total)


def test_every_beacon_is_received_or_lost_once():
    drive = Drive(changed("convoy", latency=SLOW, relays=None), [20.0, 60.0, 120.0], seeds=(1, 2), first=0)
    received, lost = np.zeros((2, 4), int), np.zeros((2, 4), int)
    for _ in drive.steps(1001):
        received += drive.state.received
        lost += drive.state.lost
    under_way = drive.arrays.links["pending"][:, 0]
    assert (np.abs(received + lost + under_way - 1000)[:, 1:] <= 1).all()
    assert (received[:, 1:] > 0).all() and (lost[:, 1:] > 0).all()
    np.testing.assert_array_equal(received, drive.state.received_total)
    np.testing.assert_array_equal(lost, drive.state.lost_total)
    assert not received[:, EGO].any() and not lost[:, EGO].any()


def test_ticks_before_the_episode_are_not_in_the_totals():
    drive = Drive(read_params("ideal"), [20.0], first=-30).run(31)
    assert drive.state.heard_last_second[0, 1] == 10
    assert drive.state.received_total[0, 1] == 0
    assert drive.run(7).state.received_total[0, 1] == 7


def test_a_lost_packet_only_ages_what_is_known():
    reach = {"from_m": (0.0,), "probability": (0.0,), "mean_burst": (1.0,), "range_m": 200.0}
    drive = Drive(changed("convoy", loss=reach), [20.0], speed_mps=10.0).run(60)
    state = drive.state
    assert state.message_count[0, 1] == 1
    before = drive.snapshot()
    drive.start_x[:, 1] = 1000.0  # out of range: everything is lost from here on
    for behind in range(1, 5):
        drive.step()
        for name in ("message_x_m", "message_accel_mps2", "message_arrival_s", "message_generation", "message_count"):
            np.testing.assert_array_equal(drive.snapshot()[name], before[name])
        assert state.lost[0, 1] == 1
        assert drive.now_s - state.message_arrival_s[0, 1, 0] == pytest.approx(
            60 * STEP_S - before["message_arrival_s"][0, 1, 0] + (behind - 1) * STEP_S
        )


@pytest.mark.parametrize(("stale_after_ms", "late_ms"), [(500.0, 0.0), (300.0, 0.0), (300.0, 250.0)])
def test_a_peer_leaves_when_its_newest_message_is_stale(stale_after_ms, late_ms):
    """Stale is counted from its arrival: clocks are not synchronised, so nobody knows how long it was under way."""
    params = changed("ideal", stale_after_ms=stale_after_ms, latency={"shift_ms": late_ms})
    drive = Drive(params, [20.0], seeds=tuple(range(50)), kept=3).run(60)
    drive.transmits[:] = False
    left_at = np.zeros(50)
    last_arrival = drive.state.message_arrival_s[:, 1, 0].copy()
    assert (drive.state.message_count[:, 1] == 3).all()
    for _ in drive.steps(11):
        gone = drive.state.message_count[:, 1] == 0
        assert ((drive.state.message_count[:, 1] == 3) | gone).all()
        left_at[gone & (left_at == 0)] = drive.now_s
        last_arrival[~gone] = drive.state.message_arrival_s[~gone, 1, 0]
    age = left_at - last_arrival
    assert age.min() > stale_after_ms / 1000 - 1e-9
    assert age.max() < stale_after_ms / 1000 + STEP_S + 1e-6


def test_a_message_older_than_a_stale_one_is_not_news():
    late = {"shift_ms": 0.0, "shape": 1.0, "scale_ms": 0.0, "tail_probability": 0.2, "tail_ms": (600.0, 690.0)}
    params = changed("ideal", latency=late, stale_after_ms=100.0)
    newest = np.full(100, -1)
    for seed in range(100):
        drive = Drive(params, [20.0], seeds=(seed,))
        for _ in drive.steps(60):
            if drive.state.message_count[0, 1]:
                assert drive.state.message_generation[0, 1, 0] >= newest[seed]
                newest[seed] = drive.state.message_generation[0, 1, 0]


def test_heard_last_second_counts_arrivals():
    drive, counts = Drive(changed("convoy", latency=SLOW), [20.0, 80.0], seeds=(3,)), []
    for _ in drive.steps(200):
        counts.append(drive.state.received[0].copy())
        np.testing.assert_array_equal(drive.state.heard_last_second[0], np.sum(counts[-10:], axis=0))
    assert np.max(counts) >= 2


def test_ideal_is_lossless_and_exact():
    drive = Drive(read_params("ideal"), [5.0, 90.0, 900.0], speed_mps=30.0, seeds=(1, 2), first=-30).run(31)
    for tick in drive.steps(400):
        state = drive.state
        np.testing.assert_array_equal(state.reading_x_m, drive.x(tick))
        np.testing.assert_array_equal(state.reading_accel_mps2, float(tick))
        assert not state.lost.any() and (state.received[:, 1:] == 1).all()
        assert (state.heard_last_second[:, 1:] == 10).all()
        np.testing.assert_array_equal(state.message_arrival_s, state.message_sent_s)
        age = drive.now_s - state.message_arrival_s[:, 1:, 0]
        assert (age >= 0).all() and (age <= STEP_S + 1e-9).all()
        np.testing.assert_allclose(state.message_x_m[:, 1:, 0] + 30.0 * age, drive.x(tick)[:, 1:], atol=1e-9)


def test_off_hears_nothing_but_senses():
    drive = Drive(read_params(OFF), [0.0, 5.0], speed_mps=10.0, first=-30)
    for tick in drive.steps(100):
        assert not drive.state.message_count.any() and not drive.state.received.any()
        np.testing.assert_array_equal(drive.state.reading_x_m, drive.x(tick))
    assert (drive.state.lost_total[0, 1:] == 69).all()


@pytest.mark.parametrize("distance_m", [449.0, 451.0])
def test_range_ends_where_the_params_say(distance_m):
    drive = Drive(read_params("convoy"), [distance_m]).run(200)
    assert (drive.state.received_total[0, 1] > 0) == (distance_m < 450.0)


def test_coming_from_out_of_range_into_no_loss_at_all():
    params = changed("ideal", loss={"range_m": 100.0, "mean_burst": (50.0,)})
    drive = Drive(params, [200.0]).run(20)
    drive.start_x[0, 1] = 50.0
    for _ in drive.steps(20):
        assert drive.state.lost[0, 1] == 0


def test_who_is_not_there_or_has_no_radio_sends_nothing():
    drive = Drive(read_params("ideal"), [20.0, 40.0])
    drive.transmits[0, 1] = False
    drive.run(20)
    assert drive.state.message_count[0].tolist() == [0, 0, 1]
    drive.alive[0, 2] = False
    heard = drive.run(20).state.received_total[0, 2]
    assert drive.run(20).state.received_total[0, 2] == heard
    assert not drive.state.message_count.any() and drive.state.lost_total[0].sum() == 0


def test_a_late_car_begins_afresh_at_its_start():
    """Its first beacon follows its first reading; what an earlier car of that column said is forgotten."""
    params = changed("5m", latency=SLOW)
    drive = Drive(params, [20.0, 20.0], seeds=(1, 2, 3, 4)).run(30)
    drive.alive[:, 2] = False
    drive.step()
    assert drive.arrays.links["pending"][:, 0][:, 2].any()
    drive.alive[:, 2] = True
    drive.start_x[:, 2] = 44.0
    drive.step()
    assert not drive.state.message_count[:, 2].any() and not drive.arrays.links["pending"][:, 0][:, 2].any()
    assert not drive.state.heard_last_second[:, 2].any()
    drive.run(10)
    assert drive.state.message_count[:, 2].all()
    assert (drive.state.message_accel_mps2[:, 2, 0] >= 31).all()
    # A fresh error, not the one the column had before.
    error = drive.arrays.cars["gps_error_x_m"]
    assert (np.abs(drive.state.reading_x_m[:, 2] - 44.0 - error[:, 2]) < 1.0).all()


def test_gps_holds_or_carries_on_between_fixes():
    for extrapolate, most_m in ((True, 1e-9), (False, 20.0)):
        params = changed("ideal", gps={"rate_hz": 1.0, "extrapolate": extrapolate})
        drive, behind = Drive(params, [20.0], speed_mps=20.0, seeds=(1, 2, 3)), []
        for tick in drive.steps(101):
            behind.append(drive.x(tick) - drive.state.reading_x_m)
        worst = np.max(np.abs(behind[20:]), axis=0)
        assert (worst <= most_m).all() and (extrapolate or (worst > 15.0).all())
        changes = np.diff(np.array(behind), axis=0)[20:]
        if not extrapolate:  # exactly one fix a second
            assert ((changes < 0).sum(axis=0) == 8).all()
    phases = drive.arrays.cars["gps_phase_s"].ravel()
    assert len(np.unique(phases)) == phases.size


def test_measured_speed_is_never_negative():
    drive = Drive(read_params("convoy"), [20.0], seeds=tuple(range(20)))
    speeds = np.array([drive.state.reading_speed_mps.copy() for _ in drive.steps(50)])
    assert speeds.min() == 0.0 and speeds.max() > 0.5


def test_a_full_queue_is_a_loss_not_a_silence():
    """Parameters that need more slots are refused; made by hand, the oldest go, and must still be counted."""
    drive = Drive(read_params("ideal"), [20.0])
    drive.emulator.tables["latency_shift_s"] = 5.0
    drive.run(31)
    assert drive.arrays.links["pending"][:, 0][0, 1] == 16
    assert drive.state.lost_total[0, 1] == 30 - 16
    assert sorted(drive.arrays.flights["generation"][0, :, 0, 1]) == list(range(14, 30))


def test_inactive_worlds_stand_still():
    drive = Drive(read_params("convoy"), [20.0], seeds=(1, 2)).run(30)
    before, cars = drive.snapshot(), drive.arrays.cars.copy()
    drive.active[1] = False
    drive.run(5)
    after = drive.snapshot()
    for name, array in before.items():
        np.testing.assert_array_equal(array[1], after[name][1])
    assert np.array_equal(cars[1], drive.arrays.cars[1])
    assert not np.array_equal(before["reading_x_m"][0], after["reading_x_m"][0])


def test_heading_is_followed_in_the_plane():
    params = changed("ideal", gps={"rate_hz": 0.1})
    drive = Drive(params, [0.0], speed_mps=10.0)
    angle = 2.0
    for tick in range(60):
        x, y = (np.full((1, 2), 10.0 * STEP_S * tick * f(angle)) for f in (math.cos, math.sin))
        drive.emulator.step(
            np.array([tick]), x, y, drive.speed, drive.zero, np.full((1, 2), angle), drive.alive, drive.transmits
        )
        np.testing.assert_allclose(drive.state.reading_x_m, x, atol=1e-9)
        np.testing.assert_allclose(drive.state.reading_y_m, y, atol=1e-9)
    age = 5.9 - drive.state.message_sent_s[0, 1, 0]
    assert drive.state.message_y_m[0, 1, 0] == pytest.approx(10.0 * (5.9 - age) * math.sin(angle), abs=1e-9)
