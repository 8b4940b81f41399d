"""The board's C reads messages as Python does, and from a recorded stream builds the observation that Python builds."""

import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation, observe
from roadsense.convoy.world import WORLD_DTYPE
from roadsense.espnow.calibration.places import EARTH_M
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.message import MESSAGE_BYTES, MessageError, V2VMessage, decode, encode
from roadsense.espnow.profiles import read_params
from roadsense.export.c import export_c
from roadsense.philox import LANES
from roadsense.policies.runtime import Policy

from ..espnow.test_message import MESSAGE
from ..policies.networks import random_actor, write_run
from .test_c import HERE, SANITIZED

pytestmark = pytest.mark.usefixtures("require_compilers")

PORTABLE = HERE.parents[1] / "examples" / "esp32" / "main"
STEPS, WARM_UP = 600, 30
CARS = 6
DEG_PER_M = math.degrees(1.0 / EARTH_M)


@pytest.fixture(scope="module", params=[1, 3], ids=["newest", "three"])
def board(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    write_run(folder, random_actor(), messages_per_peer=request.param)
    export_c(folder)
    sources = [PORTABLE / "message.c", PORTABLE / "peer_table.c", folder / "model.c", HERE / "board.c"]
    command = [*SANITIZED, f"-I{folder}", f"-I{PORTABLE}", *map(str, sources), "-lm", "-o", str(folder / "board")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def play(board: Path, stream: bytes) -> list[list[str]]:
    (board / "stream").write_bytes(stream)
    done = subprocess.run([str(board / "board"), str(board / "stream")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def us(seconds: float) -> bytes:
    return np.int64(round(1e6 * seconds)).tobytes()


def wire(message: np.void, name: str, hops: int) -> bytes:
    """What the board of a car sends; near 0° a float32 knows a place to less than a millimetre."""
    sent = replace(
        MESSAGE, vehicle_id=name, timestamp_ms=int(message["timestamp_ms"]) % 2**32,
        latitude_deg=float(message["y_m"]) * DEG_PER_M, longitude_deg=float(message["x_m"]) * DEG_PER_M,
        speed_mps=float(message["speed_mps"]), heading_deg=compass(message["heading_rad"]),
        longitudinal_accel_mps2=float(message["accel_mps2"]), hop_count=hops,
    )  # fmt: skip
    return encode(sent)


def compass(heading_rad: float) -> float:
    degrees = np.float32((90.0 - math.degrees(heading_rad)) % 360.0)
    return float(degrees) if degrees < 360.0 else 0.0


def own_state(car: np.void, action: float) -> bytes:
    place = np.array([car["y_m"], car["x_m"]]) * DEG_PER_M
    rest = [car["speed_mps"], car["accel_mps2"], compass(car["heading_rad"]), action]
    return place.tobytes() + np.array(rest, np.float32).tobytes()


def record(radio: str, per_peer: int, seed: int = 3) -> tuple[bytes, Observation]:
    """A stream of what reached the ego of a convoy in a bend, and what Python observed at every step of it."""
    emulator = Emulator(1, CARS, per_peer, max_frames=4000)
    emulator.reset(0, seed, read_params(radio))
    rows = (CARS - 1) * per_peer
    one, seen = Observation.zeros(1, rows), []
    scratch = np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows + LANES)
    world = np.zeros(1, WORLD_DTYPE)
    world["seed"] = seed
    events: list[tuple[float, int, bytes]] = []
    present = np.ones((1, CARS), np.bool_)
    number = np.arange(CARS)
    for step in range(-WARM_UP, STEPS):
        now_s = 0.1 * step
        radius_m, speed = 300.0, 15.0 + 3.0 * np.sin(0.3 * now_s + number)
        angle = (40.0 * number + 15.0 * now_s) / radius_m
        x, y = radius_m * np.sin(angle), radius_m * (1.0 - np.cos(angle))
        accel = 0.9 * np.cos(0.3 * now_s + number)
        transmits = present.copy()
        transmits[0, 2] = step % 200 < 120  # is silent for 8 s, again and again
        emulator.step(
            np.array([step]), x[None], y[None], speed[None], accel[None], angle[None], present, transmits
        )  # fmt: skip
        arrays = emulator.arrays
        count = int(arrays.frame_count[0])
        assert count <= len(arrays.frames)
        frames = arrays.frames[:count]
        frames = frames[(frames["receiver"] == 0) & np.isfinite(frames["arrival_s"]) & (frames["source"] != 0)]
        told = arrays.messages_of(frames["world"], frames["source"], frames["generation"])
        for frame, message in zip(frames, told, strict=True):
            name = f"V{int(frame['source']) + 1:03d}"
            data = b"M" + us(frame["arrival_s"]) + wire(message, name, int(frame["hops"]))
            events.append((float(frame["arrival_s"]), 0, data))
        if step < 0:
            continue
        world["step"], world["action"] = step, 0.5 + 0.5 * math.sin(step)
        observe(world[0], arrays, 0, one, *scratch)
        seen.append(Observation(*(array.copy() for array in one)))
        state = b"T" + us(now_s) + own_state(arrays.cars[0, 0], float(world["action"][0]))
        events.append((now_s, 1, state))
    # steps of the warm-up end without a decision, but end the windows of the last second
    events += [(0.1 * step, 1, b"T" + us(0.1 * step) + bytes(32)) for step in range(-WARM_UP, 0)]
    events.sort(key=lambda event: event[:2])
    return b"".join(data for _, _, data in events), Observation(
        *(np.concatenate(part) for part in zip(*seen, strict=True))
    )


def in_order(rows: np.ndarray) -> np.ndarray:
    """Rows by age, which is no two messages' own."""
    return rows[np.argsort(rows[:, 6], kind="stable")]


@pytest.mark.parametrize("radio", ["convoy", "5m", "lossy:0.5,3", "delayed:300"])
def test_a_recorded_stream_gives_the_observation_and_the_decision(board, radio):
    policy = Policy.load(board)
    stream, wanted = record(radio, policy.messages_per_peer)
    played = play(board, stream)[WARM_UP:]
    assert len(played) == STEPS
    counts, largest = [], 0.0
    for line, ego, peers, mask in zip(played, *wanted, strict=True):
        numbers = np.array([float(word) for word in line])
        rows = numbers[1 + NUM_EGO :].reshape(-1, NUM_PEER)
        counts.append(len(rows))
        assert len(rows) == mask.sum()
        np.testing.assert_allclose(numbers[1 : 1 + NUM_EGO], ego, atol=1e-6)
        np.testing.assert_allclose(in_order(rows), in_order(peers[mask == 1]), atol=2e-5)
        decided = policy.act_many(Observation(ego[None], peers[None], mask[None]), None)[0]
        largest = max(largest, abs(numbers[0] - decided))
    assert largest <= 5e-5
    assert min(counts) < max(counts)  # the silent one left the table and came back


def stated(line: list[str]) -> V2VMessage | None:
    """The message as the board printed it, with what it does not keep as in ``MESSAGE``."""
    if line == ["refused"]:
        return None
    name, stamp, *numbers, hops = line
    latitude, longitude, speed, heading, accel = (float(np.float32(number)) for number in numbers)
    return replace(
        MESSAGE, vehicle_id=bytes.fromhex(name).rstrip(b"\0").decode(), timestamp_ms=int(stamp), latitude_deg=latitude,
        longitude_deg=longitude, speed_mps=speed, heading_deg=heading, longitudinal_accel_mps2=accel,
        hop_count=int(hops),
    )  # fmt: skip


def read(data: bytes) -> V2VMessage | None:
    try:
        message = decode(data)
    except MessageError:
        return None
    kept = ("vehicle_id", "timestamp_ms", "latitude_deg", "longitude_deg", "speed_mps", "heading_deg",
            "longitudinal_accel_mps2", "hop_count")  # fmt: skip
    return replace(MESSAGE, **{name: getattr(message, name) for name in kept})


def test_any_bytes_are_read_or_refused_as_in_python(board):
    rng = np.random.default_rng(0)
    good = encode(MESSAGE)
    given = [good, b"", good[:-1], good + b"\0", bytes(MESSAGE_BYTES), b"\xff" * MESSAGE_BYTES]
    given += [bytes([version]) + good[1:] for version in (0, 2, 255)]
    names = (b"V002V002", b"V", b"", b"V\0\0\0\0\0\0x", b"V\x7f", b"V\xe9", b"\0V002", b"\x1f")
    given += [good[:1] + name.ljust(8, b"\0") + good[9:] for name in names]
    edges = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 1e-45]
    for bound in (90.0, 180.0, 500.0, 1e4, 120.0, 360.0, 160.0, 35.0, 5000.0, 1.0):
        edges += [sign * np.nextafter(np.float32(bound), np.float32(to)) for sign in (1, -1) for to in (0, 1e9)]
        edges += [bound, -bound]
    for place in (*range(13, 77, 4), 79):
        given += [good[:place] + np.float32(edge).tobytes() + good[place + 4 :] for edge in edges]
    given += [good[:83] + bytes([hops]) + good[84:] for hops in range(256)]
    for _ in range(3000):
        changed = bytearray(good)
        for place in rng.integers(0, MESSAGE_BYTES, rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        given.append(bytes(changed))
    stream = b"".join(b"D" + np.uint32(len(data)).tobytes() + data for data in given)
    of_board = [stated(line) for line in play(board, stream)]
    of_python = [read(data) for data in given]
    assert of_board == of_python
    assert 500 < sum(message is None for message in of_python) < len(given) - 500


def step_at(now_s: float, heading_deg: float = 0.0, longitude_deg: float = 0.0, speed: float = 10.0) -> bytes:
    place = np.array([0.0, longitude_deg]).tobytes()
    return b"T" + us(now_s) + place + np.array([speed, 0.0, heading_deg, 0.0], np.float32).tobytes()


def message_at(arrived_s: float, **changes: object) -> bytes:
    plain = replace(MESSAGE, latitude_deg=0.0, longitude_deg=0.0, speed_mps=10.0, heading_deg=0.0, hop_count=0)
    return b"M" + us(arrived_s) + encode(replace(plain, **changes))  # type: ignore[arg-type]


def rows_of(line: list[str]) -> int:
    return (len(line) - 1 - NUM_EGO) // NUM_PEER


@pytest.mark.parametrize(
    ("between", "shown"),
    [
        (message_at(0.9, timestamp_ms=1000), 0),
        (message_at(0.9, timestamp_ms=2001), 1),
        (message_at(0.9, timestamp_ms=2000), 0),
        (message_at(0.9, vehicle_id="V001", timestamp_ms=9000), 0),
    ],
    ids=["older", "newer", "copy", "own"],
)
def test_a_peer_is_stale_after_half_a_second_and_only_news_bring_it_back(board, between, shown):
    first = message_at(0.0, timestamp_ms=2000)
    lines = play(board, first + step_at(0.5) + step_at(0.500001) + between + step_at(1.0))
    assert [rows_of(line) for line in lines] == [1, 0, shown]


def test_a_sender_that_restarted_is_believed_after_a_silence(board):
    lines = play(
        board,
        message_at(0.0, timestamp_ms=900_000) + message_at(1.0, timestamp_ms=5) + step_at(1.0)
        + message_at(2.1, timestamp_ms=1100) + step_at(2.1) + message_at(2.2, timestamp_ms=1200) + step_at(2.2),
    )  # fmt: skip
    assert rows_of(lines[0]) == 0 and rows_of(lines[1]) == 1 and rows_of(lines[2]) >= 1


def test_a_sender_whose_clock_wraps_goes_on(board):
    stream = message_at(0.0, timestamp_ms=2**32 - 50) + message_at(0.1, timestamp_ms=50, speed_mps=20.0) + step_at(0.1)
    rows = np.array(play(board, stream)[0][1 + NUM_EGO :], float).reshape(-1, NUM_PEER)
    assert rows[0, 2] == 0.5 and rows[0, 6] == 0.0  # 10 m/s faster, just arrived


def test_the_table_takes_sixteen_and_gives_up_only_stale_ones(board):
    crowd = b"".join(message_at(0.001 * k, vehicle_id=f"P{k}", timestamp_ms=k) for k in range(17))
    later = message_at(0.6, vehicle_id="late", timestamp_ms=1)
    assert [rows_of(line) for line in play(board, crowd + step_at(0.1) + later + step_at(0.6))] == [16, 1]


def test_the_peer_that_was_silent_longest_is_forgotten_first(board):
    crowd = b"".join(message_at(0.01 * k, vehicle_id=f"P{k}", timestamp_ms=k) for k in range(16))
    later = message_at(0.8, vehicle_id="late", timestamp_ms=1)
    copies = b"".join(message_at(0.8, vehicle_id=f"P{k}", timestamp_ms=k) for k in range(1, 16))
    assert rows_of(play(board, crowd + later + copies + step_at(0.8))[0]) == 1


def test_offsets_go_across_the_date_line(board):
    stream = message_at(0.0, longitude_deg=-180.0) + step_at(0.0, heading_deg=90.0, longitude_deg=179.999)
    row = np.array(play(board, stream)[0][1 + NUM_EGO :], float)
    assert row[:2] == pytest.approx([math.radians(0.001) * EARTH_M / 100.0, 0.0], abs=1e-5)
    assert row[3:5] == pytest.approx([1.0, 0.0], abs=1e-6)  # it goes north, the car east: to the left


def test_a_degree_of_longitude_is_shorter_in_the_north(board):
    stream = message_at(0.0, latitude_deg=60.0, longitude_deg=0.001953125, heading_deg=0.0)
    own = np.array([60.0, 0.0]).tobytes() + np.array([10.0, 0.0, 0.0, 0.0], np.float32).tobytes()
    row = np.array(play(board, stream + b"T" + us(0.0) + own)[0][1 + NUM_EGO :], float)
    assert row[:2] == pytest.approx([0.0, -0.5 * math.radians(0.001953125) * EARTH_M / 100.0], abs=1e-6)


def test_features_are_clipped(board):
    far = message_at(
        0.0, latitude_deg=0.1, longitude_deg=-0.1, speed_mps=120.0, longitudinal_accel_mps2=-160.0, hop_count=3
    )
    row = np.array(play(board, far + step_at(0.3))[0][1 + NUM_EGO :], float)
    np.testing.assert_allclose(row, [4.0, 4.0, 3.0, 0.0, 1.0, -2.0, 0.6, 1.0], rtol=1e-6)


def test_with_nobody_in_the_table_nothing_was_heard(board):
    alone, after = play(board, step_at(0.0) + message_at(0.05) + step_at(0.6))
    for line in (alone, after):
        assert rows_of(line) == 0 and float(line[4]) == 0.0


def test_an_own_state_that_is_no_number_is_refused(board):
    assert play(board, message_at(0.0) + step_at(0.0, speed=math.nan))[0][0] == "refused"


@pytest.mark.parametrize("name", ["main.c", "sensors.c"])
def test_the_boards_own_part_fits_the_portable_one(board, tmp_path, name):
    text = (PORTABLE / name).read_text()
    for header in re.findall(r'#include "((?:esp_|freertos/|nvs_)[\w/]*\.h)"', text):
        (tmp_path / header).parent.mkdir(exist_ok=True)
        (tmp_path / header).write_text('#include "idf.h"\n')
    command = ["gcc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{board}", f"-I{tmp_path}"]
    subprocess.run([*command, f"-I{HERE}", str(PORTABLE / name)], check=True)
