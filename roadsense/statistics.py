"""Intervals. No rate is shown without its n and its bounds."""

from __future__ import annotations

from collections.abc import Sequence

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
    draw = np.random.Generator(np.random.Philox(key=0x5EED))
    chosen = draw.integers(len(names), size=(RESAMPLES, len(names)))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: NDArray[np.float64] = top[chosen].sum(1) / bottom[chosen].sum(1)
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) == 0:
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    return float(low), float(high)
