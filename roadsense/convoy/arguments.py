"""What ``gym.make`` and ``reset`` are given, checked for its kind before anything is opened."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from roadsense.errors import UsageError, explain, nearest


def _as_int(value: Any) -> Any:
    """Integers of every library as int; what is none, as it is."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


_Model = TypeVar("_Model", bound=BaseModel)
_Int = Annotated[int, BeforeValidator(_as_int)]


class _Arguments(BaseModel):
    """Kinds of the arguments of :class:`roadsense.convoy.env.ConvoyEnv`; what they mean is checked where it is used."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dataset_dir: str | Path | None
    split: str
    scenario_list: Sequence[str] | None
    scenario: str | Path | None
    radio: str | Path | None
    engine: str
    control: str
    max_peers: _Int
    messages_per_peer: _Int
    horizon_steps: _Int
    reward: Mapping[str, int | float] | None


class _ResetOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    scenario_id: str | None = None
    """The scenario to play, which shifts no draw."""
    episode: Mapping[str, Any] | None = None
    """Ranges of its ``episode.json`` to override, by dotted keys."""


def check_arguments(**given: Any) -> None:
    """Refuses arguments of a wrong kind.

    Raises:
        UsageError: names all of them.
    """
    _checked(_Arguments, given)


def check_options(options: Mapping[str, Any] | None) -> tuple[str | None, Mapping[str, Any]]:
    """``scenario_id`` and ``episode`` of the options of a reset; None and empty where they are not stated.

    Raises:
        UsageError: an option is unknown or of a wrong kind.
    """
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"reset options are {options!r}; give a dict.")
    for name in options or {}:
        if name not in _ResetOptions.model_fields:
            raise UsageError(f"reset option {name!r} is unknown; {nearest(str(name), _ResetOptions.model_fields)}")
    asked = _checked(_ResetOptions, dict(options or {}))
    return asked.scenario_id, asked.episode or {}


def seed_of(value: Any) -> int:
    """A seed as int.

    Raises:
        UsageError: it is no whole number, or negative.
    """
    seed = _as_int(value)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed is {value!r}; give a whole number that is not negative.")
    return seed


def _checked(schema: type[_Model], given: dict[str, Any]) -> _Model:
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"{explain(error, schema)}.") from None
