"""What one board's clock shows when another's shows a given time.

A message that took no time would tell the difference of the two clocks; every real one took longer. So the points
(time in the message, local time of arrival − time in the message) lie above a line, the difference plus the least
latency, and touch it wherever a message met no delay. The line is the one below all points that is closest to them.
Source: Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999.

One direction cannot tell the least latency from the offset. Both directions can, if the least latency is the same:
the lines add up to a round trip of least latencies. Whatever the latencies, the offset lies between the two lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK_S = 10.0
"""Length of what is resampled as one: much longer than a burst, much shorter than a drive."""

_HALVES = 200
_BELOW_MS, _BELOW_SPREADS = 20.0, 20.0


@dataclass(frozen=True)
class Line:
    """y = ``value_ms`` + ``slope`` · (x − ``at_ms``)."""

    at_ms: float
    value_ms: float
    slope: float
    slope_sd: float = 0.0
    """Standard error of the slope."""
    n: int = 0
    """Messages that it rests on."""

    def __call__(self, x_ms: Floats | float) -> Floats | float:
        return self.value_ms + self.slope * (x_ms - self.at_ms)


@dataclass(frozen=True)
class PairClock:
    """The clocks of two boards over a stretch in which neither was reset."""

    difference: Line
    """Clock of the second minus that of the first, by the time of the first."""
    least_latency_ms: float
    """Half the round trip of least latencies if ``two_way``, else what was assumed."""
    two_way: bool

    def inverse(self, x_ms: Floats) -> Floats:
        """Time of the first board when the second's clock shows ``x_ms``."""
        line = self.difference
        return (x_ms - line.value_ms + line.slope * line.at_ms) / (1.0 + line.slope)


def lower_hull(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Indices of the points of the lower convex hull, by ascending x (Andrew's monotone chain)."""
    order = np.lexsort((y, x))
    xs, ys = x[order].tolist(), y[order].tolist()
    hull: list[int] = []
    for i in range(len(xs)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (xs[b] - xs[a]) * (ys[i] - ys[a]) - (ys[b] - ys[a]) * (xs[i] - xs[a]) > 0.0:
                break
            hull.pop()
        if hull and xs[hull[-1]] == xs[i]:
            continue  # the same x again, and no lower
        hull.append(i)
    return order[hull]


def lower_line(x_ms: Floats, y_ms: Floats, mean_x_ms: float | None = None) -> Line:
    """The line below all points with the least sum of distances: the hull's edge over their mean x.

    Args:
        x_ms, y_ms: [point], at least one.
        mean_x_ms: where the edge is wanted, if the points are already a hull.
    """
    middle = float(np.mean(x_ms)) if mean_x_ms is None else mean_x_ms
    hull = lower_hull(x_ms, y_ms)
    if len(hull) == 1:
        return Line(float(x_ms[hull[0]]), float(y_ms[hull[0]]), 0.0)
    right = int(np.clip(np.searchsorted(x_ms[hull], middle), 1, len(hull) - 1))
    left, right = hull[right - 1], hull[right]
    slope = float((y_ms[right] - y_ms[left]) / (x_ms[right] - x_ms[left]))
    return Line(middle, float(y_ms[left] + slope * (middle - x_ms[left])), slope)


def envelope(x_ms: Floats, y_ms: Floats, step_ms: float = 0.0) -> Line:
    """The lower line and the standard error of its slope, from the lines below random halves of the blocks.

    Half of the data shows about the spread that new data would; for a figure that hangs on few points, a bit more.
    Clocks that show times in steps of ``step_ms`` add that a line may be a step too high at either end.
    """
    line = lower_line(x_ms, y_ms)
    block = ((x_ms - x_ms.min()) // (1000.0 * BLOCK_S)).astype(np.int64)
    # Only the hull of a block can touch a line below several blocks.
    hulls = [np.flatnonzero(block == one) for one in np.unique(block)]
    hulls = [members[lower_hull(x_ms[members], y_ms[members])] for members in hulls]
    if len(hulls) < 4:
        return Line(line.at_ms, line.value_ms, line.slope, np.inf, len(x_ms))
    draw = np.random.Generator(np.random.Philox(key=0xC10C))
    slopes = []
    for _ in range(_HALVES):
        half = np.concatenate([hulls[one] for one in draw.permutation(len(hulls))[: len(hulls) // 2]])
        slopes.append(lower_line(x_ms[half], y_ms[half], line.at_ms).slope)
    stairs = step_ms / float(np.ptp(x_ms))
    return Line(line.at_ms, line.value_ms, line.slope, math.hypot(float(np.std(slopes)), stairs), len(x_ms))


def impossible(x_ms: Floats, y_ms: Floats) -> NDArray[np.bool_]:
    """Points so far below all others that a time in them must be wrong; one such point would carry the envelope."""
    block = ((x_ms - x_ms.min()) // (1000.0 * BLOCK_S)).astype(np.int64)
    names = np.unique(block)
    medians = np.array([np.median(y_ms[block == one]) for one in names])
    below = np.interp(block, names, medians) - y_ms
    usual = np.median(np.abs(below))
    return below > _BELOW_MS + _BELOW_SPREADS * usual


def pair_clock(there: Line | None, back: Line | None, assumed_least_ms: float) -> PairClock:
    """Joins the envelopes of both directions of a pair, or takes one and an assumption.

    Args:
        there: of messages of the first board to the second, by the first one's time.
        back: of messages of the second board to the first, by the second one's time.
        assumed_least_ms: least latency, used only where one direction is None.
    """
    if there is not None and back is not None:
        difference, least = _both(there, back, there.at_ms)
        turned = -back.slope * (1.0 + there.slope)
        slope, slope_sd = _better((there.slope, there.slope_sd), (turned, back.slope_sd))
        return PairClock(Line(there.at_ms, difference, slope, slope_sd, there.n + back.n), least, True)
    if there is not None:
        line = Line(there.at_ms, there.value_ms - assumed_least_ms, there.slope, there.slope_sd, there.n)
        return PairClock(line, assumed_least_ms, False)
    assert back is not None, "a pair without a message has no clock"
    at_ms = back.at_ms + back.value_ms - assumed_least_ms
    slope = 1.0 / (1.0 + back.slope) - 1.0  # of the first clock by the second, turned round
    return PairClock(
        Line(at_ms, assumed_least_ms - back.value_ms, slope, back.slope_sd, back.n), assumed_least_ms, False
    )


def _better(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The mean of two values with standard errors, weighted by their precision, and its standard error."""
    weights = [1.0 / max(sd, 1e-9) ** 2 if sd < np.inf else 0.0 for _, sd in (one, other)]
    if sum(weights) == 0.0:
        return (one[0] + other[0]) / 2.0, np.inf
    mean = (weights[0] * one[0] + weights[1] * other[0]) / sum(weights)
    return mean, 1.0 / math.sqrt(sum(weights))


def _both(there: Line, back: Line, at_ms: float) -> tuple[float, float]:
    """Difference of the clocks and least latency, at a time of the first board."""
    most = there(at_ms)
    least = -back(at_ms + most)
    return float((most + least) / 2.0), float((most - least) / 2.0)
