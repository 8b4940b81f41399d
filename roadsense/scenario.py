"""One scenario directory: what it states, read and written without any engine.

A scenario is a SUMO configuration (network, routes, V001 among the vehicles) and, beside it, an ``episode.json`` that
says which hazards and drivers an episode draws. Foreign SUMO scenarios have no ``episode.json`` and get the defaults.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roadsense.errors import ScenarioError, nearest

EGO_ID = "V001"
CONFIG_NAME = "scenario.sumocfg"
EPISODE_NAME = "episode.json"
RADIO_PARAM = "roadsense.radio"

Range = tuple[float, float]
HazardKind = Literal["none", "emergency_brake", "stalled_vehicle"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> _Strict:
        for name, value in self.__dict__.items():
            if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
                raise ValueError(f"{name}: the lower end {value[0]} is above the upper end {value[1]}")
        return self


class HazardSpec(_Strict):
    """What may happen in an episode; each range is drawn from uniformly by the episode seed."""

    kind: HazardKind = "emergency_brake"
    rank: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 64)
    """Which car ahead of the ego brakes, 1 = the next one; clipped to the cars ahead that transmit."""
    decel_mps2: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=9.0)]] = (3.0, 9.0)
    """Deceleration the target reaches [m/s²]."""
    onset_s: tuple[Annotated[float, Field(ge=0)], float] = (5.0, 20.0)
    """Time of the first braking step [s]."""
    release_s: tuple[Annotated[float, Field(gt=0)], float] | None = None
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
    inattention_s: tuple[Annotated[float, Field(gt=0)], float] | None = None
    """How long he stays inattentive [s]; None: to the end of the episode."""


class OrdinarySpec(_Strict):
    """Driving without a hazard: the front car brakes mildly or stops and goes."""

    brakings: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(le=8)]] = (1, 3)
    """How often per episode."""
    decel_mps2: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=2.0)]] = (0.5, 2.0)
    duration_s: tuple[Annotated[float, Field(gt=0)], float] = (1.0, 5.0)
    stop_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of brakings that go to a standstill and wait there for ``duration_s``."""


class EpisodeSpec(_Strict):
    """``episode.json``: the ranges an episode of this scenario is drawn from."""

    schema_version: Literal[1] = 1
    hazard: HazardSpec = HazardSpec()
    driver: DriverSpec = DriverSpec()
    ordinary: OrdinarySpec = OrdinarySpec()
    hold_until_onset: bool = False
    """Every car keeps its stated speed until the hazard begins (regulatory suites)."""

    def override(self, changes: dict[str, object]) -> EpisodeSpec:
        """This specification with dotted keys replaced, as in ``{"hazard.rank": (1, 1)}``."""
        document = self.model_dump()
        for dotted, value in changes.items():
            node: dict[str, object] = document
            *parents, leaf = dotted.split(".")
            for parent in parents:
                child = node.get(parent)
                node = child if isinstance(child, dict) else {}
            if leaf not in node:
                raise ScenarioError(f"episode override: there is no {dotted!r}; {nearest(dotted, _keys(document))}")
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
        raise ScenarioError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """All problems of a pydantic error in one line: where, and what is wrong there."""
    parts = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"]) or "document"
        parts.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class VehicleType:
    """A SUMO vType, as far as the library needs it; ``attributes`` holds all of its XML attributes."""

    id: str
    attributes: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    @property
    def car_follow_model(self) -> str:
        return self.attributes.get("carFollowModel", "Krauss")

    @property
    def length_m(self) -> float:
        return self.number("length", 5.0)

    @property
    def min_gap_m(self) -> float:
        return self.number("minGap", 2.5)

    @property
    def accel_mps2(self) -> float:
        return self.number("accel", 2.6)

    @property
    def decel_mps2(self) -> float:
        return self.number("decel", 4.5)

    @property
    def emergency_decel_mps2(self) -> float:
        return self.number("emergencyDecel", max(self.decel_mps2, 9.0))

    @property
    def tau_s(self) -> float:
        return self.number("tau", 1.0)

    @property
    def sigma(self) -> float:
        return self.number("sigma", 0.5)

    @property
    def max_speed_mps(self) -> float:
        return self.number("maxSpeed", 200.0 / 3.6)

    @property
    def speed_factor(self) -> float:
        text = self.attributes.get("speedFactor", "1.0")
        if text.startswith("norm"):  # norm(mean, deviation): --default.speeddev 0 leaves the mean
            text = text[text.index("(") + 1 :].split(",")[0].rstrip(")")
        return float(text)

    @property
    def transmits(self) -> bool:
        return self.params.get(RADIO_PARAM, "true").strip().lower() not in ("false", "0")


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """One vehicle of the route file. ``stated`` is True where its state at departure is fully in numbers."""

    id: str
    type: VehicleType
    edges: tuple[str, ...]
    depart_s: float
    depart_lane: int = 0
    depart_pos_m: float = 0.0
    depart_speed_mps: float = 0.0
    stated: bool = True
    transmits: bool = True


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A parsed scenario directory. ``vehicles`` has V001 first, then the others in the order of their ids."""

    scenario_id: str
    path: Path
    source: Path
    """The ``.sumocfg`` it was read from."""
    net_file: Path
    route_files: tuple[Path, ...]
    additional_files: tuple[Path, ...]
    begin_s: float
    vehicles: tuple[Vehicle, ...]
    has_flows: bool
    """Vehicles may appear that ``vehicles`` does not list."""
    episode: EpisodeSpec

    @property
    def ego(self) -> Vehicle:
        return self.vehicles[0]

    @property
    def exact(self) -> bool:
        """True where V001 is on the road at t = 0 in a state stated in numbers."""
        return self.ego.stated and self.ego.depart_s <= self.begin_s

    @functools.cached_property
    def net_digest(self) -> str:
        """SHA-256 (hex) of the network file: equal for copies of one road."""
        return hashlib.sha256(self.net_file.read_bytes()).hexdigest()


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file; a scenario needs it.") from None
    except ET.ParseError as error:
        raise ScenarioError(f"{path}: not well-formed XML ({error}); repair or regenerate it.") from None


def _files(root: ET.Element, tag: str, folder: Path) -> tuple[Path, ...]:
    element = root.find(f".//{tag}")
    if element is None:
        return ()
    names = element.get("value", "").replace(",", " ").split()
    return tuple(folder / name for name in names)


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ScenarioError(f"{path}: no such scenario directory; give one, or a .sumocfg file.")
    if (path / CONFIG_NAME).is_file():
        return path / CONFIG_NAME
    found = sorted(path.glob("*.sumocfg"))
    if len(found) == 1:
        return found[0]
    problem = f"holds {len(found)} .sumocfg files; name one of them" if found else "holds no .sumocfg file; name one"
    raise ScenarioError(f"{path}: {problem}.")


_NUMERIC_ATTRIBUTES = {
    "length",
    "minGap",
    "accel",
    "decel",
    "emergencyDecel",
    "apparentDecel",
    "tau",
    "sigma",
    "maxSpeed",
}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _vehicle_type(element: ET.Element, path: Path) -> VehicleType:
    attributes = {name: value for name, value in element.attrib.items() if name != "id"}
    for name in sorted(_NUMERIC_ATTRIBUTES & set(attributes)):
        if not _is_number(attributes[name]):
            raise ScenarioError(f"{path}: vType {element.get('id')!r} has {name}={attributes[name]!r}; give a number.")
    params = {child.get("key", ""): child.get("value", "") for child in element.iter("param")}
    for child in element:  # <vType><carFollowing-IDM .../></vType>, the older spelling
        if child.tag.startswith("carFollowing-"):
            attributes.setdefault("carFollowModel", child.tag.removeprefix("carFollowing-"))
            attributes.update(child.attrib)
    vehicle_type = VehicleType(id=element.get("id", ""), attributes=attributes, params=params)
    try:
        usable = math.isfinite(vehicle_type.speed_factor)
    except ValueError:
        usable = False
    if not usable:
        raise ScenarioError(
            f"{path}: vType {vehicle_type.id!r} has speedFactor={attributes['speedFactor']!r}; give a number."
        )
    return vehicle_type


def _numbers(element: ET.Element, path: Path) -> tuple[int, float, float] | None:
    """Departure lane, position and speed where all three are stated as numbers, else None."""
    for name in ("departPos", "departSpeed"):
        if element.get(name, "").strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
            raise ScenarioError(
                f"{path}: vehicle {element.get('id')!r} has {name}={element.get(name)!r}; give a finite number."
            )
    try:
        lane = int(element.get("departLane", "0"))
        position = float(element.attrib["departPos"])
        speed = float(element.attrib["departSpeed"])
    except (KeyError, ValueError):
        return None
    return (lane, position, speed) if position >= 0 and speed >= 0 else None


class _Routes:
    """Collects types, routes, vehicles and flows over all route and additional files, in reading order."""

    def __init__(self) -> None:
        self.types: dict[str, VehicleType] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.vehicles: dict[str, Vehicle] = {}
        self.has_flows = False

    def read(self, path: Path) -> None:
        for element in _parse(path):
            if element.tag == "vType":
                self.types[element.get("id", "")] = _vehicle_type(element, path)
            elif element.tag == "route":
                self.routes[element.get("id", "")] = tuple(element.get("edges", "").split())
            elif element.tag == "vehicle":
                self._vehicle(element, path)
            elif element.tag == "trip":
                self._unstated(element, path)
            elif element.tag in ("flow", "vTypeDistribution", "routeDistribution"):
                self.has_flows = self.has_flows or element.tag == "flow"

    def _type_of(self, element: ET.Element) -> VehicleType | None:
        """The vehicle's type; None where only SUMO can tell it (a distribution, or a type defined elsewhere)."""
        name = element.get("type", "DEFAULT_VEHTYPE")
        if name == "DEFAULT_VEHTYPE":
            return self.types.get(name, VehicleType(id=name))
        return self.types.get(name)

    def _depart(self, element: ET.Element, path: Path) -> float:
        text = element.get("depart", "0")
        if not _is_number(text):
            raise ScenarioError(f"{path}: vehicle {element.get('id')!r} has depart={text!r}; give a number.")
        return float(text)

    def _vehicle(self, element: ET.Element, path: Path) -> None:
        inner = element.find("route")
        if inner is not None:
            edges = tuple(inner.get("edges", "").split())
        else:
            edges = self.routes.get(element.get("route", ""), ())
        numbers = _numbers(element, path)
        known_type = self._type_of(element)
        vehicle_type = known_type or VehicleType(id=element.get("type", ""))
        params = {child.get("key", ""): child.get("value", "") for child in element.findall("param")}
        own_radio = params.get(RADIO_PARAM, "true").strip().lower() not in ("false", "0")
        plain = not any(child.tag in ("stop", "stopOffset") for child in element)
        lane, position, speed = numbers or (0, 0.0, 0.0)
        self._add(
            Vehicle(
                id=element.get("id", ""),
                type=vehicle_type,
                edges=edges,
                depart_s=self._depart(element, path),
                depart_lane=lane,
                depart_pos_m=position,
                depart_speed_mps=speed,
                stated=numbers is not None and known_type is not None and bool(edges) and plain,
                transmits=vehicle_type.transmits and own_radio,
            ),
            path,
        )

    def _unstated(self, element: ET.Element, path: Path) -> None:
        vehicle_type = self._type_of(element) or VehicleType(id=element.get("type", ""))
        self._add(
            Vehicle(
                id=element.get("id", ""),
                type=vehicle_type,
                edges=(),
                depart_s=self._depart(element, path),
                stated=False,
                transmits=vehicle_type.transmits,
            ),
            path,
        )

    def _add(self, vehicle: Vehicle, path: Path) -> None:
        if vehicle.id in self.vehicles:
            raise ScenarioError(f"{path}: vehicle {vehicle.id!r} is defined twice; rename or remove one of them.")
        self.vehicles[vehicle.id] = vehicle


def _begin_s(root: ET.Element, config: Path) -> float:
    begin = root.find(".//begin")
    text = begin.get("value", "0") if begin is not None else "0"
    parts = text.split(":")  # SUMO also takes [days:]hours:minutes:seconds
    try:
        return sum(float(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))
    except ValueError:
        raise ScenarioError(f"{config}: begin is {text!r}; give seconds.") from None


def read_episode(path: Path) -> EpisodeSpec:
    """Reads ``episode.json``; a directory without one has the defaults."""
    if not path.is_file():
        return EpisodeSpec()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid JSON ({error}); repair or remove it.") from None
    return _validated(document, str(path))


def read_scenario(path: str | Path, scenario_id: str | None = None) -> Scenario:
    """Reads a scenario directory (or one ``.sumocfg`` file).

    Raises:
        ScenarioError: a file is missing or does not parse, or there is no V001; the message names file and mend.
    """
    config = _config_file(Path(path))
    root = _parse(config)
    folder = config.parent
    nets = _files(root, "net-file", folder)
    if len(nets) != 1:
        raise ScenarioError(f"{config}: states {len(nets)} net-files; a scenario has exactly one.")
    if not nets[0].is_file():
        raise ScenarioError(f"{nets[0]}: no such file, but {config.name} names it as the network.")
    route_files = _files(root, "route-files", folder)
    additional_files = _files(root, "additional-files", folder)
    routes = _Routes()
    for file in (*additional_files, *route_files):
        routes.read(file)
    ego = routes.vehicles.pop(EGO_ID, None)
    if ego is None:
        raise ScenarioError(f"{config}: no vehicle {EGO_ID} in its route files; name the ego car {EGO_ID}.")
    others = [routes.vehicles[name] for name in sorted(routes.vehicles)]
    return Scenario(
        scenario_id=scenario_id or folder.name,
        path=folder,
        source=config,
        net_file=nets[0],
        route_files=route_files,
        additional_files=additional_files,
        begin_s=_begin_s(root, config),
        vehicles=(ego, *others),
        has_flows=routes.has_flows,
        episode=read_episode(folder / EPISODE_NAME),
    )
