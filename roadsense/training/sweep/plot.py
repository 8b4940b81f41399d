"""The plot of a sweep: every point's interquartile mean with its interval, and the single seeds behind it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from roadsense.training.sweep.grid import BASE, label
from roadsense.training.sweep.summary import FIGURES, FINISHED

_POINT, _BASE, _SEEDS = "#1f4e79", "#d9741a", "#9aa5b1"
_BELOW = 0.22
"""Of an interval stand the dots of its seeds, which it would hide [lines]."""


def plot(summary: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with a panel for each figure and a line for each point.

    Args:
        summary: of :func:`roadsense.training.sweep.summary.summarise`.
        trials: with ``point``, ``status`` and, where finished, ``figures``.
    """
    from matplotlib.figure import Figure

    names = [f"{label(one['overrides'])}\nn = {one['n']}" for one in summary]
    figure = Figure(figsize=(12.0, 1.6 + 0.55 * len(summary)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(FIGURES), sharey=True)
    for axis, shown in zip(panels, FIGURES, strict=True):
        axis.grid(True, color="#e3e6ea", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        better = "lower" if shown.sign < 0 else "higher"
        axis.set_xlabel(f"{shown.title} ({better} is better)")
        for line, one in enumerate(summary):
            seeds = [shown.scale * trial["figures"][shown.key] for trial in trials
                     if trial["point"] == one["point"] and trial["status"] == FINISHED]  # fmt: skip
            axis.plot(seeds, [line + _BELOW] * len(seeds), "o", color=_SEEDS, markersize=4, alpha=0.8)
            found = one["figures"][shown.key]
            if found["iqm"] is None:
                continue
            colour, value = _BASE if one["point"] == BASE else _POINT, shown.scale * found["iqm"]
            if one["point"] == BASE:
                axis.axvline(value, color=_BASE, linewidth=1.0, linestyle="--")
            if found["low"] is not None:
                axis.plot(
                    [shown.scale * found["low"], shown.scale * found["high"]], [line] * 2, color=colour, linewidth=2
                )
            axis.plot([value], [line], "D", color=colour, markersize=7)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(
        "interquartile mean over training seeds with its 95 % interval (n seeds), on val/; dots: single seeds; "
        "dashed: base", fontsize=10,
    )  # fmt: skip
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
