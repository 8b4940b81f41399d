"""Progress for people, on stderr: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_S = 30.0
"""Between two lines where stderr is no terminal; a bar would fill a log with thousands of itself [s]."""


def progress_bar(total: int, unit: str, *, visible: bool = True, **kwargs: Any) -> Any:
    """A tqdm bar that is taken away at its end.

    Args:
        total: how many units there are.
        unit: what is counted.
        visible: False shows nothing.
        kwargs: of tqdm.
    """
    if not sys.stderr.isatty():
        kwargs |= {"mininterval": LOG_INTERVAL_S, "maxinterval": LOG_INTERVAL_S, "delay": LOG_INTERVAL_S}
    return tqdm(total=total, unit=unit, disable=not visible, leave=False, **kwargs)
