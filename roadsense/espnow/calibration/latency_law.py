"""The law of latencies, shift + gamma + rare uniform tail, by maximum likelihood on what clocks of milliseconds show.

A clock that shows whole milliseconds shows each time up to one too low, which is as much as the law is wide; so the
error of the clocks is a part of the likelihood. The time of arrival may lie anywhere within its millisecond: a uniform
error. A board whose stamps always end in the same digits sends at the same point of its millisecond, which only moves
everything; else the time of sending adds another uniform error, and the two together are a triangle.

Clocks are compared by the messages themselves, so every group of messages with its own offset has a level of its own
in the likelihood; the shift is a stated mean of the levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from roadsense.espnow.calibration.figures import Figure, wider_for_few
from roadsense.espnow.calibration.records import Floats, Ints
from roadsense.statistics import CONFIDENCE

FEWEST = 200
"""With fewer latencies than this no law is fitted."""

FEWEST_IN_TAIL = 20
"""With fewer late ones the tail's range is taken as given and only its probability is estimated."""

_BIN_MS = 0.05
_NUDGE = 1e-4
_MOST_STEPS = 60
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


@dataclass(frozen=True)
class _Cells:
    """Messages that are alike as far as the likelihood goes; arrays are [cell]."""

    x_ms: Floats
    group: Ints
    count: Ints
    of: Ints
    """[message], the cell of each."""


def fit_latency(
    latencies_ms: Floats,
    clusters: Ints,
    error: ClockError,
    usual_tail_ms: tuple[float, float],
    confidence: float = CONFIDENCE,
    groups: Ints | None = None,
    weights: Floats | None = None,
) -> LatencyLaw:
    """Fits the law; intervals allow for latencies of one cluster being alike (sandwich covariance).

    Args:
        latencies_ms: [message], as the clocks showed them.
        clusters: [message], block of time, numbered from 0.
        error: of the clocks.
        usual_tail_ms: range of the tail, for data that has too few late messages to tell.
        confidence: of the intervals.
        groups: [message], which messages share an offset, numbered from 0; all, if not given.
        weights: [group], sum 1: the shift is this mean of the groups' levels.
    """
    groups = np.zeros(len(latencies_ms), np.int64) if groups is None else groups
    weights = np.ones(1) if weights is None else weights
    medians = np.array([np.median(latencies_ms[groups == one]) for one in range(len(weights))])
    start, late = _start(latencies_ms - medians[groups], error)
    free_tail = late >= FEWEST_IN_TAIL

    def law_of(u: Floats) -> Floats:
        tail = (u[3], u[3] + math.exp(u[4])) if free_tail else usual_tail_ms
        share = 1.0 / (1.0 + math.exp(-u[2]))
        return np.array([0.0, math.exp(min(u[0], 20.0)), math.exp(u[1]), share, *tail])

    law = [math.log(start[1]), math.log(start[2]), math.log(start[3] / (1.0 - start[3]))]
    law += [start[4], math.log(start[5] - start[4])] if free_tail else []
    cells = _cells(latencies_ms, groups)
    u, covariance = _maximise(np.array([*law, *(medians + start[0])]), len(law), cells, clusters, law_of, error)
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * wider_for_few(len(np.unique(clusters)), confidence)
    return _law(u, covariance, len(law), weights, law_of, len(latencies_ms), confidence, z)


def _cells(latencies_ms: Floats, groups: Ints) -> _Cells:
    key = np.round(latencies_ms / _BIN_MS).astype(np.int64)
    pairs, of, count = np.unique(np.stack([groups, key]), axis=1, return_inverse=True, return_counts=True)
    return _Cells(pairs[1] * _BIN_MS, pairs[0], count, np.asarray(of).ravel())


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


def _maximise(
    u: Floats, laws: int, cells: _Cells, clusters: Ints, law_of: Callable[[Floats], Floats], error: ClockError
) -> tuple[Floats, Floats]:
    """The likeliest parameters, law first, then levels, by Fisher scoring; and their covariance.

    Information is the sum of squared scores; a step that gains nothing is damped until it does (Levenberg).
    """

    def log_density(v: Floats, moved_ms: float = 0.0) -> Floats:
        return np.log(density(cells.x_ms - v[laws + cells.group] - moved_ms, law_of(v), error))

    def scores_of(v: Floats) -> Floats:
        scores = np.zeros((len(cells.count), len(v)))
        for k in range(laws):
            step = np.zeros(len(v))
            step[k] = _NUDGE
            scores[:, k] = (log_density(v + step) - log_density(v - step)) / (2.0 * _NUDGE)
        of_level = (log_density(v, _NUDGE) - log_density(v, -_NUDGE)) / (2.0 * _NUDGE)
        scores[np.arange(len(of_level)), laws + cells.group] = of_level
        return scores

    likelihood, damping = float(cells.count @ log_density(u)), 1e-3
    for _ in range(_MOST_STEPS):
        scores = scores_of(u)
        information = (scores * cells.count[:, None]).T @ scores
        gradient = cells.count @ scores
        gain = 0.0
        while damping < 1e6 and gain <= 0.0:
            step = np.linalg.lstsq(information + damping * np.diag(np.diag(information)), gradient)[0]
            tried = u + np.clip(step, -1.0, 1.0)
            gain = float(cells.count @ log_density(tried)) - likelihood
            damping *= 0.2 if gain > 0.0 else 10.0
        if gain <= 0.0:
            break
        u, likelihood, damping = tried, likelihood + gain, max(damping, 1e-6)
        if gain < 1e-4:
            break
    scores = scores_of(u)
    sums = np.zeros((int(clusters.max()) + 1, len(u)))
    np.add.at(sums, clusters, scores[cells.of])
    inverse = np.linalg.pinv((scores * cells.count[:, None]).T @ scores)
    return u, np.asarray(inverse @ (sums.T @ sums) @ inverse)


def _law(
    u: Floats, covariance: Floats, laws: int, weights: Floats, law_of: Callable[[Floats], Floats], n: int,
    confidence: float, z: float,
) -> LatencyLaw:  # fmt: skip
    half = z * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    law, low, high = law_of(u), law_of(u - half), law_of(u + half)  # each figure hangs on its own parameter alone
    mix = np.concatenate([np.zeros(laws), weights])
    shift, shift_half = float(mix @ u), z * math.sqrt(mix @ covariance @ mix)
    law[0], low[0], high[0] = shift, shift - shift_half, shift + shift_half
    note = ""
    if laws == 5:
        width = law[5] - law[4]
        end = np.zeros(len(u))  # it moves with both the begin and the width
        end[3], end[4] = 1.0, width
        # Beyond an edge of a uniform law lies nothing: how near the nearest value came matters more than a score.
        nearest = width * math.log(2.0 / (1.0 - confidence)) / (n * law[3])
        for k, spread in ((4, half[3]), (5, z * math.sqrt(end @ covariance @ end))):
            low[k], high[k] = max(0.0, law[k] - spread - nearest), law[k] + spread + nearest
    else:
        low[4:] = high[4:] = math.nan
        note = "too few late messages, as in the profile convoy"

    def mean_of(v: Floats) -> float:
        _, shape, scale, share, begin, end = law_of(v)
        return float(mix @ v + shape * scale + share * (begin + end) / 2.0)

    slopes = np.array([(mean_of(u + step) - mean_of(u - step)) / (2.0 * _NUDGE) for step in _NUDGE * np.eye(len(u))])
    mean, mean_half = mean_of(u), z * math.sqrt(slopes @ covariance @ slopes)
    units, notes = ("ms", "", "ms", "", "ms", "ms"), ("", "", "", "", note, note)
    found = [
        Figure(f"latency {name}", float(law[k]), float(low[k]), float(high[k]), n, units[k], notes[k])
        for k, name in enumerate(_NAMES)
    ]
    return LatencyLaw(
        shift_ms=found[0], shape=found[1], scale_ms=found[2], tail_probability=found[3], tail_from_ms=found[4],
        tail_to_ms=found[5], mean_ms=Figure("latency mean", mean, mean - mean_half, mean + mean_half, n, "ms"),
    )  # fmt: skip
