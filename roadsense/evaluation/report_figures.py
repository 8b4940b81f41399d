"""Figures of a report, each a function from what a suite or a log holds to charts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from roadsense.evaluation.controls import SHUFFLED
from roadsense.evaluation.journal import Row
from roadsense.evaluation.report_run import SuiteResult
from roadsense.evaluation.report_svg import Axis, Cell, Curve, Mark, curves, heat_map, intervals, nice_axis
from roadsense.evaluation.report_text import Markup, bounded, counted, element, missing, number, percent, proportion
from roadsense.statistics import CONFIDENCE, clopper_pearson

_KNOWN = {"v2v_tuned": 1, "none": 2, "first_reception": 4, "oracle": 5, "v2v_rule": 6, "always_brake": 6, "idm": 5}
"""Colours of policies; the judged one's is 0, that with shuffled messages 3."""

_SHARES = Axis(ticks=(0.0, 0.25, 0.5, 0.75, 1.0), name="collisions [%]", show=percent)

_BRAKES = Axis(ticks=(0.0, 0.1, 1.0, 10.0, 100.0), name="false brakes per calm km (stretched near 0)",
               stretch=lambda value: math.asinh(value / 0.05))  # fmt: skip

_CHARTS = 6
"""So many charts of one figure are shown without being asked for."""

MOST_S = 3.0
"""Reactions are drawn up to here [s]."""


def colour(policy: str, judged: str) -> int:
    """The colour that a policy has in every figure."""
    if policy == judged:
        return 0
    return 3 if policy.endswith(SHUFFLED) else _KNOWN.get(policy, 2)


def grid(charts: Iterable[Markup]) -> Markup:
    """Charts beside each other as far as there is room."""
    return element("div", *charts, kind="charts")


def _share(label: str, figure: Mapping[str, Any], colour: int) -> Mark:
    return Mark(label=label, value=figure["rate"] if figure["n"] else None, low=figure["low"] if figure["n"] else None,
                high=figure["high"] if figure["n"] else None, said=proportion(figure), colour=colour)  # fmt: skip


def radio_worth(suite: SuiteResult) -> Markup:
    """Collision rates in hazards: a chart a policy, a line a radio; the charts of many policies are folded away."""
    charts = []
    for name, policy in suite.policies.items():
        marks = [
            _share(radio, found["collisions_in_hazards"], colour(name, suite.judged))
            for radio, found in policy["radios"].items()
        ]
        charts.append(intervals(name, marks, _SHARES))
    shown, more = charts[:_CHARTS], charts[_CHARTS:]
    if not more:
        return grid(shown)
    folded = element("details", element("summary", f"{counted(len(more), 'further baseline')}"), grid(more))
    return Markup(grid(shown) + folded)


def false_brakes(suites: Sequence[SuiteResult]) -> Markup:
    """False brakes per calm kilometre: a chart a suite and radio, a line a policy."""
    charts = []
    for suite in suites:
        for radio in suite.radios:
            marks = []
            for name, policy in suite.policies.items():
                found = policy["radios"][radio]["false_brakes_per_calm_km"]
                marks.append(Mark(label=name, value=found["value"], low=found["low"], high=found["high"],
                                  said=bounded(found), colour=colour(name, suite.judged)))  # fmt: skip
            whole = suite.policies[suite.judged]["radios"][radio]
            km = number(whole["calm_distance_km"])
            charts.append(intervals(f"{suite.stem}, {radio}: n {whole['episodes']}, {km} calm km", marks, _BRAKES))
    return grid(charts)


def gains(suite: SuiteResult) -> Markup:
    """Speed of V001 over that of the first car: a chart a radio, a line a policy."""
    charts = []
    for radio in suite.radios:
        found = {name: policy["radios"][radio]["head_to_tail_gain"] for name, policy in suite.policies.items()}
        largest = max([1.2, *(one["p95"] for one in found.values() if one["p95"] is not None)])
        axis = nice_axis(0.0, largest, "gain: median, and 5th to 95th percentile of episodes")
        marks = [
            Mark(label=name, value=one["p50"], low=one["p05"], high=one["p95"], colour=colour(name, suite.judged),
                 said=f"{number(one['p50'])} [{number(one['p05'])}, {number(one['p95'])}] n {one['n']}")
            for name, one in found.items()
        ]  # fmt: skip
        axis = Axis(ticks=axis.ticks, name=axis.name, mark=1.0)
        charts.append(intervals(radio, marks, axis))
    return grid(charts)


def read_bucket(name: str) -> dict[str, str]:
    """Labels by axis of a bucket's name, ``axis=label axis=label``."""
    parts = re.split(r"(?:^| )(\w+)=", name)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _pooled(buckets: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Collisions of several buckets as a proportion."""
    kept = list(buckets)
    count, total = sum(one["collisions"] for one in kept), sum(one["n"] for one in kept)
    low, high = clopper_pearson(count, total)
    return {"count": count, "n": total, "rate": count / total if total else None, "low": low, "high": high}


def by_axes(suite: SuiteResult, axes: Sequence[str]) -> Markup:
    """Collisions by the labels of some axes: a chart a policy, a line a label."""
    found: dict[str, list[Mark]] = {}
    for name, policy in suite.policies.items():
        buckets = [(read_bucket(bucket["bucket"]), bucket) for bucket in policy["buckets"]]
        marks = found[name] = []
        for axis in axes:
            for label in dict.fromkeys(labels[axis] for labels, _ in buckets if axis in labels):
                pooled = _pooled(bucket for labels, bucket in buckets if labels.get(axis) == label)
                said = label if axis == "radio" else f"{axis} {label}"
                marks.append(_share(said, pooled, colour(name, suite.judged)))
    scale = _fitting([mark for marks in found.values() for mark in marks])
    return grid(intervals(name, marks, scale) for name, marks in found.items())


def _fitting(marks: Sequence[Mark]) -> Axis:
    """An axis of shares as long as they need."""
    needed = max([0.04, *(mark.high for mark in marks if mark.high is not None)])
    return Axis(ticks=nice_axis(0.0, min(1.0, needed), "").ticks, name="collisions [%]", show=percent)


def loss_maps(suite: SuiteResult) -> Markup:
    """Collisions by loss and burst: a map a policy and GPS error."""
    maps = []
    for name, policy in suite.policies.items():
        found = {}
        for bucket in policy["buckets"]:
            labels = read_bucket(bucket["bucket"])
            found[labels["gps_m"], labels["loss"], labels["burst"]] = _pooled([bucket])
        gps, losses, bursts = (list(dict.fromkeys(key[place] for key in found)) for place in range(3))
        for error in gps:
            cells = [[_cell(found.get((error, loss, burst))) for burst in bursts] for loss in losses]
            rows = [f"{100.0 * float(loss):g} %" for loss in losses]
            maps.append(heat_map(f"{name}, GPS error {error} m", rows, bursts, cells, ("loss", "burst [beacons]")))
    return grid(maps)


def _cell(share: Mapping[str, Any] | None) -> Cell | None:
    if share is None or not share["n"]:
        return None
    return Cell(share=share["rate"], said=f"{percent(share['rate'])} %",
                below=f"{share['count']}/{share['n']} [{percent(share['low'])}, {percent(share['high'])}]")  # fmt: skip


def reactions(suite: SuiteResult) -> Markup:
    """Share of the hazards that were answered within a time, of the judged policy."""
    valid = [row for row in suite.rows if row.metrics.valid and row.metrics.hazard_happened]
    called = [row for row in valid if row.metrics.hazard_called]
    if not called:
        return missing(f"suites/{suite.stem}.csv has no hazard that called for an answer.")
    charts = []
    for title, time_of in (
        ("From the onset", lambda row: row.metrics.reaction_from_onset_s),
        ("From the first message that tells", lambda row: row.metrics.reaction_from_reception_s),
    ):
        lines = [_answered(radio, place, called, time_of) for place, radio in enumerate(suite.radios)]
        first = min(0.0, *(line.x[0] for line in lines))
        across = nice_axis(max(-1.0, first), MOST_S, "time [s]")
        charts.append(curves(title, lines, across, Axis(ticks=(0.0, 0.25, 0.5, 0.75, 1.0), name="", show=percent)))
    return grid(charts)


def _answered(radio: str, place: int, called: Sequence[Row], time_of: Callable[[Row], float]) -> Curve:
    """Distribution of reactions under a radio with its band; who never reacts keeps it below 1."""
    times = np.array([time_of(row) for row in called if row.radio == radio])
    n, known = max(1, len(times)), np.sort(times[~np.isnan(times)])
    known = np.clip(known, -1.0, MOST_S)
    inside = known[known < MOST_S]
    x = np.concatenate([[min(0.0, *inside[:1], 0.0)], inside, [MOST_S]])
    y = np.concatenate([[0.0], np.arange(1, len(inside) + 1), [len(inside)]]) / n
    reach = math.sqrt(math.log(2.0 / (1.0 - CONFIDENCE)) / (2.0 * n))
    keep = np.concatenate([np.diff(x) > 0.0, [True]])  # the last of several at one time
    x, y = np.concatenate([x[:1], x[keep]]), np.concatenate([[0.0], y[keep]])
    low, high = np.clip(y - reach, 0.0, 1.0), np.clip(y + reach, 0.0, 1.0)
    return Curve(label=f"{radio}, n {len(times)}", x=x.tolist(), y=y.tolist(), low=low.tolist(), high=high.tolist(),
                 colour=place, steps=True)  # fmt: skip


def learning(columns: Mapping[str, Sequence[float]]) -> Markup:
    """A chart a column of a training log over its timesteps, or over its first column."""
    across = "timesteps" if "timesteps" in columns else next(iter(columns))
    charts = []
    for name, values in columns.items():
        points = [(x, y) for x, y in zip(columns[across], values, strict=True) if math.isfinite(x) and math.isfinite(y)]
        if name == across or len(points) < 2:
            continue
        x, y = [point[0] for point in points], [point[1] for point in points]
        title = f"{name} (n {len(points)}, last {number(y[-1])})"
        up = nice_axis(min(y), max(y), "")
        charts.append(curves(title, [Curve(label=name, x=x, y=y)], nice_axis(min(x), max(x), across), up, 130.0))
    return grid(charts) if charts else missing("training.csv has no two rows of numbers.")
