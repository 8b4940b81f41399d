"""Two runs' gates beside each other: what changed, and what got worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.evaluation.report_text import verdict_figure


@dataclass(frozen=True, kw_only=True)
class Change:
    """One gate in two runs."""

    gate: str
    earlier: str
    """The other run's figure in words."""
    said: str
    """What became of it, in words."""
    worse: bool
    """Beyond both intervals, or it was passed then and fails now."""
    doubtful: bool
    """Worse, without intervals to judge by."""
    told: str
    """Both figures in words."""


def compare(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[tuple[str, str], Change]:
    """The gates that both runs answered, by group and name.

    A figure got worse where it moved to its bound's bad side and each value lies outside the other's interval, or
    where the gate was passed then and fails now. Without intervals it is doubtful.
    """
    before = {(one["group"], one["name"]): one for one in earlier["verdicts"]}
    return {
        key: _change(one, before[key])
        for one in now["verdicts"] if (key := (one["group"], one["name"])) in before
    }  # fmt: skip


def _change(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> Change:
    falls = earlier["passed"] and not now["passed"]
    said, worse, doubtful = "no figure to compare", False, False
    if _is_number(now["value"]) and _is_number(earlier["value"]):
        step = _value(now) - _value(earlier)
        bad = step < 0 if _wants_more(now) else step > 0
        apart = _outside(_value(now), earlier) and _outside(_value(earlier), now)
        exact = not (_has_interval(now) and _has_interval(earlier))
        worse, doubtful = bad and apart and not exact, bad and apart and exact
        if step == 0:
            said = "the same"
        elif not apart:
            said = f"{'worse' if bad else 'better'}, within the intervals"
        else:
            said = ("worse" if bad else "better") + (", without intervals" if exact else ", beyond both intervals")
    if falls:
        said = f"{said}; passed then, fails now"
    n = f", n {earlier['n']:,}" if earlier["n"] is not None else ""
    was = f"{verdict_figure(earlier)}{n}, {'passed' if earlier['passed'] else 'failed'}"
    return Change(
        gate=f"{now['group']}: {now['name']}",
        earlier=was,
        said=said,
        worse=worse or falls,
        doubtful=doubtful and not falls,
        told=f"{verdict_figure(now)} now, {verdict_figure(earlier)} then ({said})",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _value(verdict: Mapping[str, Any]) -> float:
    """A count as its rate, for of that its interval tells."""
    value = float(verdict["value"])
    return value / verdict["n"] if str(verdict["figure"]).endswith(".count") and verdict["n"] else value


def _has_interval(verdict: Mapping[str, Any]) -> bool:
    return _is_number(verdict["low"]) and _is_number(verdict["high"])


def _outside(value: float, verdict: Mapping[str, Any]) -> bool:
    if not _has_interval(verdict):
        return value != _value(verdict)
    return not verdict["low"] <= value <= verdict["high"]


def _wants_more(verdict: Mapping[str, Any]) -> bool:
    return str(verdict["bound"]).startswith(("at least", "holds", "all of"))


def other_suites(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """Suites that both runs were judged on, but not with the same episodes."""
    here, before = (
        {Path(name).stem: suite.get("digest") for name, suite in (gates.get("suites") or {}).items()}
        for gates in (now, earlier)
    )
    return [name for name, digest in here.items() if name in before and before[name] != digest]
