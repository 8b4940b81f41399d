"""What echoes tell: no clock is compared with another, but two ways are in every figure.

Assumed is that both ways are alike and independent: a round trip arrives with the square of the one-way share, and
takes the sum of two one-way latencies.

Runs of lost requests are longer than those of one way. Each way is a Gilbert–Elliott chain that loses p; of two such
chains, both arrive with (1 − p)², and both arrive again with (1 − p)² g², g = P(a way arrives | it did before). So a
run of the pair ends with (1 − p)² (1 − g²) / (1 − (1 − p)²), which is 1 / the mean run and tells g; and a run of one
way ends with (1 − p) (1 − g) / p, because a chain is entered as often as it is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from roadsense.espnow.calibration.figures import Figure, loss_share, mean_burst
from roadsense.espnow.calibration.latency_law import FEWEST, ClockError, LatencyLaw, fit_latency
from roadsense.espnow.calibration.losses import FEWEST_FRAMES, LossStep, steps_of
from roadsense.espnow.calibration.records import Bools, Floats, Ints, RoundTrips
from roadsense.espnow.sections import least_mean_burst
from roadsense.statistics import CONFIDENCE

_BLOCK = 100  # requests
_NOTE = "assumes that both ways are alike"


@dataclass(frozen=True)
class Echoes:
    """All requests of all files, in order; arrays are [request]."""

    lost: Bools
    half_ms: Floats
    """Half the round trip; NaN where lost or unknown."""
    distance_m: Floats
    follows: Bools
    block: Ints
    interval_ms: float
    """Usual time between two requests to a peer."""


def gather(trips: Sequence[RoundTrips]) -> Echoes:
    """Joins files; each one's requests are one sequence per peer."""
    no = np.zeros(0)
    parts = [(np.zeros(0, np.bool_), no, no, np.zeros(0, np.bool_), np.zeros(0, np.int64))]
    gaps_ms: list[Floats] = []
    blocks = 0
    for trip in trips:
        for peer in np.unique(trip.peer):
            of = np.flatnonzero(trip.peer == peer)
            half = (trip.received_ms[of] - trip.sent_ms[of]) / 2.0
            half[np.isinf(half)] = np.nan
            block = blocks + np.arange(len(of)) // _BLOCK
            blocks = int(block[-1]) + 1
            gap_ms = np.diff(trip.sent_ms[of], prepend=-np.inf)
            usual_ms = np.median(gap_ms[1:]) if len(of) > 1 else 0.0
            follows = gap_ms < 1.5 * usual_ms
            gaps_ms.append(gap_ms[follows])
            parts.append((np.isnan(trip.received_ms[of]), half, trip.distance_m[of], follows, block))
    joined = np.concatenate(gaps_ms) if gaps_ms else np.zeros(0)
    interval_ms = float(np.median(joined)) if len(joined) else math.nan
    lost, half, distance, follows, block = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Echoes(lost, half, distance, follows, block, interval_ms)


def within(echoes: Echoes, inside: Bools) -> Echoes:
    """The requests of a mask, those that no longer follow each other marked so."""
    rows = np.flatnonzero(inside)
    follows = echoes.follows[rows] & (np.diff(rows, prepend=-2) == 1)
    return replace(
        echoes, lost=echoes.lost[rows], half_ms=echoes.half_ms[rows], distance_m=echoes.distance_m[rows],
        follows=follows, block=echoes.block[rows],
    )  # fmt: skip


def echo_loss(name: str, echoes: Echoes, confidence: float = CONFIDENCE) -> tuple[Figure, Figure, Figure, Figure]:
    """Share of requests without an echo and the mean run of them, and loss and mean run of the one way they stand for.

    The order is loss and one-way loss, run and one-way run.
    """
    both = loss_share(f"round-trip loss{name}", echoes.lost, echoes.block, confidence)
    low, value, high = (1.0 - math.sqrt(1.0 - share) for share in (both.low, both.value, both.high))
    one = Figure(f"one-way loss{name} from round trips", value, low, high, both.n, "", _NOTE)
    run = mean_burst(f"round-trip burst{name}", echoes.lost, echoes.follows, echoes.block, confidence)
    low, value, high = (one_way_burst(both.value, burst) for burst in (run.low, run.value, run.high))
    one_run = Figure(f"one-way burst{name} from round trips", value, low, high, run.n, "requests", run.note or _NOTE)
    return both, one, replace(run, unit="requests"), one_run


def one_way_burst(loss: float, burst: float) -> float:
    """Mean run of one way from the loss and the mean run of round trips; the formula is that of the module."""
    if not 0.0 < loss < 1.0 or not math.isfinite(burst):
        return math.nan
    share = 1.0 - math.sqrt(1.0 - loss)
    again = math.sqrt(1.0 - loss / ((1.0 - loss) * max(burst, least_mean_burst(loss))))
    return share / ((1.0 - share) * (1.0 - again))


def loss_steps(echoes: Echoes, edges_m: Sequence[float], confidence: float = CONFIDENCE) -> list[LossStep]:
    """One-way loss by distance, for logs of round trips alone; all in one step where no distance was logged."""
    if not np.isfinite(echoes.distance_m).any():
        edges_m, echoes = edges_m[:1], replace(echoes, distance_m=np.zeros(len(echoes.lost)))
    found, steps = [], steps_of(echoes.distance_m, edges_m)
    for number, (begin, end) in enumerate(zip(edges_m, [*edges_m[1:], np.inf], strict=True)):
        here = within(echoes, steps == number)
        if len(here.lost) < FEWEST_FRAMES:
            found.append(LossStep(begin, end, None, None))
            continue
        _, one, _, one_run = echo_loss(f" at {begin:g} m and more", here, confidence)
        found.append(LossStep(begin, end, one, one_run, echoes.interval_ms))
    return found


def one_way_law(
    echoes: Echoes, error: ClockError, usual_tail_ms: tuple[float, float], confidence: float = CONFIDENCE
) -> LatencyLaw | None:
    """The law of one way whose mean of two is the law of half the round trip; None with too few echoes.

    The mean of two gammas (k, θ) is a gamma (2k, θ/2), and half of one tail delays it with twice the probability.
    """
    there = np.isfinite(echoes.half_ms)
    if there.sum() < FEWEST:
        return None
    halves = (usual_tail_ms[0] / 2.0, usual_tail_ms[1] / 2.0)
    half = ClockError(error.step_ms / 2.0, error.times)
    law = fit_latency(echoes.half_ms[there], echoes.block[there], half, halves, confidence)
    return LatencyLaw(
        shift_ms=_scaled(law.shift_ms, 1.0), shape=_scaled(law.shape, 0.5), scale_ms=_scaled(law.scale_ms, 2.0),
        tail_probability=_scaled(law.tail_probability, 0.5), tail_from_ms=_scaled(law.tail_from_ms, 2.0),
        tail_to_ms=_scaled(law.tail_to_ms, 2.0), mean_ms=_scaled(law.mean_ms, 1.0),
    )  # fmt: skip


def _scaled(figure: Figure, factor: float) -> Figure:
    low, value, high = (factor * share for share in (figure.low, figure.value, figure.high))
    return replace(figure, value=value, low=low, high=high, note=figure.note or _NOTE)
