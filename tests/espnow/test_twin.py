"""The kernels against the plain-Python twin: the same tables, tick by tick."""

import numpy as np
import pytest

from roadsense.espnow.emulator import Emulator
from roadsense.espnow.profiles import read_params
from tests.espnow.drives import changed, with_sections
from tests.espnow.twin import World

SLOW = {"shape": 1.3, "tail_probability": 0.2, "tail_ms": (50.0, 300.0)}
LATE = {"shift_ms": 690.0, "shape": 1.0, "scale_ms": 0.0, "tail_probability": 0.0, "tail_ms": [0.0, 0.0]}
FLAT = {"from_m": [0.0], "probability": [0.3], "mean_burst": [2.0], "range_m": 1000.0}
CASES = {
    "5m": read_params("5m"),
    "convoy": read_params("convoy"),
    "drive": read_params("drive"),
    "overtaking": changed("drive", latency=SLOW),
    "held, dense, soon stale": changed(
        "convoy", latency=SLOW, beacon={"interval_ms": 75.0}, gps={"extrapolate": False, "rate_hz": 3.0},
        stale_after_ms=150.0,
    ),
    "far": changed("convoy", loss={"from_m": (0.0, 30.0, 60.0, 70.0), "range_m": 90.0}),
    "one medium": with_sections("drive", phy={}),
    "relays": with_sections("drive", phy={}, relays={}),
    "relays without a medium": with_sections("drive", relays={"max_hops": 1, "cone_deg": 20.0, "per_tick": 2}),
    "placement": with_sections("convoy", placement={"link_sd": 0.8, "door_probability": 0.2}, relays={}),
    "propagation": with_sections(
        "drive", propagation={"sensitivity_dbm": -84.0, "shadow_corr_m": 5.0, "fading_far_from_m": 40.0}
    ),
    "propagation and relays": with_sections(
        "convoy", phy={}, relays={}, propagation={"sensitivity_dbm": -76.0, "blocking_db": 4.0}
    ),
    "false alarms": with_sections("drive", alarms={"every_s": 3.0, "lasts_s": 1.3}, relays={}),
    "few relays of many": with_sections("drive", phy={}, relays={"per_tick": 1}),
    "overloaded": with_sections("drive", phy={"rate_kbps": 50.0}, relays={}),
    "overloaded, silent": with_sections("drive", phy={"rate_kbps": 54.0}),
    "very late and relayed": with_sections("ideal", loss=FLAT, latency=LATE, phy={}, relays={}),
    "crowded": with_sections("drive", phy={"rate_kbps": 250.0, "backoff_slots": 4}, relays={}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept", [1, 3])
def test_same_tables_every_tick(name, kept):
    params, seed, cars, first = CASES[name], np.uint64(20260), 6, -30
    emulator = Emulator(num_worlds=1, max_cars=cars, messages_per_peer=kept)
    emulator.reset(0, int(seed), params)
    state, twin = emulator.state, World(params, seed, cars, kept)
    rng = np.random.default_rng(5)
    x, y = 25.0 * np.arange(cars), np.zeros(cars)
    speed, heading = np.full(cars, 12.0), np.full(cars, 0.3)
    transmits = np.array([True, True, True, True, True, False])
    seen = relayed = 0
    for step in range(first, first + 400):
        accel = rng.normal(0, 2, cars)
        speed = np.maximum(0.0, speed + 0.1 * accel)
        heading = heading + rng.normal(0, 0.02, cars)
        x, y = x + 0.1 * speed * np.cos(heading), y + 0.1 * speed * np.sin(heading)
        alive = np.ones((1, cars), np.bool_)
        emulator.step(np.array([step]), *(a[None] for a in (x, y, speed, accel, heading)), alive, transmits[None])
        twin.step(step, x, y, speed, heading, accel, transmits)
        for c, car in enumerate(twin.cars):
            fields = ("x_m", "y_m", "speed_mps", "heading_rad", "accel_mps2")
            reading = [getattr(state, f"reading_{one}")[0, c] for one in fields]
            expected = [car.reading.x, car.reading.y, car.reading.speed, car.reading.heading, car.reading.accel]
            np.testing.assert_allclose(reading, expected, rtol=0, atol=1e-9)
            if c == 0:
                continue
            assert state.message_count[0, c] == len(twin.known[c])
            assert (state.received[0, c], state.lost[0, c]) == (twin.arrivals[c][-1], twin.lost[c])
            assert state.heard_last_second[0, c] == sum(twin.arrivals[c][-10:])
            for other in range(cars if params.relays else 1):
                assert emulator.arrays.links["pending"][0, other, c] == len(twin.inboxes[other, c].under_way)
            for entry, message in enumerate(twin.known[c]):
                at = 0, c, entry
                assert (state.message_generation[at], state.message_hops[at]) == (message.generation, message.hops)
                assert state.message_timestamp_ms[at] == message.stamp
                values = [getattr(state, f"message_{one}")[at] for one in (*fields, "sent_s", "arrival_s")]
                told = message.reading
                expected = [told.x, told.y, told.speed, told.heading, told.accel, message.sent, message.arrival]
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
                seen += 1
                relayed += message.hops > 0
    assert seen > (10 if name.startswith(("overloaded", "very late")) else 400)
    assert (relayed > (0 if name.startswith(("overloaded", "very late")) else 20)) == (params.relays is not None)
