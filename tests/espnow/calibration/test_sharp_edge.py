"""A gamma of shape 1 begins with a jump, which says most about the shift; nothing may blur it."""

import numpy as np
import pytest

from roadsense.espnow.calibration.latency_law import ClockError, fit_latency

N, LEAST_MS, SCALE_MS = 45_000, 2.156, 1.4


@pytest.mark.parametrize("number", [1, 5])
def test_intervals_of_drifting_groups_cover_a_law_with_an_edge(number):
    covered, errors, rounds = np.zeros(4), [], 6
    truth = np.array([LEAST_MS, 1.0, SCALE_MS, LEAST_MS + SCALE_MS + 0.006 * 30.0])
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        groups, along = rng.integers(0, number, N), rng.random(N) - 0.5
        late = (rng.random(N) < 0.006) * rng.uniform(10.0, 50.0, N)
        seen = LEAST_MS + rng.gamma(1.0, SCALE_MS, N) + late + rng.random(N) - 0.5
        seen += 0.1 * along * (groups % 3 - 1)  # what is left of the clocks' drift
        law = fit_latency(
            seen, rng.integers(0, 700, N), ClockError(1.0, 1), (10.0, 60.0), 0.95, groups,
            np.full(number, 1.0 / number), along,
        )  # fmt: skip
        found = (law.shift_ms, law.shape, law.scale_ms, law.mean_ms)
        covered += [figure.covers(true) for figure, true in zip(found, truth, strict=True)]
        errors.append([figure.value for figure in found] - truth)
    assert covered.min() >= 4  # of 6 at 95 %: fewer has probability .2 %
    assert np.abs(np.mean(errors, axis=0)) == pytest.approx(0.0, abs=0.02)
