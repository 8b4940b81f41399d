"""Errors that a person can act on, each with the exit code of the command that meets it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_GATE_FAILED = 3
EXIT_INPUT_MISMATCH = 4
EXIT_RESUMABLE = 75


_LISTED = 12


class RoadsenseError(Exception):
    """Something is wrong and the message says what, where and what to do about it."""

    exit_code: int = EXIT_ERROR


class UsageError(RoadsenseError):
    """The caller asked for something that does not exist or does not fit together."""

    exit_code = EXIT_USAGE


class ScenarioError(RoadsenseError):
    """A scenario directory cannot be read, or cannot be driven by the engine asked for."""


class ParamsError(RoadsenseError):
    """A params file does not parse, or holds an unknown or impossible value."""


class TrafficError(RoadsenseError):
    """A traffic engine failed while running."""


class ActionError(RoadsenseError, ValueError):
    """An action is not one that an environment can carry out."""


class InputMismatchError(RoadsenseError):
    """Inputs are not the ones they are recorded to be (changed bytes, another layout)."""

    exit_code = EXIT_INPUT_MISMATCH


class StoppedError(RoadsenseError):
    """Work was stopped before its end and can be continued by the same command."""

    exit_code = EXIT_RESUMABLE


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns a hint that names the valid choice closest to ``word``, or lists the first ones."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"known are: {', '.join(known[:_LISTED])}{more}."
