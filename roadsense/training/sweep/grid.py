"""Which configurations a sweep trains: ``params/sweeps/*.yaml``, or a file of one's own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from roadsense._data import params_dir
from roadsense.errors import ParamsError, UsageError, nearest
from roadsense.evaluation.named import shipped
from roadsense.runs import canonical_digest
from roadsense.training.config import TrainConfig, overridden

BASE = "base"
"""Name of the point that overrides nothing."""
POINTS = "points"
"""Key of the points that are stated one by one."""
OF_THE_SWEEP = {
    "seed": "--seeds says how many, from --seed on",
    "run_dir": "every trial has its own folder in the sweep's",
    "eval_dir": "all points are judged on the same episodes",
    "eval_episodes": "all points are judged on the same episodes",
    "control": "figures of the two controls cannot be compared",
}
"""Fields that no grid may vary, and why."""
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration of a sweep."""

    name: str
    """Of its folders, in letters that every file system takes."""
    overrides: Mapping[str, Any]
    """Field → value, put over the configuration of the sweep."""
    config: TrainConfig
    """That configuration with them."""

    @property
    def label(self) -> str:
        """What it changes, for people."""
        return label(self.overrides)


def label(overrides: Mapping[str, Any]) -> str:
    """What a point changes, for people."""
    return ", ".join(f"{key} {_shown(value)}" for key, value in overrides.items()) or BASE


def read_grid(name_or_path: str, base: TrainConfig) -> list[Point]:
    """The points of a grid; the first one is the base, which it need not name.

    A grid lists values by field, of which every combination is a point, and under ``points`` further points one by one.

    Args:
        name_or_path: of a shipped grid, or of a YAML file.
        base: configuration of the sweep.

    Raises:
        UsageError: no grid has that name.
        ParamsError: the file does not parse, names an unknown field or an impossible value, or states one twice.
    """
    path = _find(name_or_path)
    stated = _read(path)
    listed = stated.pop(POINTS, [])
    for key, values in stated.items():
        _check_field(path, key)
        if not isinstance(values, list):
            raise ParamsError(f"{path}: {key} is {values!r}; it must be a list of values.")
        if not values:
            raise ParamsError(f"{path}: {key} lists no values; give one or more, or leave it out.")
        _refuse_twice(path, f"{key} lists", values)
    if not isinstance(listed, list) or not all(isinstance(one, dict) and one for one in listed):
        raise ParamsError(f"{path}: {POINTS} must be a list of points, each of one or more `name: value`.")
    if POINTS in _read(path) and not listed:
        raise ParamsError(f"{path}: {POINTS} is empty; give one or more, or leave it out.")
    for key in itertools.chain.from_iterable(listed):
        _check_field(path, key)
    combined = [dict(zip(stated, values, strict=True)) for values in itertools.product(*stated.values())]
    chosen = [*(combined if stated else []), *listed]
    if not chosen:
        raise ParamsError(f"{path}: states nothing to vary; give a list of values by field.")
    return _points(path, chosen, base)


def only_base(base: TrainConfig) -> list[Point]:
    """The points of a sweep without a grid."""
    return [Point(name=BASE, overrides={}, config=base)]


def _points(path: Path, chosen: Sequence[Mapping[str, Any]], base: TrainConfig) -> list[Point]:
    known: dict[str, str] = {}
    found = only_base(base)
    for overrides in chosen:
        try:
            config = overridden(base, overrides)
        except UsageError as error:
            raise ParamsError(f"{path}: {error}") from None
        document = config.document()
        values = {key: document[key] for key in overrides}
        point = Point(name=_name(values, known), overrides=values, config=config)
        digest = canonical_digest(document)
        if digest in known.values():
            raise ParamsError(f"{path}: states the point {point.label} twice; leave one out.")
        known[point.name] = digest
        if config != base:
            found.append(point)
    return found


def _name(overrides: Mapping[str, Any], taken: Mapping[str, str]) -> str:
    text = "-".join(f"{key}-{_shown(value)}" for key, value in overrides.items())
    name = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")
    if len(name) > _LONGEST_NAME or name in taken:
        name = f"{name[: _LONGEST_NAME - 9].rstrip('-')}-{canonical_digest(dict(overrides))[:8]}"
    return name


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    if name_or_path not in shipped("sweeps"):
        raise UsageError(
            f"grid {name_or_path!r} is unknown; {nearest(name_or_path, shipped('sweeps'))} A file is given by its path,"
            " ending in .yaml."
        )
    return params_dir() / "sweeps" / f"{name_or_path}.yaml"


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML itself takes the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        stated = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give a YAML file or one of {', '.join(shipped('sweeps'))}.") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(stated, dict):
        raise ParamsError(f"{path}: must hold `name: [value, …]` lines.")
    return {str(key): value for key, value in stated.items()}


def _check_field(path: Path, key: object) -> None:
    fields = TrainConfig.__dataclass_fields__
    if key not in fields:
        raise ParamsError(f"{path}: {key!r} is unknown; {nearest(str(key), [*fields, POINTS])}")
    if key in OF_THE_SWEEP:
        raise ParamsError(f"{path}: {key} cannot be varied, for {OF_THE_SWEEP[str(key)]}; leave it out.")


def _refuse_twice(path: Path, what: str, values: Sequence[Any]) -> None:
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ParamsError(f"{path}: {what} {twice!r} twice; leave one out.")
