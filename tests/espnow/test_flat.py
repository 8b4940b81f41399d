"""The older flat layout: measured files read into today's layout, and what is impossible in them is named."""

import copy
import json
import math

import numpy as np
import pytest

from roadsense.errors import ParamsError
from roadsense.espnow.profiles import read_params

FLAT = {
    "latency": {"base_ms": 3.84, "distance_factor": 0.0, "jitter_std_ms": 1.044},
    "packet_loss": {
        "base_rate": 0.058, "distance_threshold_1": 50, "distance_threshold_2": 100,
        "rate_tier_1": 0.1158, "rate_tier_2": 0.1241, "rate_tier_3": 0.1862,
    },
    "burst_loss": {"enabled": True, "mean_burst_length": 1.245, "loss_multiplier": 2.5, "max_loss_cap": 0.1862},
    "sensor_noise": {
        "gps_std_m": 2.958877, "speed_std_ms": 0.42902, "accel_std_ms2": 0.394804, "gyro_std_rad_s": 0.023215,
        "heading_std_deg": 4.711787, "mag_std_ut": 0.502409,
    },
    "observation": {"staleness_threshold_ms": 500},
    "domain_randomization": {
        "latency_range_ms": [1.92, 7.68], "loss_rate_range": [0.029, 0.2316], "jitter_std_range_ms": [0.52, 2.09],
        "gps_noise_range_m": [0.5, 4.438],
    },
    "_metadata": {"source": "a recording", "healthy_links": ["V001->V003"]},
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Reads the flat layout with changes: dotted key → value, or None to leave it out."""

    def build(**changes):
        document = copy.deepcopy(FLAT)
        for dotted, value in changes.items():
            section, key = dotted.split("__")
            if value is None:
                del document[section][key]
            else:
                document[section][key] = value
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(document))
        return read_params(path)

    return build


def test_every_figure_arrives(read):
    params = read()
    assert params.name == "mine"
    assert params.loss.from_m == (0.0, 50.0, 75.0, 100.0)
    assert params.loss.probability == (0.058, 0.1158, 0.1241, 0.1862)
    assert params.loss.mean_burst == (1.245, 1.245, 1.245, 1.245)
    assert params.gps.sigma_m == 2.958877
    assert dict(params.noise) == {"speed_mps": 0.42902, "accel_mps2": 0.394804, "heading_deg": 4.711787}
    assert params.stale_after_ms == 500.0
    assert params.randomisation.loss_scale == pytest.approx((0.5, 0.2316 / 0.058))
    assert params.randomisation.latency_scale == pytest.approx((0.5, 2.0))
    assert "flat layout" in params.provenance["source"]
    assert "a recording" in params.provenance["metadata"]
    assert params.provenance["not carried over"] == (
        "burst_loss.loss_multiplier, burst_loss.max_loss_cap, sensor_noise.gyro_std_rad_s, sensor_noise.mag_std_ut, "
        "domain_randomization.jitter_std_range_ms"
    )


@pytest.mark.parametrize(("mean", "deviation"), [(3.84, 1.044), (3.0, 2.9), (2.0, 4.0), (5.0, 0.0)])
def test_latency_keeps_its_mean_and_deviation(read, mean, deviation):
    latency = read(latency__base_ms=mean, latency__jitter_std_ms=deviation).latency
    assert latency.mean_ms == pytest.approx(mean)
    assert math.sqrt(latency.shape) * latency.scale_ms == pytest.approx(deviation)
    assert latency.shift_ms >= 0.0


def test_a_burst_too_short_for_its_loss_is_the_shortest_possible(read):
    params = read(packet_loss__rate_tier_2=0.6, packet_loss__rate_tier_3=1.0)
    assert params.loss.mean_burst == pytest.approx((1.245, 1.245, 2.5, 1.245))  # 1 / (1 - 0.6)


def test_without_bursts_losses_are_independent(read):
    params = read(burst_loss__enabled=False)
    assert params.loss.mean_burst == pytest.approx([1 / (1 - share) for share in params.loss.probability])


def test_noise_in_motion_goes_before_noise_at_rest(tmp_path):
    moving = {**FLAT["sensor_noise"], "gps_std_m": 2.5}
    still = {**FLAT["sensor_noise"], "gps_std_m": 0.1}
    path = tmp_path / "both.json"
    path.write_text(json.dumps({**FLAT, "sensor_noise": still, "sensor_noise_driving": moving}))
    assert read_params(path).gps.sigma_m == 2.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sensor_noise__gps_std_m": 33_000.0}, "sensor_noise.gps_std_m is 33000.0, input should be less than"),
        ({"sensor_noise__speed_std_ms": -1.0}, "sensor_noise.speed_std_ms is -1.0"),
        ({"packet_loss__rate_tier_1": 1.2}, "packet_loss.rate_tier_1 is 1.2"),
        ({"packet_loss__distance_threshold_2": 40}, "packet_loss: distance_threshold_2 is 40, not beyond"),
        ({"latency__base_ms": None}, "latency.base_ms is missing, add it"),
        ({"latency__base": 3.0}, "latency.base is unknown, did you mean 'base_ms'"),
        ({"latency__base_ms": 1.0, "latency__jitter_std_ms": 20.2}, "jitter_std_ms 20.2 is more than three times"),
        ({"burst_loss__mean_burst_length": 0.5}, "burst_loss.mean_burst_length is 0.5"),
    ],
)
def test_what_is_impossible_is_named_as_the_file_names_it(read, tmp_path, changes, said):
    with pytest.raises(ParamsError) as caught:
        read(**changes)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "mine.json"))
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once(read):
    with pytest.raises(ParamsError) as caught:
        read(sensor_noise__gps_std_m=33_000.0, latency__base_ms=None, packet_loss__rate_tier_9=0.1)
    for said in ("gps_std_m is 33000", "base_ms is missing", "rate_tier_9 is unknown, did you mean 'rate_tier_"):
        assert said in str(caught.value)


def test_the_same_file_drives_the_emulator(read):
    from roadsense.espnow.emulator import Emulator

    emulator = Emulator(1, 2)
    emulator.reset(0, seed=3, params=read())
    here, still = np.array([[0.0, 30.0]]), np.zeros((1, 2))
    everyone = np.ones((1, 2), np.bool_)
    for step in range(5000):
        emulator.step(np.array([step]), here, still, still, still, still, everyone, everyone)
    received, lost = (int(emulator.state._asdict()[name][0, 1]) for name in ("received_total", "lost_total"))
    share = lost / (received + lost)
    assert abs(share - 0.058) < 4 * math.sqrt(0.058 * 0.942 * 1.5 / 5000)  # bursts widen it
