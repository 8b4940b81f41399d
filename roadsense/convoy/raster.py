"""Shapes on an array of pixels: boxes, lines and text, with smooth edges. Row 0 is the top."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.font import dots

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class Raster:
    """A picture under way.

    Attributes:
        pixels: [height, width, 3] uint8.
    """

    def __init__(self, width: int, height: int, background: Colour) -> None:
        self.pixels: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = background

    def box(
        self, x: float, y: float, turned: float, half_length: float, half_width: float, colour: Colour,
        alpha: float = 1.0, outline: float = 0.0,
    ) -> None:  # fmt: skip
        """Draws a rectangle around (x, y).

        Args:
            x, y: its middle [pixels].
            turned: direction of its length, clockwise on the screen from the right [rad].
            half_length, half_width: half of its extent along and across that direction [pixels].
            colour: of the whole, or of the line around it.
            alpha: 0 leaves everything as it is, 1 covers it.
            outline: width of the line around it [pixels]; 0 fills it.
        """
        cos, sin = math.cos(turned), math.sin(turned)
        reach_x = abs(cos) * half_length + abs(sin) * half_width + 1.0
        reach_y = abs(sin) * half_length + abs(cos) * half_width + 1.0
        window = self._window(x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        if window is None:
            return
        rows, columns, dy, dx = window[0], window[1], window[2] - y, window[3] - x
        outside = np.maximum(np.abs(cos * dx + sin * dy) - half_length, np.abs(cos * dy - sin * dx) - half_width)
        cover = np.clip(0.5 - outside, 0.0, 1.0)
        if outline > 0.0:
            cover -= np.clip(0.5 - outside - outline, 0.0, 1.0)
        self._blend(rows, columns, cover * alpha, colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, half_width: float, colour: Colour) -> None:
        """Draws a line with round ends; all of it in pixels."""
        reach = half_width + 1.0
        window = self._window(min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach)
        if window is None:
            return
        rows, columns, dy, dx = window[0], window[1], window[2] - y0, window[3] - x0
        along_x, along_y = x1 - x0, y1 - y0
        length = math.hypot(along_x, along_y)
        if length > 0.0:
            share = np.clip((dx * along_x + dy * along_y) / length**2, 0.0, 1.0)
            dx, dy = dx - share * along_x, dy - share * along_y
        self._blend(rows, columns, np.clip(0.5 + half_width - np.hypot(dx, dy), 0.0, 1.0), colour)

    def area(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        """Fills whole pixels from (x, y) on."""
        self.pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = colour

    def text(self, x: int, y: int, text: str, colour: Colour, size: int = 1) -> None:
        """Writes a line with its upper left corner at (x, y); ``size`` pixels a dot. What does not fit is cut off."""
        mask = np.repeat(np.repeat(dots(text), size, axis=0), size, axis=1)
        target = self.pixels[y : y + mask.shape[0], x : x + mask.shape[1]]
        target[mask[: target.shape[0], : target.shape[1]]] = colour

    def _window(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[slice, slice, NDArray[np.float32], NDArray[np.float32]] | None:
        """Rows and columns within the picture, and where the middles of their pixels lie; None if there are none."""
        height, width = self.pixels.shape[:2]
        if not (math.isfinite(left + right) and math.isfinite(top + bottom)):
            return None
        first_x, end_x = max(math.floor(left), 0), min(math.ceil(right), width)
        first_y, end_y = max(math.floor(top), 0), min(math.ceil(bottom), height)
        if first_x >= end_x or first_y >= end_y:
            return None
        middle_y = np.arange(first_y, end_y, dtype=np.float32)[:, None] + np.float32(0.5)
        middle_x = np.arange(first_x, end_x, dtype=np.float32)[None, :] + np.float32(0.5)
        return slice(first_y, end_y), slice(first_x, end_x), middle_y, middle_x

    def _blend(self, rows: slice, columns: slice, cover: NDArray[np.floating], colour: Colour) -> None:
        below = self.pixels[rows, columns]
        mixed = below + cover[..., None] * (np.array(colour, np.float32) - below)
        self.pixels[rows, columns] = (mixed + 0.5).astype(np.uint8)
