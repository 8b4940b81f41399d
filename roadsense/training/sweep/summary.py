"""What a sweep comes to: each point over its seeds, and beside the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadsense.comparison import iqm_difference, iqm_over_runs, probability_of_improvement
from roadsense.files import json_number
from roadsense.markdown import table as markdown_table
from roadsense.statistics import clopper_pearson
from roadsense.training.sweep.grid import BASE, label


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that points are compared by."""

    key: str
    """In a trial's ``figures``."""
    title: str
    """With its unit."""
    scale: float = 1.0
    """From the figure to that unit."""
    sign: int
    """1: higher is better, -1: lower is."""


FIGURES = (
    Figure(key="collision_share", title="collisions [%]", scale=100.0, sign=-1),
    Figure(key="false_brakes_per_calm_km", title="false brakes per calm km", sign=-1),
    Figure(key="average_reward", title="average reward", sign=1),
)
"""In the order in which validations compare them."""

FINISHED = "finished"


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the validation on ``val/`` that chose a training's policy.

    Args:
        result: content of its ``training.json``.
    """
    best = result["best"]
    return {
        "collision_share": best["collisions"] / best["episodes"],
        "false_brakes_per_calm_km": best["false_brakes_per_calm_km"],
        "average_reward": best["average_reward"],
        "collisions": best["collisions"],
        "episodes": best["episodes"],
        "timesteps": best["timesteps"],
    }


def summarise(points: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each point over its finished seeds, and compared with the base, which is the first.

    Args:
        points: ``name`` and ``overrides`` of each.
        trials: with ``point``, ``seed``, ``status`` and, where finished, ``figures``.

    Returns:
        By point: ``n`` (finished seeds), ``seeds``; ``figures``: the interquartile mean with its bounds; and
        ``against_base``: point minus base, and the probability that a seed of the point is better than one of the base.
        Bounds are None where nothing tells of a spread: of a single seed, and where all seeds agree.
    """
    done = {point["name"]: [one for one in trials if one["point"] == point["name"] and one["status"] == FINISHED]
            for point in points}  # fmt: skip
    base = done[BASE]
    return [
        {
            "point": point["name"],
            "overrides": dict(point["overrides"]),
            "n": len(done[point["name"]]),
            "seeds": [one["seed"] for one in done[point["name"]]],
            "not_finished": [one["seed"] for one in trials
                             if one["point"] == point["name"] and one["status"] != FINISHED],
            "figures": {one.key: _over_seeds(one, done[point["name"]]) for one in FIGURES},
            "against_base": None if point["name"] == BASE else {
                one.key: _against(one, done[point["name"]], base) for one in FIGURES
            },
        }
        for point in points
    ]  # fmt: skip


def same_weights(points: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Points whose every finished seed came to the weights of the base: what they vary has no effect there."""
    digests: dict[str, dict[int, str]] = {point["name"]: {} for point in points}
    for one in trials:
        if one["status"] == FINISHED:
            digests[one["point"]][one["seed"]] = one["weights_digest"]
    base = digests[BASE]
    return [name for name, found in digests.items()
            if name != BASE and found and all(base.get(seed) == digest for seed, digest in found.items())]  # fmt: skip


def _scores(figure: Figure, trials: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[float(one["figures"][figure.key])] for one in trials]


def _over_seeds(figure: Figure, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not trials:
        return {"iqm": None, "low": None, "high": None, "n": 0, "interval": None}
    found = iqm_over_runs(_scores(figure, trials))
    low, high, kind = found.low, found.high, "bootstrap"
    if figure.key == "collision_share" and not any(one["figures"]["collisions"] for one in trials):
        # No seed tells of a spread, and each was judged on the same episodes: so many of them say at most this.
        low, high = clopper_pearson(0, min(one["figures"]["episodes"] for one in trials))
        kind = "clopper-pearson"
    bounds = _bounds(low, high)
    return {"iqm": found.value, "n": found.runs, **bounds, "interval": None if bounds["low"] is None else kind}


def _against(
    figure: Figure, trials: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    if not trials or not base:
        return None
    one, other = _scores(figure, trials), _scores(figure, base)
    difference = iqm_difference(one, other)
    better = probability_of_improvement(
        [[figure.sign * value for value in row] for row in one],
        [[figure.sign * value for value in row] for row in other],
    )
    return {
        "n": difference.runs,
        "n_base": difference.against,
        "difference": {"value": difference.value, **_bounds(difference.low, difference.high)},
        "better": {"probability": better.value, **_bounds(better.low, better.high)},
    }


def _bounds(low: float, high: float) -> dict[str, float | None]:
    if low == high:  # all seeds agree
        return {"low": None, "high": None}
    return {"low": json_number(low), "high": json_number(high)}


def table(summary: Sequence[Mapping[str, Any]], base: Mapping[str, Any], episodes: int | None) -> str:
    """The summary as Markdown that reads as well unrendered: three lines a point.

    Args:
        summary: of :func:`summarise`.
        base: values that the base has where points differ from it.
        episodes: of a validation, where one is finished.
    """
    rows: list[tuple[str, ...]] = []
    for one in summary:
        asked = one["n"] + len(one["not_finished"])
        count = str(one["n"]) if one["n"] == asked else f"{one['n']} of {asked}"
        name = _named_base(base) if one["point"] == BASE else label(one["overrides"])
        rows.append((name, count, *(_cell(one["figures"][figure.key], "iqm", figure.scale) for figure in FIGURES)))
        if one["against_base"] is None:
            continue
        found = [one["against_base"][figure.key] for figure in FIGURES]
        known = next((part for part in found if part is not None), None)
        sizes = "–" if known is None else f"{known['n']}, {known['n_base']}"
        rows.append((
            "… minus base", sizes,
            *("–" if part is None else _cell(part["difference"], "value", figure.scale, signed=True)
              for figure, part in zip(FIGURES, found, strict=True)),
        ))  # fmt: skip
        rows.append((
            "… P(better than base)", sizes,
            *("–" if part is None else _cell(part["better"], "probability") for part in found),
        ))  # fmt: skip
    heads = ("point", "n seeds", *(figure.title for figure in FIGURES))
    return "\n".join([markdown_table(heads, rows), "", *_notes(episodes)])


def _named_base(values: Mapping[str, Any]) -> str:
    return f"{BASE} ({label(values)})" if values else BASE


def _notes(episodes: int | None) -> list[str]:
    judged = "" if episodes is None else f" on {episodes} episodes of val/"
    return [
        f"Interquartile mean over training seeds of the validation that chose each policy{judged}; it chose by these",
        "very episodes, so every figure is a little too good: judge the winner by `evaluate` and `gate`.",
        "[ ]: 95 % bootstrap over seeds, point and base each on their own; it covers 77 % with three seeds, 89 % with",
        "five. Where no seed hit anything: Clopper-Pearson for the episodes. [–]: one seed, or all agree.",
        "P(better than base): that a seed of the point does better than one of the base; ties count half.",
    ]


def _cell(found: Mapping[str, Any], key: str, scale: float = 1.0, *, signed: bool = False) -> str:
    if found[key] is None:
        return "–"
    value, *bounds = (None if one is None else one * scale for one in (found[key], found["low"], found["high"]))
    assert value is not None
    digits = max(_digits(one) for one in (value, *bounds) if one is not None)
    shown = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    low, high = bounds
    told = "–" if low is None or high is None else f"{low:.{digits}f}, {high:.{digits}f}"
    return f"{shown} [{told}]".replace("-", "−")


def _digits(value: float) -> int:
    """Two, and fewer where a value is large."""
    return 2 if abs(value) < 100.0 else 1
