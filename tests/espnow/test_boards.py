"""What differs between cars: how their boards are mounted, what their clocks show, and who lies."""

import numpy as np
import pytest

from roadsense.espnow.play import Motion, play
from roadsense.espnow.profiles import read_params
from tests.espnow.drives import Drive, changed, with_sections

PEERS = 12


def losses_by_link(params, seeds, steps=300):
    """Share that each peer's beacons to the ego lost: [world, peer]; all at the same distance."""
    drive = Drive(params, [30.0] * PEERS, seeds=seeds).run(2)
    lost = sum(drive.state.lost[:, 1:].copy() for _ in drive.steps(steps))
    return lost / steps


def test_boards_differ_and_stay_as_they_are_for_an_episode():
    alike, apart = (with_sections("convoy", phy=None, relays=None, placement={"link_sd": sd}) for sd in (0.0, 0.8))
    first, second = (losses_by_link(apart, range(40), steps) for steps in (300, 600))
    later = 2 * second - first  # the further 300 steps alone
    assert np.corrcoef(first.ravel(), later.ravel())[0, 1] > 0.8
    assert losses_by_link(alike, range(40)).std() < 0.4 * first.std()


def test_other_episodes_have_other_boards():
    params = with_sections("convoy", placement={"link_sd": 0.8, "door_probability": 0.3})
    motion = Motion.straight(np.tile(30.0 * np.arange(3), (2, 1)), 0.0, 2)
    boards = [play(params, seeds, motion).cars[["placement", "in_door"]] for seeds in ((1, 2), (1, 3))]
    assert boards[0][0].tolist() == boards[1][0].tolist()
    assert boards[0][1].tolist() != boards[1][1].tolist()


def test_a_door_spoils_what_a_board_sends_and_what_it_hears():
    params = with_sections(
        "ideal", placement={"link_sd": 0.0, "door_probability": 0.2, "door_loss": 0.85, "door_burst": 14.5}
    )
    played = play(params, range(60), Motion.straight(np.tile(20.0 * np.arange(4), (60, 1)), 0.0, 200))
    in_door = played.cars["in_door"]
    frames = played.frames
    behind = in_door[frames["world"], frames["sender"]] | in_door[frames["world"], frames["receiver"]]
    lost = np.isinf(frames["arrival_s"])
    assert 0.1 < in_door.mean() < 0.3
    assert lost[behind].mean() == pytest.approx(0.85, abs=0.02)
    assert not lost[~behind].any()


def test_messages_tell_the_time_of_the_senders_own_clock():
    params = changed("ideal", beacon={"drift_ppm_sd": 100.0, "running_s": (10.0, 600.0)})
    steps = 4000
    told = play(params, [3], Motion.straight(np.array([[0.0, 20.0, 40.0]]), 0.0, steps), contents=True)
    offsets, rates = told.cars["clock_s"][0], told.cars["clock_rate"][0]
    assert (offsets >= 10.0).all() and (offsets <= 600.0).all() and len(set(offsets)) == 3
    assert 1e-6 < np.abs(rates - 1.0).max() < 1e-3
    for car in range(3):
        mine = told.beacons[told.beacons["car"] == car]
        np.testing.assert_array_equal(mine["timestamp_ms"], np.floor(told.local_ms(car, mine["sent_s"])))
        between = np.diff(mine["timestamp_ms"])
        assert set(between) <= {99, 100, 101}  # it sends by that clock, whatever the rate
        # by the world's clock its beacons wander by its drift
        wander_s = mine["sent_s"][-1] - mine["sent_s"][0] - 0.1 * (len(mine) - 1)
        assert wander_s == pytest.approx(0.1 * (len(mine) - 1) * (1.0 / rates[car] - 1.0), abs=1e-9)


def claims(seed, steps=450, cars=5):
    """[step, peer] acceleration that the ego's table holds; a peer brakes truly by nothing."""
    params = with_sections("ideal", alarms={"every_s": 10.0, "lasts_s": 2.0, "decel_mps2": 8.0})
    drive = Drive(params, list(20.0 * np.arange(1, cars)), seeds=(seed,), speed_mps=10.0)
    rows = []
    for _ in drive.steps(steps):
        rows.append(drive.state.message_accel_mps2[0, 1:, 0] == -8.0)
    return np.array(rows)


def test_one_car_at_a_time_claims_to_brake_and_not_always_the_same():
    liars = set()
    for seed in range(6):
        lying = claims(seed)
        assert not lying[:100].any()
        assert lying.sum(axis=1).max() == 1
        for alarm in range(1, 4):
            during = lying[100 * alarm + 2 : 100 * alarm + 20]
            assert during.any(axis=1).all()
            assert len(set(during.argmax(axis=1))) == 1
            assert not lying[100 * alarm + 23 : 100 * alarm + 99].any()
            liars.add((seed, alarm, int(during[0].argmax())))
    assert len({liar for *_, liar in liars}) > 2
    assert any(len({liar for seed, _, liar in liars if seed == one}) > 1 for one in range(6))  # every alarm draws anew


def test_a_liar_tells_the_speed_it_would_have_and_its_true_place():
    params = with_sections("ideal", alarms={"every_s": 10.0, "lasts_s": 2.0, "decel_mps2": 8.0})
    drive = Drive(params, [30.0], seeds=(1,), speed_mps=10.0).run(101)
    for _ in drive.steps(18):
        since = drive.state.message_sent_s[0, 1, 0] - 10.0
        assert drive.state.message_speed_mps[0, 1, 0] == pytest.approx(max(0.0, 10.0 - 8.0 * since))
        assert drive.state.message_x_m[0, 1, 0] == pytest.approx(30.0 + 10.0 * drive.state.message_sent_s[0, 1, 0])


def test_nobody_lies_in_other_radios():
    for name in ("convoy", "lossy:0.3,4.6", "off"):
        assert read_params(name).alarms is None
