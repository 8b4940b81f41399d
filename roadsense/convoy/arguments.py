"""What ``gym.make`` and ``reset`` are given, checked for its kind before anything is opened."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roadsense.errors import UsageError, nearest


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_place(value: Any) -> bool:
    return value is None or isinstance(value, str | Path)


def _is_list(value: Any) -> bool:
    return value is None or (
        isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)
    )


def _is_mapping(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(key, str) for key in value))


def _as_int(value: Any) -> Any:
    """Integers of every library as int; what is none, as it is."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


def _is_int(value: Any) -> bool:
    return isinstance(_as_int(value), int) and not isinstance(value, bool)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("split", "engine", "control"), (_is_text, "a string")),
    **dict.fromkeys(("dataset_dir", "scenario"), (_is_place, "a string or a path")),
    "radio": (lambda value: _is_place(value) or _is_list(value), "a string, a path or a list of strings"),
    "scenario_list": (_is_list, "a list of strings"),
    "reward": (_is_mapping, "a dict of constants by name"),
    **dict.fromkeys(("max_peers", "messages_per_peer", "horizon_steps", "num_envs"), (_is_int, "a whole number")),
    "scenario_id": (lambda value: value is None or _is_text(value), "a string"),
    "episode": (_is_mapping, "a dict of ranges by dotted keys"),
}
_OPTIONS = ("scenario_id", "episode")


def checked(**given: Any) -> dict[str, Any]:
    """Arguments of :class:`roadsense.convoy.env.ConvoyEnv` of the right kinds, integers of any library as int.

    What they mean is checked where it is used.

    Raises:
        UsageError: one is of a wrong kind; names it.
    """
    for name, value in given.items():
        fits, wanted = _KINDS[name]
        if not fits(value):
            raise UsageError(f"{name} is {value!r}; give {wanted}.")
    return {name: _as_int(value) for name, value in given.items()}


def check_options(options: Mapping[str, Any] | None) -> tuple[str | None, Mapping[str, Any]]:
    """``scenario_id`` and ``episode`` of the options of a reset; None and empty where they are not stated.

    Raises:
        UsageError: an option is unknown or of a wrong kind.
    """
    if options is None:
        return None, {}
    check_names(mapping(options))
    found = checked(**options)
    return found.get("scenario_id"), found.get("episode") or {}


def check_names(options: Mapping[str, Any], *more: str) -> None:
    """Refuses options of a reset that nobody knows; ``more`` are known too.

    Raises:
        UsageError: there is one.
    """
    known = (*_OPTIONS, *more)
    for name in options:
        if name not in known:
            raise UsageError(f"reset option {name!r} is unknown; {nearest(str(name), known)}")


def mapping(options: Any) -> Mapping[str, Any]:
    """The options of a reset, empty for None.

    Raises:
        UsageError: they are no dict.
    """
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"reset options are {options!r}; give a dict.")
    return options or {}


def seed_of(value: Any) -> int:
    """A seed as int.

    Raises:
        UsageError: it is no whole number, or negative.
    """
    if not _is_int(value) or _as_int(value) < 0:
        raise UsageError(f"seed is {value!r}; give a whole number that is not negative.")
    return int(_as_int(value))
