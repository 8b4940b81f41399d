"""A window for ``render_mode="human"``: pygame where it is installed, else tkinter."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import RoadsenseError

TITLE = "roadsense"


class Window(Protocol):
    """Shows one picture after the other."""

    def show(self, pixels: NDArray[np.uint8]) -> None:
        """Puts [height, width, 3] on the screen, whatever size the picture before had."""

    def close(self) -> None:
        """Takes the window away; calling it again does nothing."""


class _PygameWindow:
    def __init__(self, pygame: Any) -> None:
        self._pygame = pygame
        try:
            pygame.display.init()
            pygame.display.set_caption(TITLE)
            self._screen = pygame.display.set_mode((1, 1))
        except pygame.error as error:
            raise _no_display(error) from None

    def show(self, pixels: NDArray[np.uint8]) -> None:
        pygame, (height, width) = self._pygame, pixels.shape[:2]
        if self._screen.get_size() != (width, height):
            self._screen = pygame.display.set_mode((width, height))
        pygame.event.pump()
        self._screen.blit(pygame.surfarray.make_surface(pixels.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()

    def close(self) -> None:
        self._pygame.display.quit()


class _TkWindow:
    def __init__(self, tkinter: Any) -> None:
        self._tkinter = tkinter
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise _no_display(error) from None
        self._root.title(TITLE)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self.close)

    def show(self, pixels: NDArray[np.uint8]) -> None:
        if self._root is None:  # the user closed it; the episode goes on
            return
        height, width = pixels.shape[:2]
        self._image = self._tkinter.PhotoImage(
            master=self._root, width=width, height=height, data=b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()
        )
        self._label.configure(image=self._image)
        self._root.update()

    def close(self) -> None:
        if self._root is not None:
            self._root.destroy()
            self._root = None


def _no_display(error: Exception) -> RoadsenseError:
    return RoadsenseError(
        f'render_mode="human" found no display to open a window on ({error}); set DISPLAY, or use "rgb_array".'
    )


def open_window() -> Window:
    """A window on this machine's display.

    Raises:
        RoadsenseError: there is no display, or no library that can open a window.
    """
    try:
        import pygame  # type: ignore[import-not-found,unused-ignore]

        return _PygameWindow(pygame)
    except ImportError:
        pass
    try:
        import tkinter
    except ImportError:
        raise RoadsenseError(
            'render_mode="human" needs pygame or tkinter, and neither is installed; pip install pygame, or use'
            ' "rgb_array".'
        ) from None
    return _TkWindow(tkinter)


class Screen:
    """Shows pictures at the pace of the simulation, in a window that opens with the first of them."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._window: Window | None = None
        self._due_s = 0.0

    def show(self, pixels: NDArray[np.uint8]) -> None:
        """Waits until the picture is due, then shows it.

        Raises:
            RoadsenseError: no window can be opened.
        """
        if self._window is None:
            self._window = open_window()
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0.0:
            time.sleep(wait_s)
        self._window.show(pixels)
        self._due_s = max(self._due_s, time.monotonic() - self._step_s) + self._step_s

    def close(self) -> None:
        """Takes the window away; the next picture opens another."""
        if self._window is not None:
            self._window.close()
            self._window = None
