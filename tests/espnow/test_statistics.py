"""What the emulator produces, re-estimated, equals its parameters.

The seed is fixed and not changed to pass. Every interval is the 1 - 0.001/m interval of its figure for the m figures
that a test compares, so a right emulator passes all of them with probability 0.999.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from roadsense.espnow.channel import bad_probability
from roadsense.espnow.profiles import read_params
from tests.espnow.drives import Drive, changed, links_alone

NOISY = ("5m", "convoy", "drive")
PROFILES = (*NOISY, "stationary_60_200")  # whose boards stood still: their speed has no error
SEEDS = tuple(range(2026, 2036))
STEPS = 3000


def _z(figures):
    return NormalDist().inv_cdf(1.0 - 0.0005 / figures)


def _losses(params, distances, seeds=SEEDS, steps=STEPS):
    """Whether each beacon of each link was lost: [beacon, link]; one peer per distance in each world."""
    drive = Drive(params, distances, seeds=seeds)
    drive.run(10)
    lost = [drive.state.lost[:, 1:].copy() for _ in drive.steps(steps)]
    return np.array(lost).reshape(steps, len(seeds), len(distances)) > 0


@pytest.mark.parametrize("name", PROFILES)
def test_loss_and_bursts_by_distance(name):
    params = links_alone(name, beacon={"drift_ppm_sd": 0.0})  # exactly one beacon a step
    table = params.loss
    inside = [from_m + 5.0 for from_m in table.from_m]
    all_lost = _losses(params, inside)
    z = _z(2 * len(inside))
    for step, (p, burst) in enumerate(zip(table.probability, table.mean_burst, strict=True)):
        lost = all_lost[:, :, step]
        assert lost.size >= 20_000
        if p == 1.0:
            assert lost.all()
            continue
        memory = 1.0 - 1.0 / ((1.0 - p) * burst)
        spread = math.sqrt(p * (1 - p) * (1 + memory) / (1 - memory) / lost.size)
        assert abs(lost.mean() - p) < z * spread, f"loss from {inside[step]} m"
        bad = lost[:-1]
        exits = (bad & ~lost[1:]).sum() / bad.sum()
        assert abs(exits - 1.0 / burst) < z * math.sqrt((1 - 1 / burst) / burst / bad.sum()), "P(exit) = 1 / mean burst"


def test_links_and_worlds_lose_independently():
    params = links_alone("drive", beacon={"drift_ppm_sd": 0.0})
    lost = _losses(params, [30.0] * 4, seeds=SEEDS[:4]).reshape(STEPS, 16)
    memory = 1.0 - 1.0 / ((1.0 - params.loss.probability[0]) * params.loss.mean_burst[0])
    spread = math.sqrt((1 + memory**2) / (1 - memory**2) / STEPS)
    assert np.abs(np.corrcoef(lost.T) - np.eye(16)).max() < _z(120) * spread


def test_first_beacons_all_lost():
    p, burst, seeds = 0.3, 4.6, range(40_000)
    params = changed("ideal", loss={"probability": (p,), "mean_burst": (burst,)}, beacon={"drift_ppm_sd": 0.0})
    drive, lost_so_far = Drive(params, [30.0], seeds=tuple(seeds)), np.ones(len(seeds), bool)
    drive.step()
    for k in range(1, 6):
        drive.step()
        lost_so_far &= drive.state.lost[:, 1] > 0
        expected = p * (1 - 1 / burst) ** (k - 1)
        assert abs(lost_so_far.mean() - expected) < _z(5) * math.sqrt(expected * (1 - expected) / len(seeds))


def test_burstiness_is_kept_in_time_not_per_beacon():
    """Beacons twice as often: a burst lasts as long, so it swallows more of them."""
    p, burst = 0.3, 4.6
    params = changed(
        "ideal", loss={"probability": (p,), "mean_burst": (burst,)}, beacon={"interval_ms": 50.0, "drift_ppm_sd": 0.0}
    )
    drive = Drive(params, [30.0], seeds=tuple(range(400)))
    drive.run(2)
    last_bad = np.array([drive.arrays.links["bad"][:, 0, 1].copy() for _ in drive.steps(500)])
    same = (last_bad[:-1] & last_bad[1:]).sum() / last_bad[:-1].sum()
    assert same == pytest.approx(bad_probability(True, p, math.log(1 - 1 / ((1 - p) * burst)) / 0.1, 0.1), abs=0.01)
    assert drive.state.received_total[:, 1].mean() == pytest.approx(2 * 501 * (1 - p), rel=0.02)


@pytest.mark.parametrize("elapsed_s", [0.1, 0.2, 0.3, 0.7])
def test_gilbert_elliott_in_closed_form_is_the_chain_stepped(elapsed_s):
    p, burst = 0.21, 2.1
    leave, enter = 1.0 / burst, p / ((1.0 - p) * burst)
    bad, good = 1.0, 0.0
    for _ in range(round(elapsed_s / 0.1)):
        bad = bad * (1 - leave) + (1 - bad) * enter
        good = good * (1 - leave) + (1 - good) * enter
    decay = math.log(1.0 - 1.0 / ((1.0 - p) * burst)) / 0.1
    assert bad_probability(True, p, decay, elapsed_s) == pytest.approx(bad, abs=1e-12)
    assert bad_probability(False, p, decay, elapsed_s) == pytest.approx(good, abs=1e-12)
    assert bad_probability(False, p, decay, math.inf) == p


def _latencies_ms(params, seeds=range(20), steps=3000):
    # Two kept: a late beacon may arrive in one step with its successor, and late ones must not be left out.
    drive = Drive(params, [10.0, 12.0, 14.0], seeds=tuple(seeds), kept=2)
    drive.run(20)
    arrived = []
    for _ in drive.steps(steps):
        new = np.arange(2) < drive.state.received[:, 1:, None]
        late = drive.state.message_arrival_s[:, 1:] - drive.state.message_sent_s[:, 1:]
        arrived.append(late[new])
    return np.concatenate(arrived) * 1000.0


@pytest.mark.parametrize("name", PROFILES)
def test_latency_against_an_independent_sampler(name):
    params = read_params(name).latency
    seen = _latencies_ms(links_alone(name))
    assert seen.size >= 20_000
    rng = np.random.default_rng(1)
    other = params.shift_ms + rng.gamma(params.shape, params.scale_ms, 2_000_000)
    other += (rng.random(other.size) < params.tail_probability) * rng.uniform(*params.tail_ms, other.size)
    other.sort()
    z = _z(5)
    for share in (0.05, 0.5, 0.95, 0.99):
        reached = np.searchsorted(other, np.quantile(seen, share)) / other.size
        assert abs(reached - share) < z * math.sqrt(share * (1 - share) / seen.size)
    assert abs(seen.mean() - params.mean_ms) < z * seen.std() / math.sqrt(seen.size)


@pytest.mark.parametrize("name", PROFILES)
def test_latency_with_its_medium_is_as_measured_in_the_field(name):
    params = changed(name, relays=None)
    mean_ms = params.latency.mean_ms + 1e3 * params.phy.airtime_s + 0.1  # waiting among three cars that relay
    assert mean_ms == pytest.approx({"5m": 3.10, "stationary_60_200": 3.94}.get(name, 3.84), abs=0.01)
    seen = _latencies_ms(params)
    p50, p95, p99 = np.quantile(seen, (0.5, 0.95, 0.99))
    assert 2.5 <= p50 <= 3.5
    assert 5.95 <= p95 <= 6.55
    assert 8.5 <= p99 <= 9.5
    assert 24.0 <= seen.max() <= 90.0


@pytest.mark.parametrize("shape", [0.5, 1.0, 4.0])
def test_gamma_of_any_shape(shape):
    latency = {"shift_ms": 0.0, "shape": shape, "scale_ms": 2.0}
    seen = _latencies_ms(changed("ideal", latency=latency), seeds=range(10))
    other = np.sort(np.random.default_rng(2).gamma(shape, 2.0, 2_000_000))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        reached = np.searchsorted(other, np.quantile(seen, share)) / other.size
        assert abs(reached - share) < _z(15) * math.sqrt(share * (1 - share) / seen.size)


@pytest.mark.parametrize("name", PROFILES)
def test_gps_error_is_an_ornstein_uhlenbeck_process(name):
    """Standing cars, noise of the other sensors off: the reading is the truth plus the error of the last fix."""
    params = changed(name, noise={"speed_mps": 0.0, "accel_mps2": 0.0, "heading_deg": 0.0})
    drive = Drive(params, [0.0] * 15, seeds=tuple(range(300)))
    sigma, tau, z = params.gps.sigma_m, params.gps.tau_s, _z(6)
    errors = {}
    for tick in drive.steps(602):
        errors[tick] = np.stack([drive.state.reading_x_m, drive.state.reading_y_m]).ravel()
    # 300 worlds of 16 cars and two axes, all independent.
    count = errors[0].size
    for tick in (0, 300, 601):
        assert abs(errors[tick].std() - sigma) < z * sigma / math.sqrt(2 * count)
        assert abs(errors[tick].mean()) < z * sigma / math.sqrt(count)
    for lag_s in (20, 55):  # from 1.5 s on, after the extra fix at the start, fixes are whole seconds apart
        kept = np.corrcoef(errors[15], errors[15 + 10 * lag_s])[0, 1]
        expected = math.exp(-lag_s / tau)
        assert abs(kept - expected) < z * (1 - expected**2) / math.sqrt(count)
    axes = np.stack([drive.state.reading_x_m.ravel(), drive.state.reading_y_m.ravel()])
    assert abs(np.corrcoef(axes)[0, 1]) < z / math.sqrt(count / 2)


@pytest.mark.parametrize("name", NOISY)
def test_white_noise_of_the_other_sensors(name):
    params = read_params(name)
    drive = Drive(params, [0.0] * 7, speed_mps=20.0, seeds=tuple(range(50)))
    seen = {"speed_mps": [], "accel_mps2": [], "heading_rad": []}
    for tick in drive.steps(50):
        seen["speed_mps"].append(drive.state.reading_speed_mps.ravel() - 20.0)
        seen["accel_mps2"].append(drive.state.reading_accel_mps2.ravel() - tick)
        seen["heading_rad"].append(drive.state.reading_heading_rad.ravel())
    noise = {**dict(params.noise), "heading_rad": math.radians(params.noise.heading_deg)}
    for quantity, values in seen.items():
        errors, sigma = np.array(values), noise[quantity]
        count = errors.size
        assert abs(errors.std() - sigma) < _z(9) * sigma / math.sqrt(2 * count)
        assert abs(errors.mean()) < _z(9) * sigma / math.sqrt(count)
        assert abs(np.corrcoef(errors[:-1].ravel(), errors[1:].ravel())[0, 1]) < _z(9) / math.sqrt(count)
    correlations = np.corrcoef([np.array(values).ravel() for values in seen.values()])
    assert np.abs(correlations - np.eye(3)).max() < _z(9) / math.sqrt(count)


def test_phases_and_periods_are_drawn_per_car():
    cars = Drive(read_params("convoy"), [10.0] * 15, seeds=tuple(range(400))).arrays.cars
    phases, periods = cars["beacon_phase_s"].ravel(), cars["beacon_period_s"].ravel()
    for phase, whole in ((phases, 0.1), (cars["gps_phase_s"].ravel(), 1.0)):
        assert 0.0 <= phase.min() < 0.01 * whole and 0.99 * whole < phase.max() < whole
        assert phase.mean() == pytest.approx(whole / 2, rel=0.03)
    assert (periods / 0.1 - 1.0).std() == pytest.approx(20e-6, rel=0.05)
    assert len(np.unique(phases)) == phases.size
