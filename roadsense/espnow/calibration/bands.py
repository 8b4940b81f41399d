"""Curves of a report with the bands in which they are known, by resampling whole blocks of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.figures import FEWEST_CLUSTERS, Bools, Floats, Ints, burst_counts, survival_of
from roadsense.statistics import CONFIDENCE

_DRAWS = 400


@dataclass(frozen=True)
class Curve:
    """A share by x; all arrays are [point]. Bounds hold at each point by itself, and are NaN with too few blocks."""

    x: Floats
    value: Floats
    low: Floats
    high: Floats


def burst_curve(lost: Bools, follows: Bools, clusters: Ints, confidence: float = CONFIDENCE) -> Curve:
    """P(a burst is longer than k frames), as :func:`~roadsense.espnow.calibration.figures.burst_survival` has it.

    Args:
        lost, follows: [frame], as there.
        clusters: [frame], which block each belongs to, numbered from 0; a burst belongs to that of its begin.
        confidence: of the band.
    """
    at_risk, ended = burst_counts(lost, follows, clusters)
    draws = _draws(np.asarray(at_risk.any(axis=1)))
    value = survival_of(at_risk.sum(axis=0), ended.sum(axis=0))
    band = survival_of(draws @ at_risk, draws @ ended)
    return _curve(np.arange(len(value), dtype=np.float64), value, band, confidence)


def share_below(values: Floats, clusters: Ints, x: Floats, confidence: float = CONFIDENCE) -> Curve:
    """Share of values up to x.

    Args:
        values: [value].
        clusters: [value], which block each belongs to, numbered from 0.
        x: [point], ascending.
        confidence: of the band.
    """
    place = np.searchsorted(x, values)  # the first point that is no less
    counts = np.zeros((int(clusters.max(initial=-1)) + 1, len(x) + 1))
    np.add.at(counts, (clusters, place), 1.0)
    below, total = counts[:, :-1].cumsum(axis=1), counts.sum(axis=1)
    draws = _draws(total > 0.0)
    return _curve(x, below.sum(axis=0) / max(len(values), 1), draws @ below / (draws @ total)[:, None], confidence)


def _draws(used: Bools) -> Floats:
    """[draw, block]: how often each block is in each resampled set; one whole set where there are too few blocks."""
    places = np.flatnonzero(used)
    if len(places) < FEWEST_CLUSTERS:
        return np.ones((1, len(used)))
    found = np.zeros((_DRAWS, len(used)))
    rng = np.random.Generator(np.random.Philox(key=0xBA2D))
    found[:, places] = rng.multinomial(len(places), np.full(len(places), 1.0 / len(places)), _DRAWS)
    return found


def _curve(x: Floats, value: Floats, band: Floats, confidence: float) -> Curve:
    if len(band) == 1:
        return Curve(x, value, np.full(len(x), np.nan), np.full(len(x), np.nan))
    low, high = np.quantile(band, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=0)
    return Curve(x, value, low, high)
