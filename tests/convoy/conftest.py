"""What tests of the environment share."""

import pytest

from roadsense.convoy import window


class Watching:
    """Stands for a window on machines without a display, and keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def show(self, pixels):
        self.shown.append(pixels)

    def close(self):
        self.shown.append("closed")


@pytest.fixture
def watching(monkeypatch):
    """All windows that are opened in the test are this one."""
    stand_in = Watching()
    monkeypatch.setattr(window, "open_window", lambda: stand_in)
    return stand_in
