"""Intervals. No rate is shown without its n and its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a proportion.

    Source: Clopper and Pearson, Biometrika 26 (1934), by quantiles of the beta distribution. With ``total`` = 0 nothing
    is known: (0, 1).
    """
    from scipy.stats import beta  # here, because it takes longer to load than all else

    if not 0 <= count <= total:
        raise ValueError(f"count {count} must lie between 0 and total {total}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1.0 - tail, count + 1, total - count))
    return low, high


def highest_rate_without_events(exposure: float, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the two-sided exact interval of a Poisson rate of which no event was seen; the lower one is 0.

    It solves exp(-rate · exposure) = (1 - confidence) / 2, so it is -ln((1 - confidence) / 2) / exposure: 3.69 per
    exposure at 95 %. Without exposure nothing is known: infinity.

    Args:
        exposure: over which it was looked for (kilometres, say).
        confidence: of the interval.

    Source: Garwood, Biometrika 28 (1936), for a count of 0.
    """
    return -math.log(0.5 * (1.0 - confidence)) / exposure if exposure > 0.0 else math.inf


def cluster_bootstrap(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[str],
    confidence: float = CONFIDENCE,
    *,
    expanded: bool = False,
) -> tuple[float, float]:
    """Percentile interval of sum(numerators)/sum(denominators), resampling whole clusters (scenarios).

    NaN below two clusters, which tell of no spread. Not for events of which none was seen, where it has no width: take
    :func:`highest_rate_without_events` or :func:`clopper_pearson` there.

    Args:
        numerators: [n].
        denominators: [n].
        clusters: [n], what each belongs to.
        confidence: of the interval.
        expanded: wider for few clusters, as :func:`resampled_interval` says. Without, it is too narrow for few, and who
            calls it widens it.
    """
    totals = cluster_sums(clusters, numerators, denominators)
    return resampled_interval(_quotient, totals, confidence, expanded=expanded)


def _quotient(top: FloatArray, bottom: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = top / bottom
    return found


def cluster_sums(clusters: ArrayLike, *columns: ArrayLike) -> list[FloatArray]:
    """The columns [n] summed by cluster, [cluster] each."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    return [np.bincount(index, np.asarray(values, float), len(names)).astype(np.float64) for values in columns]


def resampled_interval(
    figure: Callable[..., FloatArray], totals: Sequence[FloatArray], confidence: float, *, expanded: bool = True
) -> tuple[float, float]:
    """Bounds of a figure of sums over clusters, which are resampled whole; NaN below two of them.

    Args:
        figure: of each column's sum, [sample] each, to [sample].
        totals: columns, [cluster] each.
        confidence: of the interval.
        expanded: percentiles further out, as far as Student's t is wider than the normal distribution for this number
            of clusters. It covers 75 % with three of them, 89 % with five, 94 % with ten.

    Source: Hesterberg, The American Statistician 69 (2015), for the expansion.
    """
    count = len(totals[0])
    if count < 2:
        return math.nan, math.nan
    chosen = resampled(count)
    samples = figure(*(values[chosen].sum(1) for values in totals))
    return percentile_interval(samples, _expanded_tail(count, confidence) if expanded else 0.5 * (1.0 - confidence))


def _expanded_tail(count: int, confidence: float) -> float:
    from scipy.stats import norm, t

    return float(norm.cdf(-np.sqrt(count / (count - 1)) * t.ppf(0.5 + 0.5 * confidence, count - 1)))


def resampled(count: int, *strata: int, stream: int = 0) -> NDArray[np.int64]:
    """Indices of ``count`` items drawn with replacement, [2000, count, *strata], of every stratum on its own.

    Seeded by constants, so that the same data give the same interval; groups that are independent of each other take
    different streams.
    """
    draw = np.random.Generator(np.random.Philox(key=[0x5EED, stream]))
    return draw.integers(count, size=(RESAMPLES, count, *strata))


def percentile_interval(samples: FloatArray, tail: float) -> tuple[float, float]:
    """Bounds that leave the share ``tail`` of the finite samples on either side; NaN where none is finite."""
    samples = samples[np.isfinite(samples)]
    if len(samples) == 0:
        return math.nan, math.nan
    low, high = np.percentile(samples, [100.0 * tail, 100.0 * (1.0 - tail)])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class ClusteredMean:
    """A mean over items that are independent between clusters only."""

    value: float
    low: float
    high: float
    chance: float
    """Two-sided probability of a mean at least so far from its expectation; 1 without one or with one cluster."""


def clustered_mean(
    values: FloatArray,
    clusters: NDArray[Any],
    expected: FloatArray | None = None,
    confidence: float = CONFIDENCE,
) -> ClusteredMean:
    """Mean with a cluster-robust interval (Student's t, one degree of freedom less than clusters).

    A single cluster tells of no spread: its bounds are NaN and its chance is 1.

    Args:
        values: [n].
        clusters: [n], what each belongs to.
        expected: [n], expectation of each value, where there is one: what it explains does not widen the interval.
        confidence: of the interval.

    Source: Liang and Zeger, Biometrika 73 (1986), for a mean.
    """
    from scipy.stats import t

    _, index = np.unique(clusters, return_inverse=True)
    count = int(index.max()) + 1
    value = float(values.mean())
    if count < 2:
        return ClusteredMean(value=value, low=math.nan, high=math.nan, chance=1.0)
    rest = values - (value if expected is None else expected)
    totals = np.bincount(index, rest - rest.mean(), count)
    spread = float(np.sqrt((totals**2).sum() * count / (count - 1))) / len(values)
    reach = float(t.ppf(0.5 + 0.5 * confidence, count - 1)) * spread
    off = 0.0 if expected is None else abs(float(rest.mean()))
    chance = 1.0 if off == 0.0 else 2.0 * float(t.sf(off / spread, count - 1)) if spread > 0.0 else 0.0
    return ClusteredMean(value=value, low=value - reach, high=value + reach, chance=chance)
