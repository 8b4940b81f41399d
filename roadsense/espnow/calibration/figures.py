"""Figures with their intervals, as functions of arrays: sequences of outcomes, latencies, readings.

Outcomes of one link come in runs, so frames are no independent samples: intervals resample whole blocks of time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.statistics import CONFIDENCE, clopper_pearson, cluster_bootstrap

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

FEWEST_CLUSTERS = 5
"""With fewer blocks than this a resampled interval means nothing, and none is given."""

_ROBUST = 1.4826  # median absolute deviation → standard deviation of a normal distribution
_OUTLIER_SDS = 5.0


@dataclass(frozen=True)
class Figure:
    """A measured quantity; bounds are NaN where nothing is known about them."""

    name: str
    value: float
    low: float
    high: float
    n: int
    """How many observations it rests on."""
    unit: str = ""
    note: str = ""
    """What it rests on beside the data."""

    def covers(self, truth: float) -> bool:
        return self.low <= truth <= self.high

    def text(self) -> str:
        """Value, interval and unit, with as many digits as the interval is worth.

        A side without end is shown as ∞, one of which nothing is known as ?; no interval, if that is both.
        """
        sides = [abs(bound - self.value) for bound in (self.low, self.high) if math.isfinite(bound)]
        width = (2.0 if len(sides) == 1 else 1.0) * sum(sides)
        digits = 2 - math.ceil(math.log10(width)) if width > 0.0 else 3
        digits = min(max(digits, 0), 6)
        low, high = (_bound_text(bound, digits) for bound in (self.low, self.high))
        bounds = f" [{low}, {high}]" if sides else ""
        return f"{self.value:.{digits}f}{bounds}{self.unit and f' {self.unit}'}"

    def document(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        numbers = {key: getattr(self, key) for key in ("value", "low", "high")}
        known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {"name": self.name, **known, "n": self.n, "unit": self.unit, "note": self.note}


def _bound_text(bound: float, digits: int) -> str:
    if math.isnan(bound):
        return "?"
    return f"{bound:.{digits}f}" if math.isfinite(bound) else "∞" if bound > 0.0 else "-∞"


def ratio(name: str, top: Floats, bottom: Floats, clusters: Ints, confidence: float = CONFIDENCE) -> Figure:
    """sum(top)/sum(bottom) with the interval of a bootstrap over clusters; NaN without data.

    Args:
        name: of the figure.
        top, bottom: [observation].
        clusters: [observation], which block each belongs to, numbered from 0.
        confidence: of the interval.
    """
    tops, bottoms = np.bincount(clusters, top), np.bincount(clusters, bottom)
    used = (tops != 0.0) | (bottoms != 0.0)
    value = float(tops.sum() / bottoms.sum()) if bottoms.any() else math.nan
    low = high = math.nan
    if used.sum() >= FEWEST_CLUSTERS:
        labels = [str(one) for one in np.flatnonzero(used)]
        low, high = cluster_bootstrap(tops[used].tolist(), bottoms[used].tolist(), labels, confidence)
        wider = wider_for_few(len(labels), confidence)
        low, high = value - wider * (value - low), value + wider * (high - value)
    return Figure(name, value, low, high, len(top))


def wider_for_few(clusters: int, confidence: float) -> float:
    """How much wider an interval is that resampled few clusters: Student's t for the normal, n for n − 1."""
    from scipy.stats import t

    share = (1.0 + confidence) / 2.0
    return float(t.ppf(share, clusters - 1)) / NormalDist().inv_cdf(share) * math.sqrt(clusters / (clusters - 1.0))


def loss_share(name: str, lost: Bools, clusters: Ints, confidence: float = CONFIDENCE) -> Figure:
    """Share of frames that were lost.

    Where none or all were, resampling knows no bounds; then they are those of Clopper and Pearson, as for independent
    frames.
    """
    figure = ratio(name, lost.astype(np.float64), np.ones(len(lost)), clusters, confidence)
    if len(lost) and lost.all() == lost.any():
        low, high = clopper_pearson(int(lost.sum()), len(lost), confidence)
        return replace(figure, low=low, high=high, note="bounds as for independent frames")
    return replace(figure, low=max(0.0, figure.low), high=min(1.0, figure.high))


def mean_burst(name: str, lost: Bools, follows: Bools, clusters: Ints, confidence: float = CONFIDENCE) -> Figure:
    """Mean number of frames lost in a row, 1 / P(the next arrives | this one is lost).

    Counting transitions needs no whole bursts, so gaps in the record cut none short.

    Args:
        name: of the figure.
        lost: [frame] in the order of sending.
        follows: [frame], whether it is the very next one after the frame before it in the arrays.
        clusters: [frame].
        confidence: of the interval.
    """
    after = np.flatnonzero(follows[1:] & lost[:-1]) + 1
    exits = (~lost[after]).astype(np.float64)
    if not exits.any():
        return Figure(name, math.nan, math.nan, math.nan, len(after), "beacons", "no burst ended while observed")
    figure = ratio(name, np.ones(len(after)), exits, clusters[after], confidence)
    return replace(figure, unit="beacons", low=max(1.0, figure.low))


def burst_survival(lost: Bools, follows: Bools) -> Floats:
    """P(a burst is longer than k frames) for k = 0, 1, …, by Kaplan and Meier: gaps censor the bursts they cut.

    Args:
        lost, follows: as for :func:`mean_burst`.
    """
    at_risk, ended = burst_counts(lost, follows, np.zeros(len(lost), np.int64))
    return survival_of(at_risk.sum(axis=0), ended.sum(axis=0))


def burst_counts(lost: Bools, follows: Bools, clusters: Ints) -> tuple[Floats, Floats]:
    """How many bursts were seen to last k frames, and how many of them ended then, as [cluster, k], k from 1."""
    starts = np.flatnonzero(lost & follows & ~np.concatenate([[False], lost[:-1]]))
    # Where each run of frames that follow each other and are lost is over.
    over = np.flatnonzero(~np.concatenate([follows[1:] & lost[1:], [False]]))
    last = over[np.searchsorted(over, starts)]
    length = last - starts + 1
    whole = np.concatenate([follows, [False]])[last + 1]
    blocks, longest = int(clusters.max(initial=-1)) + 1, int(length.max(initial=0))
    reached, ended = np.zeros((blocks, longest)), np.zeros((blocks, longest))
    ages = length - 1 + whole  # a burst that was cut short was not seen to last or end at its last frame
    np.add.at(reached, (clusters[starts[ages > 0]], ages[ages > 0] - 1), 1.0)
    np.add.at(ended, (clusters[starts[whole]], length[whole] - 1), 1.0)
    return reached[:, ::-1].cumsum(axis=1)[:, ::-1], ended


def survival_of(at_risk: Floats, ended: Floats) -> Floats:
    """Kaplan and Meier's product, beginning with 1, along the last axis; it ends where nobody is at risk any more."""
    stays = 1.0 - np.divide(ended, at_risk, out=np.zeros_like(ended), where=at_risk > 0.0)
    some = at_risk.any(axis=tuple(range(at_risk.ndim - 1)))
    first = np.ones((*stays.shape[:-1], 1))
    return np.concatenate([first, np.cumprod(stays[..., : some.sum()], axis=-1)], axis=-1)


def quantile(
    name: str, values: Floats, share: float, clusters: Ints, confidence: float = CONFIDENCE, unit: str = ""
) -> Figure:
    """A quantile with the interval of the order statistics around it.

    Their ranks are those of independent values, spread by the square root of the design effect: how much more the
    count below the quantile varies between clusters than it would if values were independent.
    """
    n = len(values)
    if n == 0:
        return Figure(name, math.nan, math.nan, math.nan, 0, unit)
    value = float(np.quantile(values, share))
    excess = np.bincount(clusters, (values <= value) - share)
    used = np.bincount(clusters) > 0
    expected = n * share * (1.0 - share)
    effect = max(1.0, float((excess[used] ** 2).sum()) / expected)
    half = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * math.sqrt(effect * expected)
    lower, upper = math.floor(n * share - half), math.ceil(n * share + half)
    ordered = np.sort(values)
    low = float(ordered[lower]) if lower >= 0 else math.nan
    high = float(ordered[upper]) if upper < n else math.nan
    return Figure(name, value, low, high, n, unit)


def rms(
    name: str, errors: Floats, clusters: Ints, confidence: float = CONFIDENCE, unit: str = "", scale: float = 1.0
) -> Figure:
    """Root of the mean square of errors, times ``scale``; more than five robust deviations away is not noise."""
    size = np.abs(errors)
    usual = _ROBUST * float(np.median(size)) if len(size) else 0.0
    kept = (size <= _OUTLIER_SDS * usual) if usual > 0.0 else np.ones(len(size), np.bool_)
    square = ratio(name, errors[kept] ** 2, np.ones(int(kept.sum())), clusters[kept], confidence)
    value, low, high = (scale * math.sqrt(max(one, 0.0)) for one in (square.value, square.low, square.high))
    return Figure(name, value, low, high, int(kept.sum()), unit)


def chi_interval(deviation: float, freedom: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a standard deviation estimated from a few normal values with that many degrees of freedom."""
    from scipy.stats import chi2

    tail = (1.0 - confidence) / 2.0
    low, high = (math.sqrt(freedom / float(chi2.ppf(share, freedom))) for share in (1.0 - tail, tail))
    return deviation * low, deviation * high
