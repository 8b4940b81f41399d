"""Intervals. No rate is shown without its n and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def cluster_bootstrap(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[str],
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of sum(numerators)/sum(denominators), resampling whole clusters (scenarios).

    The resampling is seeded by a constant, so that the same episodes give the same interval. NaN for no data.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) == 0:
        return float("nan"), float("nan")
    top = np.bincount(index, np.asarray(numerators, float), len(names))
    bottom = np.bincount(index, np.asarray(denominators, float), len(names))
    chosen = resampled(len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: NDArray[np.float64] = top[chosen].sum(1) / bottom[chosen].sum(1)
    return percentile_interval(ratios, 0.5 * (1.0 - confidence))


def resampled(count: int, *strata: int) -> NDArray[np.int64]:
    """Indices of ``count`` items drawn with replacement, [2000, count, *strata], of every stratum on its own.

    Seeded by a constant, so that the same data give the same interval.
    """
    draw = np.random.Generator(np.random.Philox(key=0x5EED))
    return draw.integers(count, size=(RESAMPLES, count, *strata))


def percentile_interval(samples: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """Bounds that leave the share ``tail`` of the finite samples on either side; NaN where none is finite."""
    samples = samples[np.isfinite(samples)]
    if len(samples) == 0:
        return float("nan"), float("nan")
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
    values: NDArray[np.float64],
    clusters: NDArray[Any],
    expected: NDArray[np.float64] | None = None,
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
        return ClusteredMean(value=value, low=float("nan"), high=float("nan"), chance=1.0)
    rest = values - (value if expected is None else expected)
    totals = np.bincount(index, rest - rest.mean(), count)
    spread = float(np.sqrt((totals**2).sum() * count / (count - 1))) / len(values)
    reach = float(t.ppf(0.5 + 0.5 * confidence, count - 1)) * spread
    off = 0.0 if expected is None else abs(float(rest.mean()))
    chance = 1.0 if off == 0.0 else 2.0 * float(t.sf(off / spread, count - 1)) if spread > 0.0 else 0.0
    return ClusteredMean(value=value, low=value - reach, high=value + reach, chance=chance)
