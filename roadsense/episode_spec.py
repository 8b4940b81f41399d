"""``episode.json``: what may happen in the episodes of a scenario, as ranges to draw from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roadsense.errors import ScenarioError, explain, nearest

EPISODE_NAME = "episode.json"

Range = tuple[float, float]
Time = Annotated[float, Field(ge=0, le=3600)]
"""Seconds within an hour, far longer than any episode."""
HazardKind = Literal["none", "emergency_brake", "stalled_vehicle"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> _Strict:
        for name, value in self.__dict__.items():
            if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
                raise ValueError(f"{name}: the lower end {value[0]} is above the upper end {value[1]}")
        return self


class HazardSpec(_Strict):
    """What may happen in an episode; each range is drawn from uniformly by the episode seed."""

    kind: HazardKind = "emergency_brake"
    share: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of episodes with a hazard, the rest is ordinary driving; a stalled vehicle stands there in every one."""
    rank: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 64)
    """Which car ahead of the ego brakes, 1 = the next one; clipped to the cars ahead that transmit."""
    decel_mps2: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=9.0)]] = (3.0, 9.0)
    """Deceleration the target reaches [m/s²]."""
    onset_s: tuple[Time, Time] = (5.0, 20.0)
    """Time of the first braking step [s]."""
    release_s: tuple[Annotated[float, Field(gt=0)], Time] | None = None
    """How long the target brakes before it drives on [s]; None: to a standstill, and it stays."""
    release_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of episodes that draw ``release_s``; the rest brakes to a standstill."""

    @model_validator(mode="after")
    def _release_is_stated(self) -> HazardSpec:
        if self.release_share > 0 and self.release_s is None:
            raise ValueError("release_share is above 0 but release_s states no range")
        return self


class DriverSpec(_Strict):
    """The human in V001."""

    reaction_s: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=2.5)]] = (0.8, 0.8)
    """Delay between the true gap and his answer to it [s]."""
    inattentive_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of hazard episodes in which he is inattentive from the onset."""
    inattention_s: tuple[Annotated[float, Field(gt=0)], Time] | None = None
    """How long he stays inattentive [s]; None: to the end of the episode."""


class OrdinarySpec(_Strict):
    """Driving without a hazard: the front car brakes mildly or stops and goes."""

    brakings: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(le=8)]] = (1, 3)
    """How often per episode."""
    decel_mps2: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=2.0)]] = (0.5, 2.0)
    duration_s: tuple[Annotated[float, Field(gt=0)], Time] = (1.0, 5.0)
    stop_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of brakings that go to a standstill and wait there for ``duration_s``."""


class WaveSpec(_Strict):
    """The first car ahead slows and regains its speed of t = 0 in turns, to see whether those behind amplify it."""

    amplitude_mps: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Of a cosine below that speed: half of what it loses [m/s]; 0: it keeps it."""
    frequency_hz: Annotated[float, Field(gt=0, le=1)] = 0.2


class EpisodeSpec(_Strict):
    """``episode.json``: the ranges an episode of this scenario is drawn from."""

    schema_version: Literal[1] = 1
    hazard: HazardSpec = HazardSpec()
    driver: DriverSpec = DriverSpec()
    ordinary: OrdinarySpec = OrdinarySpec()
    wave: WaveSpec = WaveSpec()
    hold_until_onset: bool = False
    """Every car keeps its stated speed until the hazard begins (regulatory suites)."""

    def override(self, changes: Mapping[str, object]) -> EpisodeSpec:
        """This specification with dotted keys replaced, as in ``{"hazard.rank": (1, 1)}``."""
        document = self.model_dump()
        for dotted, value in changes.items():
            node: dict[str, object] = document
            *parents, leaf = str(dotted).split(".")
            for parent in parents:
                child = node.get(parent)
                node = child if isinstance(child, dict) else {}
            if leaf not in node:
                hint = nearest(str(dotted), _keys(document))
                raise ScenarioError(f"episode override: there is no {dotted!r}; {hint}")
            node[leaf] = value
        return _validated(document, "episode override")


def _keys(document: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of everything in an episode specification that can be overridden."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _validated(document: object, where: str) -> EpisodeSpec:
    try:
        return EpisodeSpec.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(f"{where}: {explain(error, EpisodeSpec)}. Correct it.") from None


def read_episode(path: Path) -> EpisodeSpec:
    """Reads ``episode.json``; a directory without one has the defaults."""
    if not path.is_file():
        return EpisodeSpec()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not valid JSON ({error}); repair or remove it.") from None
    return _validated(document, str(path))
