"""The law of latencies, shift + gamma + rare uniform tail, by maximum likelihood on what clocks of milliseconds show.

A clock that shows whole milliseconds shows each time up to one too low, which is as much as the law is wide; so the
error of the clocks is a part of the likelihood. The time of arrival may lie anywhere within its millisecond: a uniform
error. A board whose stamps always end in the same digits sends at the same point of its millisecond, which only moves
everything; else the time of sending adds another uniform error, and the two together are a triangle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.figures import Figure
from roadsense.statistics import CONFIDENCE

Floats = NDArray[np.float64]

FEWEST = 200
"""With fewer latencies than this no law is fitted."""

FEWEST_IN_TAIL = 20
"""With fewer late ones the tail's range is taken as given and only its probability is estimated."""

_BIN_MS = 0.05
_FINEST_MS = 0.05
_NAMES = ("shift", "shape", "scale", "tail probability", "tail begin", "tail end")


@dataclass(frozen=True)
class LatencyLaw:
    """A fitted law; the figures are those of ``params.Latency`` by their names there, and its mean."""

    shift_ms: Figure
    shape: Figure
    scale_ms: Figure
    tail_probability: Figure
    tail_from_ms: Figure
    tail_to_ms: Figure
    mean_ms: Figure

    def figures(self) -> tuple[Figure, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class ClockError:
    """What clocks add to a latency."""

    step_ms: float
    """Resolution of the times."""
    times: int
    """How many of the two times vary within their step: 1 or 2."""

    @property
    def variance(self) -> float:
        return self.times * self.step_ms**2 / 12.0


def density(x_ms: Floats, law: Floats, error: ClockError) -> Floats:
    """Density of a latency seen through clocks.

    Args:
        x_ms: [n].
        law: shift, shape, scale, tail probability, begin and end of the tail.
        error: of the clocks; a step of 0 is taken as 0.05 ms.
    """
    from scipy.special import gammainc

    shift, shape, scale, share, begin, end = law
    y = (np.asarray(x_ms) - shift) / scale

    def integral(z: Floats) -> Floats:
        """Of the distribution function up to z."""
        positive = np.maximum(z, 0.0)
        return positive * gammainc(shape, positive) - shape * gammainc(shape + 1.0, positive)

    e = max(error.step_ms, _FINEST_MS) / scale
    if error.times == 1:
        body = (gammainc(shape, np.maximum(y + e / 2, 0.0)) - gammainc(shape, np.maximum(y - e / 2, 0.0))) / (e * scale)
    else:
        body = (integral(y + e) - 2.0 * integral(y) + integral(y - e)) / (e * e * scale)
    reached = gammainc(shape, np.maximum(y - begin / scale, 0.0)) - gammainc(shape, np.maximum(y - end / scale, 0.0))
    return np.maximum((1.0 - share) * body + share * reached / max(end - begin, 1e-9), 1e-12)


def fit_latency(
    latencies_ms: Floats,
    clusters: NDArray[np.int64],
    error: ClockError,
    usual_tail_ms: tuple[float, float],
    confidence: float = CONFIDENCE,
) -> LatencyLaw:
    """Fits the law; intervals allow for latencies of one cluster being alike (sandwich covariance).

    Args:
        latencies_ms: [message], as the clocks showed them.
        clusters: [message], block of time, numbered from 0.
        error: of the clocks.
        usual_tail_ms: range of the tail, for data that has too few late messages to tell.
        confidence: of the intervals.
    """
    from scipy.optimize import minimize

    cells, index, counts = np.unique(np.round(latencies_ms / _BIN_MS), return_inverse=True, return_counts=True)
    x_ms = cells * _BIN_MS
    start, late = _start(latencies_ms, error)
    free_tail = late >= FEWEST_IN_TAIL
    if not free_tail:
        start[4:] = usual_tail_ms

    def law_of(u: Floats) -> Floats:
        tail = (u[4], u[4] + math.exp(u[5])) if free_tail else usual_tail_ms
        share = 1.0 / (1.0 + math.exp(-u[3]))
        return np.array([u[0], math.exp(min(u[1], 20.0)), math.exp(u[2]), share, *tail])

    def unlikely(u: Floats) -> float:
        return -float(counts @ np.log(density(x_ms, law_of(u), error)))

    u: Any = [start[0], math.log(start[1]), math.log(start[2]), math.log(start[3] / (1.0 - start[3]))]
    if free_tail:
        u += [start[4], math.log(start[5] - start[4])]
    for _ in range(3):  # a simplex that has collapsed finds its way when it is set up anew
        found = minimize(unlikely, u, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-3})
        u = found.x
    covariance = _sandwich(u, lambda v: np.log(density(x_ms, law_of(v), error)), counts, index, clusters)
    return _law(u, covariance, law_of, free_tail, len(latencies_ms), confidence)


def _start(latencies_ms: Floats, error: ClockError) -> tuple[Floats, int]:
    """A law by moments of the body, and how many latencies lie beyond it."""
    median, low = np.median(latencies_ms), np.quantile(latencies_ms, 0.05)
    beyond = latencies_ms[latencies_ms > median + 8.0 * (median - low)]
    body = latencies_ms[latencies_ms <= median + 8.0 * (median - low)]
    variance = max(float(np.var(body)) - error.variance, 0.01)
    skew = float(np.mean((body - body.mean()) ** 3)) / variance**1.5
    shape = float(np.clip(4.0 / max(skew, 0.2) ** 2, 0.3, 50.0))
    scale = math.sqrt(variance / shape)
    shift = float(body.mean()) - shape * scale
    share = max(len(beyond), 0.5) / len(latencies_ms)
    tail = (float(beyond.min()) - median, float(beyond.max()) - low) if len(beyond) > 1 else (10.0, 60.0)
    return np.array([shift, shape, scale, share, tail[0], max(tail[1], tail[0] + 1.0)]), len(beyond)


def _sandwich(
    u: Floats, log_density: Any, counts: NDArray[np.int64], index: NDArray[np.int64], clusters: NDArray[np.int64]
) -> Floats:
    """Covariance of the estimate: scores add up within clusters before they are squared."""
    scores = np.empty((len(counts), len(u)))
    for k in range(len(u)):
        step = np.zeros(len(u))
        step[k] = 1e-3
        scores[:, k] = (log_density(u + step) - log_density(u - step)) / 2e-3
    information = (scores * counts[:, None]).T @ scores
    sums = np.stack([np.bincount(clusters, scores[index, k]) for k in range(len(u))], axis=1)
    inverse = np.linalg.pinv(information)
    return np.asarray(inverse @ (sums.T @ sums) @ inverse)


def _law(u: Floats, covariance: Floats, law_of: Any, free_tail: bool, n: int, confidence: float) -> LatencyLaw:
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    law, sd = law_of(u), np.sqrt(np.diag(covariance))
    low, high = law.copy(), law.copy()
    for k in range(len(u)):
        step = np.zeros(len(u))
        step[k] = z * sd[k]
        low[k], high[k] = law_of(u - step)[k], law_of(u + step)[k]
    note = ""
    if free_tail:  # the end moves with both the begin and the width
        gradient = np.zeros(len(u))
        gradient[4], gradient[5] = 1.0, law[5] - law[4]
        # Beyond an edge of a uniform law lies nothing: how near the nearest value came matters more than a score.
        nearest = (law[5] - law[4]) * math.log(2.0 / (1.0 - confidence)) / (n * law[3])
        for k, sd_edge in ((4, sd[4]), (5, math.sqrt(gradient @ covariance @ gradient))):
            low[k], high[k] = max(0.0, law[k] - z * sd_edge - nearest), law[k] + z * sd_edge + nearest
    else:
        low[4:] = high[4:] = math.nan
        note = "too few late messages; as in the profile convoy"

    def mean_of(v: Floats) -> float:
        shift, shape, scale, share, begin, end = law_of(v)
        return float(shift + shape * scale + share * (begin + end) / 2.0)

    slopes = np.array([(mean_of(u + step) - mean_of(u - step)) / 2e-4 for step in 1e-4 * np.eye(len(u))])
    mean, half = mean_of(u), z * math.sqrt(slopes @ covariance @ slopes)
    units, notes = ("ms", "", "ms", "", "ms", "ms"), ("", "", "", "", note, note)
    found = [
        Figure(f"latency {name}", float(law[k]), float(low[k]), float(high[k]), n, units[k], notes[k])
        for k, name in enumerate(_NAMES)
    ]
    return LatencyLaw(
        shift_ms=found[0], shape=found[1], scale_ms=found[2], tail_probability=found[3], tail_from_ms=found[4],
        tail_to_ms=found[5], mean_ms=Figure("latency mean", mean, mean - half, mean + half, n, "ms"),
    )  # fmt: skip
