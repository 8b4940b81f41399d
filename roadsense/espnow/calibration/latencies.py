"""Latencies of all links on one scale, and their law from the best source that the logs have.

Within a pair, clocks tell the mean of both directions exactly, whatever the offset; each direction alone is only known
up to it, and up to the point within its millisecond at which a board sends. So every direction keeps a level of its own
while the law is fitted, and the least latency is the mean over both directions of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.figures import Figure, quantile
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.latency_law import FEWEST, ClockError, LatencyLaw, fit_latency
from roadsense.espnow.calibration.records import Floats, Ints, LogSet
from roadsense.espnow.calibration.traces import Link
from roadsense.statistics import CONFIDENCE

_FEWEST_OF_STRETCH = 50
_SAME_STEP = 0.9  # of the steps between stamps, where stamps always end in the same digits
_BODY = 6.0  # of mean absolute deviations above the median; what is later says nothing about a level


@dataclass(frozen=True)
class Pool:
    """Latencies on one scale; arrays are [message]."""

    values_ms: Floats
    clusters: Ints
    groups: Ints
    """Which messages share an offset: those of one direction between two resets."""
    weights: Floats
    """[group], by which levels make the least latency: both directions of a pair count alike."""
    along: Floats
    """Where in its group each lies, about −½ to ½."""
    boards: int
    """How many boards sent them."""

    def aligned_ms(self) -> Floats:
        """The latencies with all groups moved to their common mean."""
        body = np.array([_body_mean(self.values_ms[self.groups == one]) for one in range(len(self.weights))])
        return self.values_ms - body[self.groups] + float(self.weights @ body)

    def law(self, error: ClockError, asked: Asked) -> LatencyLaw:
        return fit_latency(
            self.values_ms, self.clusters, error, asked.usual_tail_ms, asked.confidence, self.groups, self.weights,
            self.along,
        )  # fmt: skip


def clock_error(logs: LogSet) -> ClockError:
    """Resolution of logged times, and whether stamps vary within it."""
    times = [values for board in logs.boards for values in (board.sent.local_ms, board.sent.stamp_ms)]
    joined = np.concatenate([*times, *(trips.sent_ms for trips in logs.round_trips)])
    step_ms = next((10.0**-digits for digits in range(3) if _is_whole(joined * 10**digits)), 1e-3)
    sendings = [board.sent.stamp_ms for board in logs.boards] or [trips.sent_ms for trips in logs.round_trips]
    steps = np.round(np.concatenate([np.diff(one) for one in sendings]) / step_ms)
    usual = np.median(steps) if len(steps) else 0.0
    near = steps[np.abs(steps - usual) <= 2.0]
    return ClockError(step_ms, 1 if len(near) and (near == usual).mean() > _SAME_STEP else 2)


def _is_whole(values: Floats) -> bool:
    return np.allclose(values, np.round(values), rtol=0.0, atol=1e-4)


def pool(links: Sequence[Link], two_way: bool) -> Pool:
    """Latencies of all frames that had the medium to themselves.

    Args:
        links: all of them.
        two_way: whether those of pairs that were heard in both directions, or the others.
    """
    values, along, blocks, pairs, senders = [], [], [], [], set()
    for place, link in enumerate(links):
        usable = np.isfinite(link.latency_ms) & link.free & (link.two_way == two_way)
        for stretch in np.unique(link.stretch[usable]).tolist():
            rows = np.flatnonzero(usable & (link.stretch == stretch))
            if len(rows) >= _FEWEST_OF_STRETCH:
                along.append(_along(link.frame[rows].astype(np.float64), link.latency_ms[rows]))
                values.append(_level(along[-1], link.latency_ms[rows]))
                blocks.append(link.block[rows] + 10**12 * place)
                pairs.append(_pair(link, stretch))
                senders.add(link.sender)
    if not values:
        return Pool(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), 0)
    sizes = np.array([len(one) for one in values])
    of_pair = {pair: sizes[[one == pair for one in pairs]] for pair in pairs}
    weights = np.array([of_pair[pair].sum() / len(of_pair[pair]) for pair in pairs]) / sizes.sum()
    _, clusters = np.unique(np.concatenate(blocks), return_inverse=True)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return Pool(np.concatenate(values), clusters, groups, weights, np.concatenate(along), len(senders))


def _pair(link: Link, stretch: int) -> tuple[str, ...]:
    ends = ((link.sender, stretch // 1000), (link.receiver, stretch % 1000))
    return tuple(f"{name}/{epoch}" for name, epoch in sorted(ends))


def _is_body(latency_ms: Floats) -> NDArray[np.bool_]:
    median = np.median(latency_ms)
    return latency_ms < median + _BODY * float(np.mean(np.abs(latency_ms - median).clip(max=10.0)))


def _body_mean(latency_ms: Floats) -> float:
    return float(latency_ms[_is_body(latency_ms)].mean())


def _along(x: Floats, latency_ms: Floats) -> Floats:
    """Place in a direction, from end to end 1 and 0 in the middle of its body, where its level is told."""
    return np.asarray((x - x[_is_body(latency_ms)].mean()) / max(float(np.ptp(x)), 1.0))


def _level(along: Floats, latency_ms: Floats) -> Floats:
    """Latencies of a direction with the slope of their body taken off: most of what is left of the clocks' drift.

    The law's likelihood, which knows the sharp edge of latencies, finds the rest.
    """
    body = _is_body(latency_ms)
    slope = (along[body] @ latency_ms[body]) / max(float((along[body] ** 2).sum()), 1e-9)
    return latency_ms - slope * along


def latency_law_of(
    links: Sequence[Link], echo_law: LatencyLaw | None, error: ClockError, asked: Asked, findings: Findings
) -> tuple[LatencyLaw | None, str]:
    """The law of latencies from the best source there is, and which that is."""
    both = pool(links, two_way=True)
    if len(both.values_ms) >= FEWEST:
        law = both.law(error, asked)
        phase_ms = _phase_ms(error, both.boards, asked.confidence)
        law = _doubted(law, phase_ms)
        return law, "messages of both directions of pairs, whose least latency is taken as equal"
    one = pool(links, two_way=False)
    if echo_law is not None:
        phase_ms = _phase_ms(error, 1, asked.confidence) / 2.0
        known = len(one.values_ms) >= FEWEST
        above_ms = one.law(error, asked).shift_ms.value - echo_law.shift_ms.value if known else 0.0
        law = replace(_doubted(echo_law, phase_ms), logged_above_ms=above_ms)
        return law, "half of round trips, both ways taken as alike"
    if len(one.values_ms) < FEWEST:
        text = f"{len(one.values_ms)} latencies are too few; as in the profile convoy"
        findings.add("latency_not_measured", "latency", text)
        return None, "too few messages"
    law = one.law(error, asked)
    assumed, note = asked.least_latency_ms, "assumed, only one direction was logged"
    text = f"one-way logs cannot tell the least latency; {assumed:.3g} ms are assumed (--least-latency-ms)"
    findings.add("assumed_latency", "latency", text)
    above_ms = law.shift_ms.value - assumed
    mean = law.mean_ms.value - above_ms
    shift = Figure("latency shift", assumed, math.nan, math.nan, 0, "ms", note)
    law = replace(law, shift_ms=shift, mean_ms=replace(law.mean_ms, value=mean, low=math.nan, high=math.nan, note=note),
                  logged_above_ms=above_ms)  # fmt: skip
    return law, f"messages of one direction; the least latency is {note}"


def latency_quantiles(links: Sequence[Link], error: ClockError, confidence: float = CONFIDENCE) -> Iterator[Figure]:
    """Quantiles of what the clocks showed, if both directions of a pair were heard."""
    both = pool(links, two_way=True)
    if len(both.values_ms) >= FEWEST:
        for share in (0.5, 0.95, 0.99):
            name = f"latency p{100 * share:.0f} as logged"
            figure = quantile(name, both.aligned_ms(), share, both.clusters, confidence, "ms")
            yield _widened(figure, _phase_ms(error, both.boards, confidence))


def _phase_ms(error: ClockError, boards: int, confidence: float) -> float:
    """How far all latencies may be off together: a board sends at an unknown point of its millisecond."""
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    return min(error.step_ms / 2.0, z * error.step_ms / math.sqrt(12.0 * boards))


def _doubted(law: LatencyLaw, by_ms: float) -> LatencyLaw:
    return replace(law, shift_ms=_widened(law.shift_ms, by_ms), mean_ms=_widened(law.mean_ms, by_ms))


def _widened(figure: Figure, by_ms: float) -> Figure:
    low, high = (math.hypot(figure.value - figure.low, by_ms), math.hypot(figure.high - figure.value, by_ms))
    return replace(figure, low=figure.value - low, high=figure.value + high)
