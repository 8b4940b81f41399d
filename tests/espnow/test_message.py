import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadsense.espnow.message import MESSAGE_BYTES, MessageError, V2VMessage, decode, encode, problems

MESSAGE = V2VMessage(
    vehicle_id="V002", timestamp_ms=123456, latitude_deg=48.5, longitude_deg=9.25, altitude_m=410.0, speed_mps=13.5,
    heading_deg=271.25, longitudinal_accel_mps2=-6.5, lateral_accel_mps2=0.25, accel_mps2=(-6.5, 0.25, 9.75),
    gyro_radps=(0.0, 0.5, -0.25), mag_ut=(20.0, -3.5, 44.0), risk_level=2, scenario_type=1, confidence=0.75,
    hop_count=1, source_mac=bytes([0x24, 0x6F, 0x28, 1, 2, 3]),
)  # fmt: skip


def float32(low, high):
    return st.floats(low, high, width=32)


messages = st.builds(
    V2VMessage,
    version=st.just(1),
    vehicle_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    timestamp_ms=st.integers(0, 2**32 - 1),
    latitude_deg=float32(-90, 90), longitude_deg=float32(-180, 180), altitude_m=float32(-500, 10_000),
    speed_mps=float32(0, 120), heading_deg=float32(0, 359.9375),
    longitudinal_accel_mps2=float32(-160, 160), lateral_accel_mps2=float32(-160, 160),
    accel_mps2=st.tuples(*[float32(-160, 160)] * 3), gyro_radps=st.tuples(*[float32(-35, 35)] * 3),
    mag_ut=st.tuples(*[float32(-5000, 5000)] * 3), risk_level=st.integers(0, 255), scenario_type=st.integers(0, 255),
    confidence=float32(0, 1), hop_count=st.integers(0, 3), source_mac=st.binary(min_size=6, max_size=6),
)  # fmt: skip


@given(messages)
def test_what_is_encoded_is_decoded(message):
    assert decode(encode(message)) == message


def test_every_field_stands_where_the_boards_read_it():
    data = encode(MESSAGE)
    assert len(data) == MESSAGE_BYTES == 90
    assert data[0] == 1
    assert data[1:9] == b"V002\0\0\0\0"
    assert struct.unpack_from("<I", data, 9) == (123456,)
    assert struct.unpack_from("<7f", data, 13) == (48.5, 9.25, 410.0, 13.5, 271.25, -6.5, 0.25)
    assert struct.unpack_from("<9f", data, 41) == (-6.5, 0.25, 9.75, 0.0, 0.5, -0.25, 20.0, -3.5, 44.0)
    assert (data[77], data[78]) == (2, 1)
    assert struct.unpack_from("<f", data, 79) == (0.75,)
    assert data[83] == 1
    assert data[84:] == MESSAGE.source_mac


def test_a_position_is_known_to_the_quantum_of_float32():
    north = decode(encode(replace(MESSAGE, latitude_deg=48.1234567))).latitude_deg
    assert north == float(np.float32(48.1234567))
    assert 0 < abs(north - 48.1234567) * 111_000 < 0.43 / 2  # metres; rounding is to the nearer of two neighbours


@pytest.mark.parametrize("size", [0, 89, 91, 250])
def test_another_length_is_refused(size):
    with pytest.raises(MessageError, match=f"{size} bytes, not 90"):
        decode(bytes([1]) * size)


def test_another_version_is_refused():
    with pytest.raises(MessageError, match="layout version 2, this one reads 1"):
        decode(b"\2" + encode(MESSAGE)[1:])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latitude_deg", 90.1), ("latitude_deg", math.nan), ("longitude_deg", -180.1), ("altitude_m", math.inf),
        ("speed_mps", -0.1), ("speed_mps", 121.0), ("heading_deg", 360.0), ("heading_deg", -1.0),
        ("longitudinal_accel_mps2", -161.0), ("lateral_accel_mps2", math.nan), ("accel_mps2", (0.0, math.nan, 0.0)),
        ("gyro_radps", (36.0, 0.0, 0.0)), ("mag_ut", (0.0, 0.0, -5001.0)), ("confidence", 1.01), ("hop_count", 4),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_by_name_on_both_ends(field, value):
    with pytest.raises(MessageError, match=f"{field} is "):
        encode(replace(MESSAGE, **{field: value}))
    data = bytearray(encode(MESSAGE))
    first = {"latitude_deg": 13, "longitude_deg": 17, "altitude_m": 21, "speed_mps": 25, "heading_deg": 29,
             "longitudinal_accel_mps2": 33, "lateral_accel_mps2": 37, "accel_mps2": 41, "gyro_radps": 53,
             "mag_ut": 65, "confidence": 79}  # fmt: skip
    if field == "hop_count":
        data[83] = value
    else:
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into(f"<{len(values)}f", data, first[field], *values)
    with pytest.raises(MessageError, match=f"{field} is "):
        decode(bytes(data))


@pytest.mark.parametrize("vehicle_id", ["", "V00000002", "Vé2", "V\n2"])
def test_an_id_that_no_board_has_is_refused(vehicle_id):
    with pytest.raises(MessageError, match="vehicle_id"):
        encode(replace(MESSAGE, vehicle_id=vehicle_id))


def test_bytes_behind_the_end_of_an_id_are_refused():
    data = bytearray(encode(MESSAGE))
    data[7] = ord("X")
    with pytest.raises(MessageError, match="vehicle_id goes on after its end"):
        decode(bytes(data))


def test_all_problems_are_told_at_once():
    found = problems(replace(MESSAGE, speed_mps=-1.0, hop_count=9, source_mac=b"", accel_mps2=(0.0, 0.0)))
    assert len(found) == 4


def test_noise_is_no_message():
    """Of 10,000 random blocks with the right version nearly none passes for a car."""
    rng = np.random.default_rng(1)
    passed = 0
    for block in rng.integers(0, 256, (10_000, 90), np.uint8):
        block[0] = 1
        try:
            decode(block.tobytes())
            passed += 1
        except MessageError:
            pass
    assert passed == 0
