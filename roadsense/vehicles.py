"""The vehicles of SUMO route files: types, routes and departures, as far as the library needs them."""

from __future__ import annotations

import gzip
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roadsense.errors import ScenarioError

RADIO_PARAM = "roadsense.radio"
"""A ``<param>`` of a vType or vehicle: "false" takes its radio away."""

TRAFFIC_TAGS = frozenset({
    "vType", "vTypeDistribution", "route", "routeDistribution", "vehicle", "trip", "flow",
    "busStop", "parkingArea", "chargingStation", "tlLogic", "variableSpeedSign",
})  # fmt: skip
"""What of route and additional files is traffic; detectors and other outputs would write files and are left out."""

KRAUSS_ATTRIBUTES = frozenset({
    "carFollowModel", "length", "minGap", "accel", "decel", "emergencyDecel", "apparentDecel", "tau", "sigma",
    "maxSpeed", "speedFactor", "speedDev", "color", "guiShape", "vClass", "width", "height",
})  # fmt: skip
"""Attributes of a vType that fully state a Krauss driver and his car, or change nothing."""

ACTING_TAGS = frozenset({"tlLogic", "variableSpeedSign"})
"""What of that changes how cars drive, without being one."""

_PLAIN_VEHICLE = {"id", "type", "route", "depart", "departLane", "departPos", "departSpeed", "color"}
_AS_USUAL = {"arrivalLane": "current", "arrivalPos": "max", "arrivalSpeed": "current", "departPosLat": "center"}
"""Attributes of a vehicle that is fully stated by lane, position and speed, and further ones that change nothing."""

_DEPARTS_LATER = ("triggered", "containerTriggered", "split", "begin", "now")
"""Words that SUMO takes for a departure: the engine says when it is."""


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
    def apparent_decel_mps2(self) -> float:
        """How hard others think that it can brake [m/s²]."""
        return self.number("apparentDecel", self.decel_mps2)

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
        return float(_mean(self.attributes.get("speedFactor", "1.0")))

    @property
    def transmits(self) -> bool:
        return has_radio(self.params)


def problem_of_type(kind: VehicleType) -> str | None:
    """Why a type is more than a Krauss driver in a passenger car, whose numbers the properties state; None if not."""
    if kind.car_follow_model != "Krauss":
        return f"follows by {kind.car_follow_model!r}; only 'Krauss' is known"
    if kind.attributes.get("vClass", "passenger") != "passenger":
        return f"has vClass {kind.attributes['vClass']!r}; only 'passenger' is known"
    unknown = sorted((set(kind.attributes) - KRAUSS_ATTRIBUTES) | (set(kind.params) - {RADIO_PARAM}))
    return f"states {unknown[0]!r}, which it does not know" if unknown else None


def has_radio(params: Mapping[str, str]) -> bool:
    """Whether a vehicle or type with these ``<param>`` elements transmits."""
    return params.get(RADIO_PARAM, "true").strip().lower() not in ("false", "0")


def read_time_s(text: str) -> float:
    """Seconds of a time as SUMO writes it: seconds, or ``[days:]hours:minutes:seconds``.

    Raises:
        ValueError: it is neither.
    """
    parts = text.split(":")
    if len(parts) > 4:
        raise ValueError(f"{text!r} is no time")
    seconds = sum(float(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is no time")
    return seconds


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


def parse_xml(path: Path) -> ET.Element:
    """Root of an XML file, packed by gzip where its name ends in ``.gz``.

    Raises:
        ScenarioError: there is no such file, or it is not well-formed.
    """
    try:
        packed = path.suffix == ".gz"
        return ET.fromstring(gzip.decompress(path.read_bytes())) if packed else ET.parse(path).getroot()
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file; a scenario needs it.") from None
    except ET.ParseError as error:
        raise ScenarioError(f"{path}: not well-formed XML ({error}); repair or regenerate it.") from None
    except (OSError, EOFError, LookupError, ValueError) as error:  # a folder, an unknown encoding, no archive
        raise ScenarioError(f"{path}: cannot be read as XML ({error}); repair or regenerate it.") from None


_ABOVE_0 = ("length", "accel", "decel", "emergencyDecel", "apparentDecel", "maxSpeed", "tau", "speedFactor")
_AT_LEAST_0 = ("minGap", "sigma")


def _number(text: str) -> float:
    """The number that a text is; NaN where it is none, or not finite."""
    try:
        return float(text) if math.isfinite(float(text)) else math.nan
    except ValueError:
        return math.nan


def _vehicle_type(element: ET.Element, path: Path) -> VehicleType:
    attributes = {name: value for name, value in element.attrib.items() if name != "id"}
    params = {child.get("key", ""): child.get("value", "") for child in element.iter("param")}
    for child in element:  # <vType><carFollowing-IDM .../></vType>, the older spelling
        if child.tag.startswith("carFollowing-"):
            attributes.setdefault("carFollowModel", child.tag.removeprefix("carFollowing-"))
            attributes.update(child.attrib)
    vehicle_type = VehicleType(id=element.get("id", ""), attributes=attributes, params=params)
    for name in (name for name in (*_ABOVE_0, *_AT_LEAST_0) if name in attributes):
        value = _number(_mean(attributes[name]) if name == "speedFactor" else attributes[name])
        within = value > 0.0 or (value == 0.0 and name in _AT_LEAST_0)
        if not within or (name == "sigma" and value > 1.0):
            wanted = "a number above 0" if name in _ABOVE_0 else "a number that is not negative"
            wanted = "a number from 0 to 1" if name == "sigma" else wanted
            raise ScenarioError(f"{path}: vType {vehicle_type.id!r} has {name}={attributes[name]!r}; give {wanted}.")
    return vehicle_type


def _mean(speed_factor: str) -> str:
    """The mean of ``norm(mean, deviation)``, which ``--default.speeddev 0`` leaves; else the text itself."""
    if not speed_factor.startswith("norm"):
        return speed_factor
    return speed_factor.partition("(")[2].split(",")[0].rstrip(")")


def _is_infinite(text: str) -> bool:
    """True for a number that is not finite; words that SUMO knows are none."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _numbers(element: ET.Element, path: Path) -> tuple[int, float, float] | None:
    """Departure lane, position and speed where all three are stated as numbers, else None."""
    for name in ("departPos", "departSpeed"):
        if _is_infinite(element.get(name, "")):
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


class RouteFiles:
    """Collects types, routes, vehicles and flows over all route and additional files, in reading order."""

    def __init__(self) -> None:
        self.types: dict[str, VehicleType] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.vehicles: dict[str, Vehicle] = {}
        self.has_flows = False
        self.acting: set[str] = set()
        """Tags of elements that act on the traffic as it goes, see ``ACTING_TAGS``."""
        self._with_stops: set[str] = set()  # routes
        self.left_out: set[str] = set()
        """Elements that are no traffic, as ``<tag> in file``."""

    def read(self, path: Path) -> None:
        for element in parse_xml(path):
            if element.tag not in TRAFFIC_TAGS:
                self.left_out.add(f"<{element.tag}> in {path.name}")
            if element.tag == "vType":
                self.types[element.get("id", "")] = _vehicle_type(element, path)
            elif element.tag == "route":
                self.routes[element.get("id", "")] = tuple(element.get("edges", "").split())
                if len(element):
                    self._with_stops.add(element.get("id", ""))
            elif element.tag == "vehicle":
                self._vehicle(element, path)
            elif element.tag == "trip":
                self._unstated(element, path)
            elif element.tag == "flow":
                self.has_flows = True
            elif element.tag in ACTING_TAGS:
                self.acting.add(element.tag)

    def _type_of(self, element: ET.Element) -> VehicleType | None:
        """The vehicle's type; None where only SUMO can tell it (a distribution, or a type defined elsewhere)."""
        name = element.get("type", "DEFAULT_VEHTYPE")
        if name == "DEFAULT_VEHTYPE":
            return self.types.get(name, VehicleType(id=name))
        return self.types.get(name)

    def _depart(self, element: ET.Element, path: Path) -> float:
        text = element.get("depart", "0")
        if text in _DEPARTS_LATER:
            return math.inf
        try:
            return read_time_s(text)
        except ValueError:
            raise ScenarioError(f"{path}: vehicle {element.get('id')!r} has depart={text!r}; give seconds.") from None

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
        plain = set(params) <= {RADIO_PARAM} and element.get("route", "") not in self._with_stops
        plain = plain and all(child.tag in ("route", "param") for child in element)
        plain = plain and (inner is None or len(inner) == 0)
        plain = plain and all(
            name in _PLAIN_VEHICLE or _AS_USUAL.get(name) == value for name, value in element.attrib.items()
        )
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
                transmits=vehicle_type.transmits and has_radio(params),
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
