"""Suites: fixed lists of episodes as data, ``params/suites/*.yaml`` or a file of one's own.

A suite crosses axes to buckets and plays the same number of episodes in each. Trial k of a bucket has the same scenario
and the same seed under every radio, so radios are compared in pairs like policies.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from roadsense.datasets.config import Ranges
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params
from roadsense.evaluation.named import read_named, shipped
from roadsense.evaluation.rollout import Episode
from roadsense.evaluation.suite_scenarios import write_convoys, write_pairs
from roadsense.manifest import file_digest, tree_digest
from roadsense.randomness import Purpose, derive_seed, generator
from roadsense.runs import canonical_digest
from roadsense.scenario import Scenario, read_scenario

SELECTING = {"convoys": ("peers", "road"), "pairs": ("speed_kmh", "gap_m")}
"""Axes that choose the scenario, by what a suite is made of."""

LOSS_AXES = ("loss", "burst", "gps_m")
"""Axes that together state a radio."""

_COUNTS = "whole numbers from 1 to 1000", lambda value: 1 <= value <= 1000 and value == int(value)

NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "peers": _COUNTS,
    "rank": _COUNTS,
    "speed_kmh": ("numbers above 0, up to 1000", lambda value: 0 < value <= 1000),
    "gap_m": ("numbers above 0, up to 100000", lambda value: 0 < value <= 100_000),
    "loss": ("shares from 0 to below 1", lambda value: 0 <= value < 1),
    "burst": ("numbers from 1 to 10000", lambda value: 1 <= value <= 10_000),
    "gps_m": ("numbers from 0 to 50", lambda value: 0 <= value <= 50),
}
"""What axes that list numbers take, in words and as a test."""

TEXTS = ("road", "radio")
"""Axes that list texts."""

DEFAULT_RADIO = "convoy"
"""Radio of a suite that states none."""

Label = int | float | str
Axis = list[Label] | dict[str, dict[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Convoys(_Strict):
    """Scenarios drawn like those of a dataset."""

    roads: Annotated[tuple[str, ...], Field(min_length=1)]
    each: Annotated[int, Field(ge=1, le=1000)]
    """Scenarios of each number of peers on each road."""
    ranges: Ranges = Ranges()


class Pairs(_Strict):
    """V001 behind one car, both at one speed."""

    road: str


class SuiteSpec(_Strict):
    """What a suite's file states."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    version: Annotated[int, Field(ge=1)]
    about: str
    seed: Annotated[int, Field(ge=0, lt=2**62)]
    """Root of all draws of its scenarios and episodes."""
    convoys: Convoys | None = None
    pairs: Pairs | None = None
    axes: dict[str, Axis]
    """By name: a list of values, or labels and the ranges of the episode that each replaces (dotted keys)."""
    episode: dict[str, Any] = {}
    """Ranges that all episodes replace, by dotted keys."""
    episodes_per_bucket: Annotated[int, Field(ge=1, le=100_000)]
    scenarios_digest: str | None = None
    """Digest that the scenarios must have; None: whatever they are."""

    @model_validator(mode="before")
    @classmethod
    def _values_fit(cls, document: Any) -> Any:
        axes = document.get("axes") if isinstance(document, dict) else None
        for name, axis in axes.items() if isinstance(axes, dict) else ():
            if isinstance(axis, list) and name in NUMBERS:
                _refuse_other_than_numbers(name, axis)
            elif isinstance(axis, list) and name in TEXTS:
                _refuse_other_than_texts(name, axis)
            elif isinstance(axis, dict):
                if (name in NUMBERS or name in TEXTS) and not all(isinstance(label, str) for label in axis):
                    raise ValueError(f"axes.{name} is a list of values; state it as one")
                _refuse_other_than_texts(name, axis)
        return document

    @model_validator(mode="after")
    def _axes_fit(self) -> SuiteSpec:
        if (self.convoys is None) == (self.pairs is None):
            raise ValueError("state convoys or pairs, one of them")
        listed = (*SELECTING[self.kind], "rank", "radio", *LOSS_AXES)
        for name, axis in self.axes.items():
            if not axis:
                raise ValueError(f"axes.{name} is empty; state at least one value")
            if isinstance(axis, list) and name not in listed:
                raise ValueError(f"axes.{name} lists values, but only {', '.join(listed)} do; state labels and ranges")
            if isinstance(axis, dict) and name in listed:
                raise ValueError(f"axes.{name} is a list of values; state it as one")
        needed = SELECTING["pairs"] if self.pairs is not None else ()
        missing = [name for name in needed if name not in self.axes]
        if missing:
            raise ValueError(f"axes.{missing[0]} is missing; pairs need it")
        stated = [name for name in LOSS_AXES if name in self.axes]
        if stated and (len(stated) < len(LOSS_AXES) or "radio" in self.axes):
            raise ValueError(f"axes state a radio by {', '.join(LOSS_AXES)}, all of them, or by radio alone")
        farthest = max(_numbers(self.axes.get("rank")), default=0)
        if farthest > self.most_peers:
            cars = "1 car" if self.most_peers == 1 else f"{self.most_peers} cars"
            raise ValueError(f"axes.rank states {farthest}, but no scenario has more than {cars} ahead of V001")
        return self

    @property
    def kind(self) -> Literal["convoys", "pairs"]:
        return "pairs" if self.convoys is None else "convoys"

    @property
    def most_peers(self) -> int:
        """Cars ahead of V001 in the scenarios that have most of them."""
        if self.convoys is None:
            return 1
        return int(max(_numbers(self.axes.get("peers")), default=self.convoys.ranges.peer_count[1]))


def _refuse_other_than_numbers(axis: str, values: list[Any]) -> None:
    takes, fits = NUMBERS[axis]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise ValueError(f"axes.{axis} states {value!r}, but takes {takes}")
    _refuse_twice(axis, values, [f"{value:g}" for value in values])  # as in the names of scenarios


def _refuse_other_than_texts(axis: str, values: Iterable[Any]) -> None:
    stated = list(values)
    for value in stated:
        if isinstance(value, bool):
            raise ValueError(
                f"axes.{axis} states {value}, a truth value, as off, on, no and yes are in YAML; put quotes around the"
                " word"
            )
        if not isinstance(value, str):
            raise ValueError(f"axes.{axis} states {value!r}, but takes texts; put quotes around it")
    _refuse_twice(axis, stated, stated)


def _refuse_twice(axis: str, values: list[Any], written: list[str]) -> None:
    for place, value in enumerate(values):
        if written[place] in written[:place]:
            raise ValueError(f"axes.{axis} states {value!r} more than once")


class Bucket(NamedTuple):
    """One combination of the axes."""

    labels: Mapping[str, Label]
    """Value or label by axis."""
    radio: str
    episodes: tuple[int, ...]
    """Places of its episodes in the suite's list."""

    @property
    def name(self) -> str:
        return " ".join(f"{axis}={label}" for axis, label in self.labels.items())


class Suite:
    """A suite with its scenarios, ready to be played; they live as long as it does.

    Attributes:
        spec: what its file states.
        digest: SHA-256 (hex) of that and of all scenario files; a result names it.
        scenarios_digest: of the scenario files alone.
        buckets: in order; none is empty.
        episodes: all, bucket after bucket.
    """

    def __init__(self, spec: SuiteSpec, where: str) -> None:
        self.spec = spec
        self.episodes: list[Episode] = []
        self.buckets: list[Bucket] = []
        self._folder = tempfile.TemporaryDirectory(prefix=f"roadsense-{spec.name}-")
        try:
            self._make(Path(self._folder.name), where)
        except BaseException:
            self.close()
            raise

    def _make(self, root: Path, where: str) -> None:
        spec, pools = self.spec, self._scenarios(root, where)
        files = sorted(file for file in root.rglob("*") if file.is_file())
        self.scenarios_digest = tree_digest((file.relative_to(root).as_posix(), file_digest(file)) for file in files)
        if spec.scenarios_digest not in (None, self.scenarios_digest):
            raise InputMismatchError(
                f"suite {where}: its scenarios have changed (digest {self.scenarios_digest}, stated is"
                f" {spec.scenarios_digest}); play it with the version it was made with, or give it a new version and"
                " this digest."
            )
        self.digest = canonical_digest({"spec": spec.model_dump(mode="json"), "scenarios": self.scenarios_digest})
        self._fill(pools, where)

    @property
    def name(self) -> str:
        return self.spec.name

    def close(self) -> None:
        """Removes the scenarios from disk."""
        self._folder.cleanup()

    def __enter__(self) -> Suite:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scenarios(self, root: Path, where: str) -> dict[tuple[Label, ...], list[Scenario]]:
        """Writes the scenarios; by the values of the axes that choose one."""
        spec = self.spec
        pools: dict[tuple[Label, ...], list[Scenario]] = {}
        written: Sequence[tuple[str, tuple[Label, ...]]]
        if spec.convoys is not None:
            written = write_convoys(
                root, spec.seed, spec.convoys.roads, spec.convoys.each, spec.convoys.ranges,
                _numbers(spec.axes.get("peers")), where,
            )  # fmt: skip
        else:
            assert spec.pairs is not None
            speeds_kmh, gaps_m = (_numbers(spec.axes[name]) for name in SELECTING["pairs"])
            written = write_pairs(root, spec.pairs.road, speeds_kmh, gaps_m, where)
        chosen = [place for place, name in enumerate(SELECTING[spec.kind]) if name in spec.axes]
        for scenario_id, key in written:
            pools.setdefault(tuple(key[place] for place in chosen), []).append(
                read_scenario(root / scenario_id, scenario_id)
            )
        return {key: _shuffled(pool, spec.seed) for key, pool in pools.items()}

    def _fill(self, pools: Mapping[tuple[Label, ...], list[Scenario]], where: str) -> None:
        spec = self.spec
        radios: dict[str, RadioParams] = {}
        trials: dict[tuple[Label, ...], int] = {}
        for labels, changes, radio in _combinations(spec):
            pool = pools.get(tuple(labels[name] for name in SELECTING[spec.kind] if name in labels), [])
            if not pool:
                name = Bucket(labels, radio, ()).name
                raise UsageError(f"suite {where}: bucket {name} has no scenario; widen convoys or axes.")
            if radio not in radios:
                radios[radio] = _radio(radio, where)
            paired = tuple(label for name, label in labels.items() if name not in ("radio", *LOSS_AXES))
            number = trials.setdefault(paired, len(trials))
            first = len(self.episodes)
            for trial in range(spec.episodes_per_bucket):
                scenario = pool[trial % len(pool)]
                seed = derive_seed(spec.seed, Purpose.EPISODE, (number << 20) + trial)
                self.episodes.append(Episode(scenario, seed, radios[radio], scenario.episode.override(changes)))
            self.buckets.append(Bucket(labels, radio, tuple(range(first, len(self.episodes)))))


def _shuffled(pool: list[Scenario], seed: int) -> list[Scenario]:
    """In an order that mixes roads and numbers of peers, for a bucket may play a part of them."""
    return [pool[place] for place in generator(seed, Purpose.SCENARIO, len(pool)).permutation(len(pool))]


def _numbers(axis: Axis | None) -> list[Any]:
    return list(axis) if axis is not None else []


def _radio(name: str, where: str) -> RadioParams:
    try:
        return read_params(name)
    except RoadsenseError as error:
        raise type(error)(f"suite {where}: {error}") from None


def _combinations(spec: SuiteSpec) -> Iterator[tuple[dict[str, Label], dict[str, Any], str]]:
    """(labels, ranges replaced, radio) of every bucket that can exist, each radio once for the same ranges."""
    seen: set[str] = set()
    for values in itertools.product(*(list(axis) for axis in spec.axes.values())):
        labels: dict[str, Label] = dict(zip(spec.axes, values, strict=True))
        if "rank" in labels and "peers" in labels and float(labels["rank"]) > float(labels["peers"]):
            continue  # no such car
        changes = dict(spec.episode)
        for name, label in labels.items():
            axis = spec.axes[name]
            if isinstance(axis, dict):
                changes |= axis[str(label)]
        if "rank" in labels:
            changes["hazard.rank"] = (labels["rank"], labels["rank"])
        radio = str(labels.get("radio", DEFAULT_RADIO))
        if "loss" in labels:
            radio = _lossy(float(labels["loss"]), float(labels["burst"]), float(labels["gps_m"]))
        others = {name: label for name, label in labels.items() if name not in LOSS_AXES}
        key = json.dumps([others, radio], sort_keys=True)
        if key not in seen:  # several bursts of one loss are the same where losses can be no rarer in a row
            seen.add(key)
            yield labels, changes, radio


def _lossy(loss: float, burst: float, gps_m: float) -> str:
    """The radio of a cell of the loss sweep; bursts shorter than those of independent losses are these."""
    independent = 1.0 / (1.0 - loss)
    burst = 1.0 if loss == 0.0 else max(burst, round(independent + 5e-5, 4))
    return f"lossy:{loss:g},{burst:g},{gps_m:g}"


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return shipped("suites")


def read_suite(name_or_path: str, episodes_per_bucket: int | None = None) -> Suite:
    """Reads a shipped suite by name, or any ``.yaml`` file by path, and writes its scenarios to a temporary folder.

    Args:
        name_or_path: of the suite.
        episodes_per_bucket: at most so many episodes of each bucket, the first ones; it is another suite then, with
            another digest. None: all it states.

    Raises:
        UsageError: no suite has that name, a bucket has no scenario, or a pair's cars have no place on the road.
        ParamsError: the file does not parse or states something impossible.
        InputMismatchError: its scenarios are not those it states.
    """
    spec = read_named(name_or_path, "suites", "suite", SuiteSpec)
    if episodes_per_bucket is not None:
        fewer = min(episodes_per_bucket, spec.episodes_per_bucket)
        spec = spec.model_copy(update={"episodes_per_bucket": fewer})
    return Suite(spec, name_or_path)
