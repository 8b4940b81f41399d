"""Errors that a person can act on, each with the exit code of the command that meets it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

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


class ObservationError(RoadsenseError, ValueError):
    """An observation is not one that a policy can decide on."""


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


def explain(error: ValidationError, schema: type[Any]) -> str:
    """The problems of a document in one line: which key, what is wrong, what to do; the first dozen of very many.

    Args:
        error: what pydantic found.
        schema: the model or dataclass that the document was validated against; its keys are the hints.
    """
    problems = [_problem(dict(one), schema) for one in error.errors(include_url=False)]
    more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return "; ".join([*problems[:_LISTED], *more])


def _problem(problem: dict[str, Any], schema: type[Any]) -> str:
    location: tuple[str | int, ...] = problem["loc"]
    key = ".".join(map(str, location)) or "the document"
    match problem["type"]:
        case "extra_forbidden":
            return f"{key} is unknown, {nearest(str(location[-1]), _fields(schema, location[:-1])).rstrip('?.')}"
        case "missing":
            return f"{key} is missing, add it"
        case "value_error":
            reason = str(problem["ctx"]["error"])
            return reason if not location else f"{key}: {reason}"
    given = problem["input"]
    stated = f"is {given!r}" if isinstance(given, bool | int | float | str | None) else "is of the wrong kind"
    return f"{key} {stated}, {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _fields(schema: type[Any], location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys that a section of a schema has."""
    section: Any = schema
    for name in location:
        if isinstance(name, int):  # of a list, whose items are of the type that its annotation led to
            continue
        stated = section.model_fields[str(name)].annotation
        section = getattr(stated, "__args__", (stated,))[0]  # X of X | None
    if dataclasses.is_dataclass(section):
        return [field.name for field in dataclasses.fields(section)]
    return list(section.model_fields)
