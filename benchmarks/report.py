"""What every benchmark prints and writes."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def parse(about: str | None, rounds: int) -> argparse.Namespace:
    """``rounds`` and ``json`` of the command line; ``about`` is the docstring of the script."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each side is measured in turn")
    parser.add_argument("--json", type=Path, help="where to write the result too")
    return parser.parse_args()


def report(benchmark: str, libraries: Sequence[str], results: Sequence[dict[str, Any]], file: Path | None) -> None:
    """Prints the results with machine and versions as JSON, and writes them to ``file`` if there is one."""
    document = {
        "benchmark": benchmark,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("roadsense", *libraries)},
        "results": list(results),
    }
    text = json.dumps(document, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")
