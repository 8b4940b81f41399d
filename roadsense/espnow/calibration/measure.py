"""All figures of a set of logs, in the order in which a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from roadsense.espnow.calibration import round_trips
from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.axes import put_right
from roadsense.espnow.calibration.boots import align
from roadsense.espnow.calibration.figures import Figure, chi_interval, loss_share, mean_burst, ratio
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.gps_law import GpsError, gps_error, holds_fixes
from roadsense.espnow.calibration.latencies import clock_error, latency_law_of, latency_quantiles
from roadsense.espnow.calibration.latency_law import ClockError, LatencyLaw
from roadsense.espnow.calibration.losses import LossStep, gather, loss_by_distance, split_bad, tell_unmeasured
from roadsense.espnow.calibration.matching import Clocks, match_frames, pair_clocks, tell_unknown_senders
from roadsense.espnow.calibration.noise import SensorNoise, sensor_noise
from roadsense.espnow.calibration.records import Board, LogSet
from roadsense.espnow.calibration.traces import Link, trace_links


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of a set of logs."""

    boards: tuple[Board, ...]
    clocks: Clocks
    links: list[Link]
    bad_links: list[Link]
    pairs: list[Figure]
    """Offset and drift of each pair of clocks."""
    steps: list[LossStep]
    bad: list[Figure]
    """Loss and mean burst of each bad link."""
    latency: LatencyLaw | None
    latency_source: str
    quantiles: list[Figure]
    clock_error: ClockError
    echoes: list[Figure]
    interval_ms: Figure | None
    drift_sd_ppm: Figure | None
    noise: dict[str, SensorNoise]
    gps: GpsError | None
    fixes: tuple[bool, float] | None
    """Whether positions are held between fixes, and fixes per second."""

    @property
    def tells_radio(self) -> bool:
        """Whether any loss or latency was measured; without, parameters would be those of a profile by another name."""
        return self.latency is not None or any(step.loss is not None for step in self.steps)

    def figures(self) -> Iterator[Figure]:
        """All of them that are known."""
        rows: list[Figure | None] = [*self.pairs, self.interval_ms, self.drift_sd_ppm]
        rows += [figure for step in self.steps for figure in (step.loss, step.burst)]
        rows += [*self.bad, *(self.latency.figures() if self.latency else ()), *self.quantiles, *self.echoes]
        rows += [figure for one in self.noise.values() for figure in (one.rest, one.motion)]
        rows += [self.gps.sigma_m, self.gps.tau_s] if self.gps else []
        yield from (row for row in rows if row is not None)


def measure(logs: LogSet, asked: Asked, findings: Findings) -> Measured:
    """Estimates every figure that the logs allow; what they do not is None, and told."""
    logs = replace(logs, boards=tuple(put_right(board, findings) for board in logs.boards))
    tell_unknown_senders(logs, findings)
    interval = _interval(logs.boards, asked.confidence)
    matches = {
        (sender.name, receiver.name): match_frames(sender.sent, receiver, sender.name, findings)
        for sender in logs.boards
        for receiver in logs.boards
        if sender is not receiver and receiver.heard is not None
    }
    logs, matches = align(logs, matches)
    error = clock_error(logs)
    clocks = pair_clocks(logs, matches, asked.least_latency_ms, error.step_ms, findings)
    all_links = trace_links(logs, matches, clocks, findings)
    links, bad = split_bad(all_links, asked.edges_m, asked.excluded, findings)
    echoes = round_trips.gather(logs.round_trips) if logs.round_trips else None
    steps = loss_by_distance(links, asked.edges_m, asked.confidence)
    if echoes and not any(step.loss for step in steps):
        steps = round_trips.loss_steps(echoes, asked.edges_m, asked.confidence)
    tell_unmeasured(links, steps, asked.edges_m, findings)
    echo_law = round_trips.one_way_law(echoes, error, asked.usual_tail_ms, asked.confidence) if echoes else None
    law, source = latency_law_of(all_links, echo_law, error, asked, findings)
    return Measured(
        boards=logs.boards, clocks=clocks, links=links, bad_links=bad,
        pairs=list(_pairs(clocks, error.step_ms, asked.confidence)), steps=steps,
        bad=[figure for link in bad for figure in _of_link(link, asked.confidence)],
        latency=law, latency_source=source, quantiles=list(latency_quantiles(all_links, error, asked.confidence)),
        clock_error=error, echoes=_echoes(echoes, asked.confidence), interval_ms=interval,
        drift_sd_ppm=_drift_sd(logs.boards, clocks, asked.confidence),
        noise=sensor_noise(logs.boards, findings, asked.confidence), gps=gps_error(logs.boards, asked.confidence),
        fixes=holds_fixes(logs.boards),
    )  # fmt: skip


def _interval(boards: Sequence[Board], confidence: float) -> Figure | None:
    gaps = [np.diff(board.sent.stamp_ms) for board in boards]
    kept = [gap[(gap > 0.0) & (gap < 1.5 * np.median(gap))] for gap in gaps if len(gap)]
    if not sum(map(len, kept)):
        return None
    clusters = np.concatenate([1000 * place + np.arange(len(gap)) // 100 for place, gap in enumerate(kept)])
    joined = np.concatenate(kept)
    return replace(ratio("beacon interval", joined, np.ones(len(joined)), clusters, confidence), unit="ms")


def _pairs(clocks: Clocks, error_ms: float, confidence: float) -> Iterator[Figure]:
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    for (first, second, a, b), clock in clocks.items():
        stretch = f", stretch {a + 1}/{b + 1}" if a or b else ""
        pair, line = f"{second} − {first}{stretch}", clock.difference
        half = clock.least_latency_ms + error_ms if clock.two_way else math.nan
        how = "between the envelopes of both directions" if clock.two_way else "rests on the assumed least latency"
        yield Figure(f"clock offset {pair}", line.value_ms, line.value_ms - half, line.value_ms + half, line.n, "ms",
                     f"when {first} shows {line.at_ms:.0f} ms; {how}")  # fmt: skip
        drift, spread = 1e6 * line.slope, 1e6 * z * line.slope_sd
        yield Figure(f"clock drift {pair}", drift, drift - spread, drift + spread, line.n, "ppm")


def _drift_sd(boards: Sequence[Board], clocks: Clocks, confidence: float) -> Figure | None:
    """Spread of clock rates over boards, from the drifts of all against the one that most are compared with."""
    drifts: dict[str, dict[str, tuple[float, float]]] = {board.name: {} for board in boards}
    for (first, second, _, _), clock in clocks.items():
        line = clock.difference
        for one, other, sign in ((first, second, 1e6), (second, first, -1e6)):
            best = drifts[one].get(other, (0.0, math.inf))
            if line.slope_sd < best[1]:
                drifts[one][other] = (sign * line.slope, line.slope_sd)
    against = max(drifts.values(), key=len, default={})
    if not against:
        return None
    rates = [0.0, *(drift for drift, _ in against.values())]
    deviation = float(np.std(rates, ddof=1))
    low, high = chi_interval(deviation, len(rates) - 1, confidence)
    return Figure("clock drift over boards, standard deviation", deviation, low, high, len(rates), "ppm")


def _of_link(link: Link, confidence: float) -> Iterator[Figure]:
    frames = gather([link])
    yield loss_share(f"loss on {link.name}, left out", frames.lost, frames.cluster, confidence)
    yield mean_burst(f"mean burst on {link.name}, left out", frames.lost, frames.follows, frames.cluster, confidence)


def _echoes(echoes: round_trips.Echoes | None, confidence: float) -> list[Figure]:
    return list(round_trips.echo_loss("", echoes, confidence)) if echoes else []
