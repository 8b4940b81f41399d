"""Text, numbers and tables of a report; whatever comes from a file is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already; all other text is escaped before it enters a page."""


def text(value: object) -> Markup:
    """The value as HTML text; markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def element(tag: str, *inside: object, kind: str = "") -> Markup:
    """``<tag class=kind>inside</tag>``."""
    marked = f' class="{escape(kind)}"' if kind else ""
    return Markup(f"<{tag}{marked}>{''.join(map(text, inside))}</{tag}>")


def missing(said: object) -> Markup:
    """One line in the place of what a run does not have."""
    return element("p", said, kind="missing")


def note(said: object) -> Markup:
    """How to read what stands above."""
    return element("p", said, kind="note")


def table(heads: Sequence[object], rows: Sequence[Sequence[object]], kinds: Sequence[str] = ()) -> Markup:
    """A table in a box of its own that scrolls sideways; ``kinds`` are classes of its rows."""
    head = element("tr", *(element("th", one) for one in heads))
    body = [
        element("tr", *(element("td", cell) for cell in row), kind=kinds[place] if kinds else "")
        for place, row in enumerate(rows)
    ]
    inside = element("table", element("thead", head), element("tbody", *body), kind="num")
    return Markup(f'<div class="scroll" tabindex="0">{inside}</div>')


def number(value: Any) -> str:
    """Three significant digits; a dash for nothing."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or (abs(value) < 1e15 and float(value).is_integer()):
        return f"{value:,.0f}".replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def bounded(figure: Mapping[str, Any], key: str = "value") -> str:
    """``value [low, high]`` of a figure."""
    low, high = figure.get("low"), figure.get("high")
    bracket = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    return f"{number(figure.get(key))}{bracket}" if figure.get(key) is not None else "–"


def percent(share: float) -> str:
    """A share in percent, as precise as it is small."""
    value = 100.0 * share
    if value == 0.0 or 9.95 <= value:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.095 else f"{value:.2g}"


def proportion(figure: Mapping[str, Any]) -> str:
    """``k/n [low, high] %``."""
    if not figure["n"]:
        return "0/0"
    return f"{figure['count']}/{figure['n']} [{percent(figure['low'])}, {percent(figure['high'])}] %"


def verdict_figure(verdict: Mapping[str, Any]) -> str:
    """A gate's figure; of a count the interval is that of its rate."""
    if str(verdict["figure"]).endswith(".count") and verdict["n"] and verdict["low"] is not None:
        return proportion({**verdict, "count": number(verdict["value"])})
    return bounded(verdict)


def quantiles(figure: Mapping[str, Any], *names: str) -> str:
    """Some of a spread's quantiles, and how many episodes show it."""
    return f"{' / '.join(number(figure[name]) for name in names)} (n {figure['n']})" if figure["n"] else "– (n 0)"


_LEAVES = {"value": "", "rate": ", rate", "count": ", count", "low": ", lower bound", "high": ", upper bound",
           "min": ", least", "max": ", largest"}  # fmt: skip


def plain(said: object) -> str:
    """Names of figures within a text, as words: ``false_brakes_per_calm_km.value`` is false brakes per calm km."""

    def words(found: re.Match[str]) -> str:
        return found[1].replace("_", " ") + _LEAVES.get(found[2], f", {found[2]}")

    return re.sub(r"\b([a-z]\w*)\.([a-z]\w*)\b", words, str(said))


def compact(value: float) -> str:
    """A tick of an axis: 1.5 M, 500 k."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10.0 * unit or (abs(value) >= unit and letter == "M"):
            return f"{number(value / unit)} {letter}"
    return number(value)


def counted(count: int, thing: str) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
