"""Markdown that reads as well unrendered."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose columns are padded; cells are Markdown."""
    lines = [tuple(map(str, row)) for row in (heads, *rows)]
    widths = [max(3, *(len(row[column]) for row in lines)) for column in range(len(heads))]
    told = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in lines
    ]
    told.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(told)
