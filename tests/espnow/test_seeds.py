"""Same seed, same bits: alone, in a batch, in wider arrays, after another episode; another seed differs."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import ndtr

from roadsense.espnow.emulator import Emulator
from roadsense.espnow.profiles import read_params
from roadsense.espnow.tables import TABLE_DTYPE, fill_tables
from tests.espnow.drives import Drive, changed, with_sections

AHEAD = [15.0, 40.0, 70.0]


def _run(seeds, params=None, **kwargs):
    """Everything readers see over 80 ticks: {name: [tick, world, car, ...]}."""
    drive = Drive(params or read_params("convoy"), AHEAD, speed_mps=20.0, seeds=seeds, first=-30, **kwargs)
    ticks = [drive.snapshot() for _ in drive.steps(80)]
    return {name: np.array([tick[name] for tick in ticks]) for name in ticks[0]}


@pytest.mark.parametrize("randomise", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["direct", "medium and relays"])
@pytest.mark.parametrize(
    ("seeds", "place", "max_cars"),
    [((1, 2, 7, 3), 2, 4), ((7, 1), 0, 17), ((7,) * 3, 1, 9), ((*range(100, 300), 7), 200, 4)],
)
def test_an_episode_does_not_depend_on_its_company(seeds, place, max_cars, randomise, whole):
    params = with_sections("convoy", phy={}, relays={}) if whole else None
    alone = _run((7,), params, randomise=randomise)
    company = _run(seeds, params, max_cars=max_cars, randomise=randomise)
    for name, array in alone.items():
        np.testing.assert_array_equal(array[:, 0], company[name][:, place, : len(AHEAD) + 1], err_msg=name)


def test_another_seed_differs_in_everything_drawn():
    one, other = _run((7,)), _run((8,))
    for name in ("reading_x_m", "reading_speed_mps", "reading_accel_mps2", "reading_heading_rad", "received", "lost"):
        assert not np.array_equal(one[name], other[name]), name
    assert not np.array_equal(one["message_arrival_s"], other["message_arrival_s"])


def test_an_episode_leaves_nothing_behind():
    params = read_params("convoy")
    used, fresh = (Drive(params, AHEAD, speed_mps=20.0, first=-30, seeds=(seed,)) for seed in (99, 7))
    used.run(100)
    used.emulator.reset(0, 7, params)
    used.tick = fresh.tick
    for _ in range(60):
        used.step()
        fresh.step()
        for name, array in fresh.snapshot().items():
            np.testing.assert_array_equal(used.snapshot()[name], array, err_msg=name)


def test_cars_are_independent_of_each_other():
    """Which other cars exist shifts no draw: alone on the road, on its own medium, a peer is the same."""
    both, one = (Drive(changed("convoy", phy=None, relays=None), AHEAD[:2], seeds=(7,)) for _ in range(2))
    one.alive[0, 1] = False
    both.run(200)
    one.run(200)
    for name in ("message_x_m", "message_arrival_s", "received_total", "lost_total", "reading_x_m"):
        np.testing.assert_array_equal(getattr(both.state, name)[0, 2], getattr(one.state, name)[0, 2])
    assert not np.array_equal(both.state.lost_total[0, 1], both.state.lost_total[0, 2])


def test_another_process_gives_the_same_bits():
    script = (
        "from tests.espnow.test_seeds import _run\nimport hashlib\n"
        "seen = _run((7, 12))\n"
        "print(hashlib.sha256(b''.join(seen[n].tobytes() for n in sorted(seen))).hexdigest())"
    )
    here = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    seen = _run((7, 12))
    assert here.stdout.strip() == hashlib.sha256(b"".join(seen[n].tobytes() for n in sorted(seen))).hexdigest()


def shares(tables):
    """Mean loss over cars, by step of the loss table: the offset of a link has twice the variance of a car's."""
    return ndtr(tables["loss_margin"] / np.sqrt(1 + 2 * tables["placement_sd"][..., None] ** 2))


def test_randomisation_stays_in_its_ranges_and_follows_the_seed():
    params = read_params("convoy")
    tables, plain = np.zeros(500, TABLE_DTYPE), np.zeros(1, TABLE_DTYPE)
    fill_tables(plain, 0, params)
    for seed in range(500):
        fill_tables(tables, seed, params, seed)
    factors = {}
    loss = shares(tables)
    for name, (low, high) in {
        "latency_shift_s": params.randomisation.latency_scale,
        "gps_sigma_m": params.randomisation.gps_sigma_scale,
        "speed_sd_mps": params.randomisation.noise_scale,
    }.items():
        factor = tables[name].reshape(500, -1)[:, 0] / plain[name].reshape(1, -1)[0, 0]
        assert low - 1e-9 <= factor.min() < low + 0.05 * (high - low) and factor.max() <= high + 1e-9
        assert factor.mean() == pytest.approx((low + high) / 2, rel=0.05)
        factors[name] = factor
    factors["loss"] = loss[:, 0] / params.loss.probability[0]
    low, high = params.randomisation.loss_scale
    assert low - 1e-9 <= factors["loss"].min() < low + 0.05 and high - 0.05 < factors["loss"].max() <= high + 1e-9
    correlations = np.corrcoef(list(factors.values()))
    assert np.abs(correlations - np.eye(4)).max() < 0.2
    np.testing.assert_allclose(tables["tail_to_s"] / 0.06, factors["latency_shift_s"])
    np.testing.assert_allclose(tables["heading_sd_rad"] / plain["heading_sd_rad"], factors["speed_sd_mps"])
    again = np.zeros(1, TABLE_DTYPE)
    fill_tables(again, 0, params, 123)
    assert again[0].tobytes() == tables[123].tobytes() != tables[124].tobytes()
    burst = tables["loss_burst"][:, 1]
    assert params.loss.mean_burst[1] * 0.99 < burst.min() and burst.max() < 3.01 * params.loss.mean_burst[1]


def test_without_randomisation_tables_are_the_parameters():
    params = read_params("drive")
    emulator = Emulator(num_worlds=2, max_cars=3)
    emulator.reset(1, 5, params)
    row = emulator.tables[1]
    assert row["latency_shift_s"] == params.latency.shift_ms / 1000
    np.testing.assert_allclose(shares(row)[:5], [*params.loss.probability, 1.0], atol=1e-12)
    assert row["loss_burst"][:4].tolist() == list(params.loss.mean_burst)
    assert row["loss_from_m"][:5].tolist() == [*params.loss.from_m, params.loss.range_m]
    assert row["gps_sigma_m"] == params.gps.sigma_m and row["stale_after_s"] == 0.5
