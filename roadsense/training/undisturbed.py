"""Work that Ctrl-C may not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets Ctrl-C wait for the end of what is inside, for half an update is no state to go on from.

    A second one does not wait.

    Raises:
        KeyboardInterrupt: it was pressed.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as of what a shell has put into the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
