"""Small charts as inline SVG; colours are those of the page, so that they follow light and dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roadsense.evaluation.report_text import Markup, compact, text

WIDTH = 360
"""Of every chart, in units that are about one pixel on a phone."""

_LABEL, _PLOT, _ROW = 100, 144, 17
_LEFT, _RIGHT = 42, 14
"""Of charts with two axes."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A value axis."""

    ticks: tuple[float, ...]
    """From its low end to its high one."""
    name: str
    stretch: Callable[[float], float] = float
    mark: float | None = None
    """Value with a line of its own."""
    show: Callable[[float], str] = compact

    def place(self, value: float) -> float:
        """From 0 to 1."""
        low, high = self.stretch(self.ticks[0]), self.stretch(self.ticks[-1])
        return min(1.0, max(0.0, (self.stretch(value) - low) / (high - low)))


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One line of a chart of intervals."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    said: str
    """Its figure in words, beside it."""
    colour: int = 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line over x; with bounds a band around it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: int = 0
    steps: bool = False


def nice_axis(low: float, high: float, name: str) -> Axis:
    """An axis with round ticks that holds both values."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    raw = (high - low) / 4.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * power for unit in (1.0, 2.0, 2.5, 5.0, 10.0) if unit * power >= 0.999 * raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(ticks=tuple(round(k * step, 12) for k in range(first, last + 1)), name=name)


def figure(title: str, height: float, parts: Sequence[str]) -> Markup:
    """An SVG under its title."""
    drawn = (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{text(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
    return Markup(f"<figure><figcaption>{text(title)}</figcaption>{drawn}</figure>")


def _text(x: float, y: float, said: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{text(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _short(label: str, most: int = 16) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


def intervals(title: str, marks: Sequence[Mark], axis: Axis) -> Markup:
    """A line a mark: its name, its value with interval, and the same in words."""
    bottom = 4 + _ROW * len(marks)
    parts = []
    for tick in axis.ticks:
        x = _LABEL + _PLOT * axis.place(tick)
        parts += [_line(x, 2, x, bottom, "grid"), _text(x, bottom + 12, axis.show(tick), "middle", "soft")]
    if axis.mark is not None:
        x = _LABEL + _PLOT * axis.place(axis.mark)
        parts.append(_line(x, 2, x, bottom, "mark"))
    parts.append(_text(_LABEL + _PLOT / 2, bottom + 25, axis.name, "middle", "soft"))
    for place, mark in enumerate(marks):
        y = 4 + _ROW * (place + 0.5)
        inside = [f"<title>{text(mark.label)}: {text(mark.said)}</title>", _text(0, y + 4, _short(mark.label))]
        if mark.low is not None and mark.high is not None:
            left, right = (_LABEL + _PLOT * axis.place(value) for value in (mark.low, mark.high))
            inside.append(_line(left, y, max(right, left + 1), y, f"c{mark.colour} whisker"))
        if mark.value is not None:
            x = _LABEL + _PLOT * axis.place(mark.value)
            inside.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="c{mark.colour} dot"/>')
        inside.append(_text(WIDTH, y + 4, mark.said, "end", "small"))
        parts.append(f"<g>{''.join(inside)}</g>")
    return figure(title, bottom + 30, parts)


def curves(title: str, lines: Sequence[Curve], across: Axis, up: Axis, tall: float = 200.0) -> Markup:
    """Lines over x, with a legend where there are several."""
    legend = 15 * len(lines) if len(lines) > 1 else 0
    top, bottom, width = 6 + legend, tall + legend, WIDTH - _LEFT - _RIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + width * across.place(x), bottom - (bottom - top) * up.place(y)

    parts = []
    for tick in up.ticks:
        y = at(across.ticks[0], tick)[1]
        parts += [_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"), _text(_LEFT - 5, y + 4, up.show(tick), "end", "soft")]
    for tick in across.ticks:
        x = at(tick, up.ticks[0])[0]
        parts += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 13, across.show(tick), "middle", "soft")]
    parts.append(_text(_LEFT + width / 2, bottom + 27, across.name, "middle", "soft"))
    for place, line in enumerate(lines):
        if legend:
            y = 8 + 15 * place
            parts += [_line(_LEFT, y, _LEFT + 18, y, f"c{line.colour} curve"), _text(_LEFT + 24, y + 4, line.label)]
        if line.low:
            ahead = _path([at(x, y) for x, y in zip(line.x, line.high, strict=True)], line.steps)
            back = _path([at(x, y) for x, y in zip(line.x, line.low, strict=True)][::-1], line.steps, back=True)
            parts.append(f'<path d="M{ahead}L{back}Z" class="c{line.colour} band"/>')
        points = _path([at(x, y) for x, y in zip(line.x, line.y, strict=True)], line.steps)
        parts.append(f'<path d="M{points}" class="c{line.colour} curve"/>')
    return figure(title, bottom + 32, parts)


def _path(points: Sequence[tuple[float, float]], steps: bool, back: bool = False) -> str:
    """Points of a path; as steps each value holds until the next x."""
    if steps:
        corners = [points[0]]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            corners += [(x0, y1) if back else (x1, y0), (x1, y1)]
        points = corners
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field of a map."""

    share: float
    """From 0 to 1: how strongly it is coloured."""
    said: str
    below: str


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Cell | None]],
    axes: tuple[str, str],
) -> Markup:
    """Fields by row and column; ``axes`` name rows and columns. None: a field that does not exist."""
    left, top, high = 48, 30, 34
    wide = (WIDTH - left) / max(1, len(columns))
    parts = [_text(0, 10, axes[0], kind="soft"), _text((left + WIDTH) / 2, 10, axes[1], "middle", "soft")]
    parts += [_text(left + wide * (k + 0.5), 25, name, "middle") for k, name in enumerate(columns)]
    for r, name in enumerate(rows):
        y = top + high * r
        parts.append(_text(left - 6, y + high / 2 + 4, name, "end"))
        for c, cell in enumerate(cells[r]):
            x, middle = left + wide * c, left + wide * (c + 0.5)
            strength = 0.0 if cell is None else 0.75 * cell.share
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2}" class="cell" '
                f'fill-opacity="{strength:.3f}"/>'
            )
            if cell is None:
                parts.append(_text(middle, y + high / 2 + 4, "–", "middle", "soft"))
            else:
                parts += [_text(middle, y + 15, cell.said, "middle", "strong")]
                parts += [_text(middle, y + 27, cell.below, "middle", "tiny")]
    return figure(title, top + high * len(rows) + 2, parts)
