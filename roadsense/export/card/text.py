"""Markdown of a card: tables that also read as plain text, figures as the README writes them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from roadsense.evaluation.report_text import bounded, number

WIDTH = 120
_OPENS_A_BLOCK = re.compile(r"([-+*#>|=]|\d+[.)])(\s|$)")


def plain(said: object) -> str:
    """Text of a file on one line, whose characters mean nothing in Markdown."""
    text = " ".join(str(said).split())
    return re.sub(r"([\\`*<|])", r"\\\1", text).replace("](", "] (")


def code(name: object) -> str:
    """A name or path of a file as code, also within a table."""
    return "`" + " ".join(str(name).replace("`", "'").split()).replace("|", "\\|") + "`"


def bare(said: object) -> str:
    """Figures without the zero before the point; names such as ``lossy:0.3,4.6`` stay."""
    return re.sub(r"(?<![\w:=.,/-])0\.(?=\d)", ".", str(said))


def figure(value: Any) -> str:
    """Three significant digits; a dash for nothing."""
    return bare(number(value))


def share(of: Mapping[str, Any]) -> str:
    """``k of n [low, high %]``."""
    if not of["n"]:
        return "– (n 0)"
    return f"{of['count']:,} of {of['n']:,} {interval(of, ' %', 100.0)}"


def ratio(of: Mapping[str, Any]) -> str:
    """``value [low, high] (n)``."""
    return f"{bare(bounded(of))} (n {of['n']:,})"


def interval(of: Mapping[str, Any], unit: str = "", scale: float = 1.0) -> str:
    """``[low, high unit]``."""
    low, high = (None if of[key] is None else scale * of[key] for key in ("low", "high"))
    return f"[{figure(low)}, {figure(high)}{unit}]"


def times(of: Mapping[str, Any]) -> str:
    """``median / p95 (n)``."""
    return f"{figure(of['p50'])} / {figure(of['p95'])} (n {of['n']:,})" if of["n"] else "– (n 0)"


def paragraph(*sentences: str, first: str = "", rest: str = "") -> str:
    """Sentences as lines of :data:`WIDTH`, or as one where a break would make one look like a list or a heading."""
    text = " ".join(sentence for sentence in sentences if sentence)
    lines = textwrap.wrap(text, WIDTH - len(first), break_long_words=False, break_on_hyphens=False)
    if any(_OPENS_A_BLOCK.match(line) for line in lines[1:]):
        lines = [text]
    return first + f"\n{rest}".join(lines)


def bullets(items: Sequence[str]) -> str:
    """A list."""
    return "\n".join(paragraph(item, first="- ", rest="  ") for item in items)


def block(language: str, text: str) -> str:
    """Code to copy."""
    return f"```{language}\n{textwrap.dedent(text).strip()}\n```"


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])
