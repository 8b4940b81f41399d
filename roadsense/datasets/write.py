"""Writes a planned scenario as a SUMO scenario directory; the same plan gives the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from roadsense.datasets.plan import ACCEL_MPS2, EMERGENCY_DECEL_MPS2, LENGTH_M, MIN_GAP_M, Car, Plan
from roadsense.datasets.road import Base, Road
from roadsense.episode_spec import EPISODE_NAME
from roadsense.errors import ScenarioError
from roadsense.scenario import CONFIG_NAME
from roadsense.vehicles import parse_xml

NETWORK_NAME, ROUTES_NAME = "network.net.xml", "vehicles.rou.xml"
SCENARIO_FILES = (CONFIG_NAME, NETWORK_NAME, ROUTES_NAME, EPISODE_NAME)

_CONFIG = f"""<configuration>
    <input>
        <net-file value="{NETWORK_NAME}"/>
        <route-files value="{ROUTES_NAME}"/>
    </input>
    <time>
        <begin value="0"/>
        <step-length value="0.1"/>
    </time>
</configuration>
"""

_DENSITIES = ("vehsPerHour", "perHour", "probability", "period", "number")
_BACKGROUND_TAGS = ("vType", "vTypeDistribution", "route", "routeDistribution", "flow")


def write_scenario(folder: Path, base: Base, plan: Plan) -> None:
    """Writes the four files of a scenario into a new folder."""
    folder.mkdir(parents=True)
    shutil.copyfile(base.scenario.net_file, folder / NETWORK_NAME)
    (folder / CONFIG_NAME).write_text(_CONFIG, encoding="utf-8")
    (folder / ROUTES_NAME).write_text(_routes(base, plan), encoding="utf-8")
    document = plan.episode.model_dump(mode="json", exclude_none=True)
    (folder / EPISODE_NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _routes(base: Base, plan: Plan) -> str:
    root = ET.Element("routes")
    for element in background(base, plan.vehs_per_hour_factor):
        root.append(element)
    for car in plan.cars:
        root.append(_vehicle_type(car))
    for car in reversed(plan.cars):  # the first car first, so that SUMO by itself inserts nobody into a follower's way
        root.append(_vehicle(car, base.road))
    ET.indent(root, "    ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _vehicle_type(car: Car) -> ET.Element:
    attributes = {
        "id": f"type-{car.id}", "carFollowModel": "Krauss", "length": f"{LENGTH_M:g}", "minGap": f"{MIN_GAP_M:g}",
        "accel": f"{ACCEL_MPS2:g}", "decel": f"{car.decel_mps2:g}", "emergencyDecel": f"{EMERGENCY_DECEL_MPS2:g}",
        "tau": f"{car.tau_s:g}", "sigma": f"{car.sigma:g}", "speedFactor": f"{car.speed_factor:g}",
    }  # fmt: skip
    if car.max_speed_mps is not None:
        attributes["maxSpeed"] = f"{car.max_speed_mps:g}"
    return ET.Element("vType", attributes)


def _vehicle(car: Car, road: Road) -> ET.Element:
    placed = road.place(car.position_m)
    assert placed is not None, f"{car.id} was planned off the road"
    edges, position = placed
    vehicle = ET.Element("vehicle", {
        "id": car.id, "type": f"type-{car.id}", "depart": "0", "departLane": "0",
        "departPos": f"{position:.2f}", "departSpeed": f"{car.speed_mps:g}",
    })  # fmt: skip
    ET.SubElement(vehicle, "route", {"edges": " ".join(edges)})
    return vehicle


def background(base: Base, factor: float) -> list[ET.Element]:
    """The base scenario's flows, scaled, and the types and routes they may use.

    Raises:
        ScenarioError: a flow states its density in a form that cannot be scaled.
    """
    if not base.scenario.has_flows:
        return []
    kept = []
    for file in (*base.scenario.additional_files, *base.scenario.route_files):
        for element in parse_xml(file):
            if element.tag in _BACKGROUND_TAGS:
                element.tail = None
                if element.tag == "flow":
                    _scale(element, factor, file)
                kept.append(element)
    return kept


def _scale(flow: ET.Element, factor: float, file: Path) -> None:
    try:
        name, text = next((name, flow.attrib[name]) for name in _DENSITIES if name in flow.attrib)
        exponential = re.fullmatch(r"exp\(([^)]+)\)", text)
        if exponential:
            flow.set(name, f"exp({float(exponential[1]) * factor:.6g})")
        elif name == "period":
            flow.set(name, f"{float(text) / factor:.6g}")
        elif name == "number":
            flow.set(name, str(round(int(text) * factor)))
        else:
            scaled = float(text) * factor
            flow.set(name, f"{min(scaled, 1.0) if name == 'probability' else scaled:.6g}")
    except (StopIteration, ValueError):
        raise ScenarioError(
            f"{file}: flow {flow.get('id')!r} states no density as a number; give one of {', '.join(_DENSITIES)}."
        ) from None
