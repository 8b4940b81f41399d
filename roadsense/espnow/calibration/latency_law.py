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
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from roadsense.espnow.calibration.figures import Figure, wider_for_few
from roadsense.espnow.calibration.records import Floats, Ints
from roadsense.espnow.calibration.scoring import Likeliest, Messages, maximise, nodes_ms
from roadsense.statistics import CONFIDENCE, clopper_pearson

FEWEST = 200
"""With fewer latencies than this no law is fitted."""

FEWEST_IN_TAIL = 20
"""With fewer late ones the tail's range is taken as given and only its probability is estimated."""

_NO_TAIL, _USUAL_TAIL, _OWN_TAIL = 2, 3, 5
"""How many parameters a law has without a tail, with one of the usual range, and with one of its own range."""

_NUDGE = 1e-4
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
    logged_above_ms: float = 0.0
    """How much more the logged latencies are than those of the law, where their least one was only assumed."""

    def figures(self) -> tuple[Figure, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Figure))


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
    return np.asarray((1.0 - share) * body + share * reached / max(end - begin, 1e-9))


def fit_latency(
    latencies_ms: Floats,
    clusters: Ints,
    error: ClockError,
    usual_tail_ms: tuple[float, float],
    confidence: float = CONFIDENCE,
    groups: Ints | None = None,
    weights: Floats | None = None,
    along: Floats | None = None,
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
        along: [message], place in its group, about −½ to ½, along which the group's level may drift; no drift, if not
            given.
    """
    from scipy.stats import chi2

    n = len(latencies_ms)
    groups = np.zeros(n, np.int64) if groups is None else groups
    weights = np.ones(1) if weights is None else weights
    along = np.zeros(n) if along is None else along
    medians = np.array([np.median(latencies_ms[groups == one]) for one in range(len(weights))])
    start, late = _start(latencies_ms - medians[groups], error)
    messages = Messages(latencies_ms, clusters, groups, along)
    nodes = nodes_ms(max(error.step_ms, _FINEST_MS), float((latencies_ms - medians[groups]).max()) + 10.0)
    first = [math.log(start[1]), math.log(start[2]), math.log(start[3] / (1.0 - start[3])), start[4]]
    first.append(math.log(start[5] - start[4]))

    def fitted(laws: int) -> Likeliest:
        u = np.array([*first[:laws], *(medians + start[0]), *np.zeros(len(weights))])
        return maximise(u, laws, messages, nodes, lambda v: density(nodes, _law_of(v, usual_tail_ms), error))

    # A tail is stated only where the law without one is refused, and its range only where enough messages tell it.
    best, laws, late_ones = fitted(_NO_TAIL), _NO_TAIL, 0.0
    for more, fewest in ((_OWN_TAIL, FEWEST_IN_TAIL), (_USUAL_TAIL, 0)):
        if late >= fewest and laws == _NO_TAIL:
            tried = fitted(more)
            late_ones = n * float(_law_of(tried.u[:more], usual_tail_ms)[3])
            gain = 2.0 * (tried.log_likelihood - best.log_likelihood)
            if late_ones >= fewest and gain > float(chi2.ppf(confidence, more - _NO_TAIL)):
                best, laws = tried, more
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * wider_for_few(len(np.unique(clusters)), confidence)
    return _law(best, laws, weights, usual_tail_ms, n, round(late_ones), confidence, z)


def _law_of(u: Floats, usual_tail_ms: tuple[float, float]) -> Floats:
    """As :func:`density` takes it, of shift 0, by the logarithms of shape and scale, the logit of the tail's
    probability, its begin, and the logarithm of its width, as far as they are there."""
    from scipy.special import expit

    share = float(expit(u[2])) if len(u) > _NO_TAIL else 0.0
    tail = (u[3], u[3] + _exp(u[4])) if len(u) == _OWN_TAIL else usual_tail_ms
    return np.array([0.0, _exp(u[0]), _exp(u[1]), share, *tail])


def _exp(x: float) -> float:
    return math.exp(min(x, 20.0))


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


def _law(
    best: Likeliest, laws: int, weights: Floats, usual_tail_ms: tuple[float, float], n: int, late: int,
    confidence: float, z: float,
) -> LatencyLaw:  # fmt: skip
    u, covariance = best.u, best.covariance
    half = z * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    # Each figure hangs on its own parameter alone.
    law, low, high = (_law_of(v[:laws], usual_tail_ms) for v in (u, u - half, u + half))
    mix = np.concatenate([np.zeros(laws), weights, np.zeros(len(weights))])
    shift, shift_half = float(mix @ u), z * math.sqrt(mix @ covariance @ mix)
    law[0], low[0], high[0] = shift, shift - shift_half, shift + shift_half
    notes = dict.fromkeys(_NAMES, "")
    if laws == _NO_TAIL:
        high[3] = clopper_pearson(min(late, n), n, confidence)[1]
        notes["tail probability"] = "bounds as for independent frames"
    if laws == _OWN_TAIL:
        width = law[5] - law[4]
        end = np.zeros(len(u))  # it moves with both the begin and the width
        end[3], end[4] = 1.0, width
        # Beyond an edge of a uniform law lies nothing: how near the nearest value came matters more than a score.
        nearest = width * math.log(2.0 / (1.0 - confidence)) / (n * law[3])
        for k, spread in ((4, half[3]), (5, z * math.sqrt(end @ covariance @ end))):
            low[k], high[k] = max(0.0, law[k] - spread - nearest), law[k] + spread + nearest
    else:
        low[4:] = high[4:] = math.nan
        notes["tail begin"] = notes["tail end"] = "too few late messages, as in the profile convoy"

    def mean_of(v: Floats) -> float:
        _, shape, scale, share, begin, end = _law_of(v[:laws], usual_tail_ms)
        return float(mix @ v + shape * scale + share * (begin + end) / 2.0)

    slopes = np.array([(mean_of(u + step) - mean_of(u - step)) / (2.0 * _NUDGE) for step in _NUDGE * np.eye(len(u))])
    mean, mean_half = mean_of(u), z * math.sqrt(slopes @ covariance @ slopes)
    units = ("ms", "", "ms", "", "ms", "ms")
    found = [
        Figure(f"latency {name}", float(law[k]), float(low[k]), float(high[k]), n, units[k], notes[name])
        for k, name in enumerate(_NAMES)
    ]
    return LatencyLaw(
        shift_ms=found[0], shape=found[1], scale_ms=found[2], tail_probability=found[3], tail_from_ms=found[4],
        tail_to_ms=found[5], mean_ms=Figure("latency mean", mean, mean - mean_half, mean + mean_half, n, "ms"),
    )  # fmt: skip
