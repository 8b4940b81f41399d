"""Letters of 5 × 7 dots, for pictures drawn without any library. There are no small letters."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7
ADVANCE = GLYPH_WIDTH + 1
"""Dots from one letter to the next."""

_ROWS = (
    (
        "0123456789.-:/%+",
        """
        .###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###. ..... ..... ..... ....# ##..# .....
        #...# .##.. #...# ....# ..##. #.... .#... ....# #...# #...# ..... ..... .##.. ....# ##..# ..#..
        #..## ..#.. ....# ...#. .#.#. ####. #.... ...#. #...# #...# ..... ..... .##.. ...#. ...#. ..#..
        #.#.# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .#### ..... ##### ..... ..#.. ..#.. #####
        ##..# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....# ..... ..... .##.. .#... .#... ..#..
        #...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#. .##.. ..... .##.. #.... #..## ..#..
        .###. .###. ##### .###. ...#. .###. .###. .#... .###. .##.. .##.. ..... ..... #.... #..## .....
        """,
    ),
    (
        "ABCDEFGHIJKLM",
        """
        .###. ####. .###. ####. ##### ##### .###. #...# .###. ..### #...# #.... #...#
        #...# #...# #...# #...# #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.##
        #...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.#
        ##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.#
        #...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...#
        #...# #...# #...# #...# #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...#
        #...# ####. .###. ####. ##### #.... .###. #...# .###. .##.. #...# ##### #...#
        """,
    ),
    (
        "NOPQRSTUVWXYZ",
        """
        #...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####
        ##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#
        #.#.# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.
        #..## #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#..
        #...# #...# #.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#...
        #...# #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #....
        #...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####
        """,
    ),
)


@functools.cache
def _glyphs() -> dict[str, NDArray[np.bool_]]:
    found = {" ": np.zeros((GLYPH_HEIGHT, GLYPH_WIDTH), np.bool_)}
    for letters, drawn in _ROWS:
        rows = [row.split() for row in drawn.split("\n") if row.strip()]
        for place, letter in enumerate(letters):
            found[letter] = np.array([[dot == "#" for dot in row[place]] for row in rows])
    return found


def dots(text: str) -> NDArray[np.bool_]:
    """A line of text as dots, [7, 6 · letters]; small letters become capitals, unknown ones are blank."""
    line = np.zeros((GLYPH_HEIGHT, ADVANCE * len(text)), np.bool_)
    glyphs = _glyphs()
    for place, letter in enumerate(text.upper()):
        line[:, ADVANCE * place : ADVANCE * place + GLYPH_WIDTH] = glyphs.get(letter, glyphs[" "])
    return line
