"""The plots of a calibration report: what was measured, and what the emulator makes of the fitted parameters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from roadsense.espnow.calibration.bands import Curve, burst_curve, share_below
from roadsense.espnow.calibration.latencies import pool
from roadsense.espnow.calibration.losses import FEWEST_FRAMES, LossStep, gather, steps_of
from roadsense.espnow.calibration.measure import Measured
from roadsense.espnow.calibration.records import Floats, Ints
from roadsense.espnow.calibration.traces import Link
from roadsense.statistics import CONFIDENCE

_MEASURED, _PLAYED, _BAD, _LINKS = "#1f4e79", "#d9741a", "#a61e1e", "#9aa5b1"
_FEWEST_BURSTS = 3  # a share of fewer says nothing
_POINTS = 600  # of the band of a distribution


def _figure(panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0 if panels == 1 else 11.0, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels)
    for one in np.atleast_1d(axes):
        one.grid(True, color="#e3e6ea", linewidth=0.8)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def delivery_plot(measured: Measured, played: Sequence[LossStep]) -> bytes:
    """Delivery ratio by distance: steps with intervals, every link by itself, and the re-simulated steps."""
    figure, axis = _figure()
    links = [*measured.links, *measured.bad_links]
    reach = max((float(np.nanmax(link.distance_m)) for link in links if np.isfinite(link.distance_m).any()), default=0)
    reach = 10.0 * np.ceil(max(reach, measured.steps[-1].from_m + 30.0) / 10.0)
    edges = [step.from_m for step in measured.steps]
    for group, colour, marker, label in (
        (measured.links, _LINKS, "o", "single links"), (measured.bad_links, _BAD, "x", "bad links, left out"),
    ):  # fmt: skip
        points = [point for link in group for point in _delivery_of(link, edges)]
        if points:
            axis.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, linestyle="none", label=label)
    named = named_again = False
    for number, step in enumerate(measured.steps):
        span = (step.from_m, min(step.to_m, reach))
        if step.loss is not None:
            told = {} if named else {"label": "measured, interval shaded"}
            named = True
            axis.fill_between(span, 1.0 - step.loss.low, 1.0 - step.loss.high, color=_MEASURED, alpha=0.2, linewidth=0)
            axis.plot(span, [1.0 - step.loss.value] * 2, color=_MEASURED, linewidth=2.5, **told)
        again = played[number].loss if number < len(played) else None
        if again is not None:
            told = {} if named_again else {"label": "re-simulated"}
            named_again = True
            axis.plot(span, [1.0 - again.value] * 2, color=_PLAYED, linewidth=1.8, linestyle="--", **told)
    axis.set(xlabel="distance [m]", ylabel="share of frames that arrived", xlim=(0.0, reach), ylim=(0.0, 1.02))
    if _holds_something(axis, "no distance has enough frames with positions"):
        figure.legend(frameon=False, loc="outside upper center", ncols=4)
    return _png(figure)


def _holds_something(axis: Any, why_not: str) -> bool:
    """Whether anything with a name is drawn; if not, the reason stands there."""
    if axis.get_legend_handles_labels()[1]:
        return True
    axis.text(0.5, 0.5, why_not, transform=axis.transAxes, ha="center", va="center", color=_LINKS)
    return False


def _delivery_of(link: Link, edges: Sequence[float]) -> list[tuple[float, float]]:
    """Mean distance and delivery of a link in each step of distance."""
    step = steps_of(link.distance_m, edges)
    rows = [np.flatnonzero((step == number) & link.free) for number in range(len(edges))]
    return [(float(link.distance_m[one].mean()), float(1.0 - link.lost[one].mean()))
            for one in rows if len(one) >= FEWEST_FRAMES]  # fmt: skip


def burst_plot(links: Sequence[Link], played: Sequence[Link], confidence: float = CONFIDENCE) -> bytes:
    """Share of bursts longer than k beacons, logarithmic, with the band in which the measured share is known."""
    figure, axis = _figure()
    longest = 2
    for group, colour, style, label in (
        (links, _MEASURED, "-o", "measured, interval shaded"), (played, _PLAYED, "--s", "re-simulated"),
    ):  # fmt: skip
        frames = gather(group)
        curve = burst_curve(frames.lost, frames.follows, frames.cluster, confidence)
        bursts = int((frames.lost & ~np.concatenate([[False], frames.lost[:-1]])).sum())
        shown = np.flatnonzero(curve.value * bursts >= _FEWEST_BURSTS)
        if len(shown) > 1:
            axis.semilogy(shown, curve.value[shown], style, color=colour, markersize=4, label=label)
            longest = max(longest, int(shown[-1]))
            if group is links:
                _shade(axis, curve, shown, 0.3 / bursts)
    axis.set(xlabel="k [beacons]", ylabel="share of bursts longer than k", xlim=(0, longest + 1))
    axis.xaxis.get_major_locator().set_params(integer=True)
    if _holds_something(axis, f"fewer than {_FEWEST_BURSTS} bursts were seen"):
        axis.legend(frameon=False)
    return _png(figure)


def _shade(axis: Any, curve: Curve, shown: Ints, least: float) -> None:
    """The band of a curve; ``least`` is as low as a logarithmic axis needs to go."""
    if np.isfinite(curve.low[shown]).all():
        low, high = (np.maximum(bound[shown], least) for bound in (curve.low, curve.high))
        axis.fill_between(curve.x[shown], low, high, color=_MEASURED, alpha=0.2, linewidth=0)


def latency_plot(measured: Measured, played: Sequence[Link], confidence: float = CONFIDENCE) -> bytes:
    """Distribution of latencies as clocks show them: the body, and logarithmic what is later."""
    figure, (body, tail) = _figure(2)
    logged, clusters = logged_latencies(measured)
    last, longest = 10.0, 10.0
    for values, colour, style, label in (
        (logged, _MEASURED, "-", "measured, interval shaded"), (_latencies(played), _PLAYED, "--", "re-simulated"),
    ):  # fmt: skip
        if len(values) == 0:
            continue
        ordered = np.sort(values)
        below = np.arange(1, len(ordered) + 1) / len(ordered)
        body.plot(ordered, below, style, color=colour, linewidth=2.0, label=label)
        tail.semilogy(ordered[:-1], 1.0 - below[:-1], style, color=colour, linewidth=2.0, label=label)
        last, longest = max(last, 1.2 * float(np.quantile(ordered, 0.99))), max(longest, float(ordered[-1]))
        if values is logged:
            curve = share_below(values, clusters, np.linspace(ordered[0], ordered[-1], _POINTS), confidence)
            _shade(body, curve, np.arange(_POINTS), 0.0)
            later = Curve(curve.x, 1.0 - curve.value, 1.0 - curve.high, 1.0 - curve.low)
            _shade(tail, later, np.arange(_POINTS), 0.3 / len(ordered))
    body.set(xlabel="latency [ms]", ylabel="share that arrived by then", xlim=(0.0, last), ylim=(0.0, 1.02))
    tail.set(xlabel="latency [ms]", ylabel="share that was later", xlim=(0.0, 1.02 * longest))
    if _holds_something(body, "no latency is known"):
        body.legend(frameon=False, loc="lower right")
    return _png(figure)


def logged_latencies(measured: Measured) -> tuple[Floats, Ints]:
    """Latencies of the healthy links on the scale of the fitted law, and the block of time of each.

    Of one direction the logs know only differences: the clocks' envelope puts the least latency that was shown, which
    rounding has made less, where the least one is assumed. The law has that error of the clocks in it and tells by how
    much they are off.
    """
    both, one = (pool(measured.links, two_way) for two_way in (True, False))
    if len(both.values_ms):
        return both.aligned_ms(), both.clusters
    if not len(one.values_ms):
        return np.zeros(0), np.zeros(0, np.int64)
    return one.aligned_ms() - (measured.latency.logged_above_ms if measured.latency else 0.0), one.clusters


def _latencies(links: Sequence[Link]) -> Floats:
    values = [link.latency_ms[np.isfinite(link.latency_ms) & link.free] for link in links]
    return np.concatenate(values) if values else np.zeros(0)
