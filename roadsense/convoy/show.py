"""Shows worlds in the render mode that was asked for; both shells stand on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.rendering import frame
from roadsense.convoy.window import Screen
from roadsense.traffic.base import STEP_S

IN_WINDOW = 3
"""So many worlds of a batch are shown, one above the other, where a person looks at them."""


class Show:
    """What ``render()`` gives for one render mode.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or ``"human"``.
    """

    def __init__(self, render_mode: str) -> None:
        self._mode = render_mode
        self._screen = Screen(STEP_S)

    def of(self, worlds: ConvoyWorlds) -> tuple[str | NDArray[np.uint8], ...] | None:
        """A line or a picture of every world; None where a window shows them.

        Raises:
            gymnasium.error.ResetNeeded: a world that is to be drawn was never reset.
        """
        if self._mode == "human":
            return None
        show = worlds.line if self._mode == "ansi" else lambda world: frame(worlds, world)
        return tuple(show(world) for world in range(worlds.num_worlds))

    def moved(self, worlds: ConvoyWorlds) -> None:
        """To be called after every reset and step: a window shows the new state of the first worlds.

        Raises:
            RoadsenseError: no window can be opened.
        """
        if self._mode == "human":
            shown = range(min(worlds.num_worlds, IN_WINDOW))
            self._screen.show(np.concatenate([frame(worlds, world) for world in shown]))

    def close(self) -> None:
        """Takes the window away, where there is one."""
        self._screen.close()


def make_show(render_mode: str | None) -> Show | None:
    """A :class:`Show` of a mode; None where nothing is to be shown."""
    return None if render_mode is None else Show(render_mode)
