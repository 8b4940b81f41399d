"""Writes docs/environment.md from the docstring of the environment.

python docs/build.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from roadsense.convoy.env import ConvoyEnv

TARGET = Path(__file__).parent / "environment.md"


def _definitions(block: str) -> str:
    """Turns a Google-style "name: text" section into a list."""
    entries = re.split(r"\n(?=\w+: )", inspect.cleandoc(block))
    lines = []
    for entry in entries:
        name, text = entry.split(": ", 1)
        lines.append(f"- `{name}`: {' '.join(text.split())}")
    return "\n".join(lines)


def page() -> str:
    """The page as markdown."""
    text = inspect.getdoc(ConvoyEnv) or ""
    body, arguments = text.split("\nArgs:\n")
    arguments, errors = arguments.split("\nRaises:\n")
    return (
        "<!-- written by docs/build.py from the docstring of ConvoyEnv -->\n\n# Convoy-v0\n\n"
        f"{body.strip()}\n\n## Arguments of `gym.make`\n\n{_definitions(arguments)}\n\n"
        f"## Errors\n\n{_definitions(errors)}\n"
    )


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(TARGET)
