"""SUMO as a traffic engine, in this process (libsumo) or beside it (TraCI): one world.

The scenario's ``.sumocfg`` is never given to SUMO, because outputs it may name would be written into the dataset; the
network and the vehicles are handed over one by one instead. SUMO's safe-speed guard is off for the ego (a bad policy
really crashes), lane changes are off for the convoy, and a collision moves nobody.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import shutil
import tempfile
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import ScenarioError, TrafficError
from roadsense.scenario import EGO_ID, Scenario
from roadsense.traffic.base import EGO, MAX_WAIT_S, STEP_S, Traffic, TrafficState, engine_seed, refuse_crowd
from roadsense.traffic.route import RouteCatalogue, lane_path
from roadsense.vehicles import RADIO_PARAM, TRAFFIC_TAGS, Vehicle, VehicleType, has_radio, parse_xml, problem_of_type

SUMO_OPTIONS = (
    "--step-length", str(STEP_S), "--default.speeddev", "0", "--time-to-teleport", "-1",
    "--collision.action", "warn", "--collision.mingap-factor", "0",
    "--no-step-log", "true", "--no-warnings", "true", "--duration-log.disable", "true", "--xml-validation", "never",
)  # fmt: skip

_SAME_LANE_M = 1e-3
"""A position continues the last one if it differs by less than this from it; no lane is as short."""

_MODE_SUMO = 31  # all of SUMO's own limits
_MODE_EGO = 32  # none of them: a bad policy crashes
_MODE_TARGET = 25  # obeys the command beyond its own accel and decel, but does not run into its leader

_KRAUSS_SETTERS = (
    ("setLength", lambda t: t.length_m),
    ("setMinGap", lambda t: t.min_gap_m),
    ("setAccel", lambda t: t.accel_mps2),
    ("setDecel", lambda t: t.decel_mps2),
    ("setEmergencyDecel", lambda t: t.emergency_decel_mps2),
    ("setApparentDecel", lambda t: t.apparent_decel_mps2),
    ("setTau", lambda t: t.tau_s),
    ("setImperfection", lambda t: t.sigma),
    ("setMaxSpeed", lambda t: t.max_speed_mps),
    ("setSpeedFactor", lambda t: t.speed_factor),
    ("setSpeedDeviation", lambda t: 0.0),
)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or "no reason given"


class SumoTraffic(Traffic):
    """One world driven by one SUMO simulation.

    Args:
        max_cars: columns of the state, the ego's included.
        connection: the libsumo module, or a TraCI connection: the same commands go to either.
        state: arrays [1, max_cars] to fill; own ones by default.
        on_close: called once by ``close``.
    """

    num_worlds = 1

    def __init__(
        self, max_cars: int, connection: Any, state: TrafficState | None = None, on_close: Any | None = None
    ) -> None:
        self.max_cars = max_cars
        self.state = TrafficState.zeros(1, max_cars) if state is None else state
        # Plain buffers take single numbers faster than arrays do.
        self._rows = [
            memoryview(row[0]) for row in (self.state.position_m, self.state.speed_mps, self.state.accel_mps2)
        ]
        self._lane_from_m = [math.nan] * max_cars  # position along the ego's route where each car's lane begins
        self.catalogue = RouteCatalogue()
        self.ego_lanes: tuple[str, ...] = ()
        self._sumo = connection
        self._on_close = on_close
        self._loaded_net: str | None = None
        self._reload_next = True
        self._columns: dict[str, int] = {}
        self._just_freed: set[int] = set()  # columns whose cars went in this step
        self._waiting: list[str] = []  # cars on the road for which only such a column is left
        self._steered: dict[int, str] = {}
        self._types: dict[str, VehicleType] = {}
        self._routes: dict[tuple[str, ...], str] = {}
        self._offsets: dict[str, float] = {}
        self._open = False
        self._transmits: dict[str, bool] = {}
        self._scratch: Path | None = None
        self._closed = False
        self._scenario_path = Path()

    # ---------------------------------------------------------------- reset

    def reset(self, scenarios: Sequence[Scenario | None], seeds: Sequence[int]) -> None:
        self._refuse_if_closed()
        (scenario,), (seed,) = scenarios, seeds
        if scenario is None:
            return
        refuse_crowd(scenario, self.max_cars)
        try:
            self._start(scenario, engine_seed(seed))
        except (self._sumo.TraCIException, self._sumo.FatalTraCIError) as error:
            self._reload_next = True
            raise ScenarioError(f"{scenario.path}: SUMO refuses it: {_reason(error)}.") from None

    def _start(self, scenario: Scenario, seed: int) -> None:
        placed = [v for v in scenario.vehicles if v.stated and v.depart_s <= scenario.begin_s] if scenario.exact else []
        by_file = len(placed) < len(scenario.vehicles) or scenario.has_flows
        by_file = by_file or bool(scenario.acting) or not all(problem_of_type(v.type) is None for v in placed)
        random = any(v.type.sigma > 0 for v in scenario.vehicles)
        same_net = self._loaded_net == scenario.net_digest
        if by_file or random or self._reload_next or not same_net:
            self._load(scenario, seed, {v.id for v in placed} if by_file else None)
        else:
            for name in self._columns:
                self._sumo.vehicle.remove(name)
        self._reload_next = by_file  # vehicles from files may still wait for their departure
        self._columns.clear()
        self._just_freed.clear()
        self._waiting.clear()
        self._steered.clear()
        self._open, self._scenario_path = by_file, scenario.path
        self._transmits = {v.id: v.transmits for v in scenario.vehicles}
        for array in self.state:
            array[...] = 0
        if placed:
            self._set_ego_route(scenario, scenario.ego.edges, scenario.ego.depart_lane)
            self._place(scenario, placed, define_types=not by_file)
        else:
            self._wait_for_ego(scenario)
        self._read()

    def _load(self, scenario: Scenario, seed: int, without: set[str] | None) -> None:
        """Loads the network, and with ``without`` also the scenario's own files less the vehicles named there."""
        self._loaded_net = None
        options = ["-n", str(scenario.net_file), *SUMO_OPTIONS, "--seed", str(seed), "--begin", str(scenario.begin_s)]
        if without is not None:
            for option, files in (("-a", scenario.additional_files), ("-r", scenario.route_files)):
                copies = [self._filtered(file, without) for file in files]
                if copies:
                    options += [option, ",".join(str(copy) for copy in copies)]
        self._sumo.load(options)
        self._types.clear()
        self._routes.clear()
        self._loaded_net = scenario.net_digest

    def _filtered(self, file: Path, without: set[str]) -> Path:
        root = parse_xml(file)
        for element in list(root):
            placed = element.tag == "vehicle" and element.get("id") in without
            if placed or element.tag not in TRAFFIC_TAGS:
                root.remove(element)
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="roadsense-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        copy = self._scratch / f"{hashlib.sha256(str(file).encode()).hexdigest()[:16]}-{file.name.removesuffix('.gz')}"
        ET.ElementTree(root).write(copy)
        return copy

    def _set_ego_route(self, scenario: Scenario, edges: tuple[str, ...], lane: int) -> None:
        net = self.catalogue.network(scenario.net_file, scenario.net_digest)
        try:
            self.ego_lanes = lane_path(net, edges, lane)
        except ScenarioError as error:
            raise ScenarioError(f"{scenario.path}: {EGO_ID}: {error}") from None
        route = self.catalogue.add(scenario.net_file, scenario.net_digest, self.ego_lanes)
        self._offsets = self.catalogue.lane_offsets(route)
        self.routes = self.catalogue.table([route])

    def _place(self, scenario: Scenario, vehicles: list[Vehicle], define_types: bool) -> None:
        sumo = self._sumo.vehicle
        for vehicle in vehicles:
            lane = self.catalogue.departure_lane(scenario, vehicle)
            type_id = self._define_type(vehicle.type) if define_types else vehicle.type.id
            sumo.add(vehicle.id, self._define_route(vehicle.edges), type_id)
            sumo.moveTo(vehicle.id, lane, vehicle.depart_pos_m)
            sumo.setPreviousSpeed(vehicle.id, vehicle.depart_speed_mps, 0.0)
            sumo.setLaneChangeMode(vehicle.id, 0)
            self._adopt(vehicle.id)
        sumo.setSpeedMode(EGO_ID, _MODE_EGO)

    def _define_type(self, vehicle_type: VehicleType) -> str:
        name = f"type:{vehicle_type.id}"
        types = self._sumo.vehicletype
        if self._types.get(name) is vehicle_type:
            return name
        if name not in self._types:
            types.copy("DEFAULT_VEHTYPE", name)
        for setter, value in _KRAUSS_SETTERS:
            getattr(types, setter)(name, value(vehicle_type))
        self._types[name] = vehicle_type
        return name

    def _define_route(self, edges: tuple[str, ...]) -> str:
        if edges not in self._routes:
            self._routes[edges] = f"route:{len(self._routes)}"
            self._sumo.route.add(self._routes[edges], list(edges))
        return self._routes[edges]

    def _wait_for_ego(self, scenario: Scenario) -> None:
        for _ in range(math.ceil(MAX_WAIT_S / STEP_S)):
            self._sumo.simulationStep()
            if EGO_ID in self._sumo.vehicle.getIDList():
                break
        else:
            raise ScenarioError(
                f"{scenario.path}: {EGO_ID} is not on the road {MAX_WAIT_S:g} s after the begin; let it depart earlier."
            )
        vehicle = self._sumo.vehicle
        edges = tuple(vehicle.getRoute(EGO_ID))[vehicle.getRouteIndex(EGO_ID) :]
        self._set_ego_route(scenario, edges, vehicle.getLaneIndex(EGO_ID))
        self._adopt(EGO_ID)
        vehicle.setSpeedMode(EGO_ID, _MODE_EGO)
        for name in sorted(vehicle.getIDList()):
            if name != EGO_ID:
                self._adopt(name)
            if vehicle.getLaneID(name) in self._offsets:
                vehicle.setLaneChangeMode(name, 0)

    def _adopt(self, name: str) -> None:
        """Gives a vehicle that stands on the road a column of the state, or lets it wait a step for one."""
        used = self._just_freed.union(self._columns.values())
        column = EGO if name == EGO_ID else next(c for c in itertools.count(1) if c not in used)
        if column >= self.max_cars and self._just_freed:
            self._waiting.append(name)
            return
        if column >= self.max_cars:
            raise TrafficError(
                f"{self._scenario_path}: {name} makes {column} cars beside {EGO_ID}, but max_peers is"
                f" {self.max_cars - 1}; raise max_peers."
            )
        self._columns[name] = column
        self.state.alive[0, column] = True
        self.state.transmits[0, column] = self._has_radio(name)
        self.state.length_m[0, column] = self._sumo.vehicle.getLength(name)
        self.state.leaves_m[0, column] = -math.inf

    def _has_radio(self, name: str) -> bool:
        """Whether a car transmits; of one that no file lists, its type says so, and itself where a flow states it."""
        if name in self._transmits:
            return self._transmits[name]
        kind = self._sumo.vehicle.getTypeID(name)
        own = self._sumo.vehicle.getParameter(name, RADIO_PARAM)
        stated = own or self._sumo.vehicletype.getParameter(kind, RADIO_PARAM)
        return has_radio({RADIO_PARAM: stated} if stated else {})

    # ---------------------------------------------------------------- step

    def advance(
        self, next_speed_mps: NDArray[np.float64], steered: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> None:
        self._refuse_if_closed()
        if not active[0]:
            return
        sumo = self._sumo
        try:
            self._command(next_speed_mps[0].tolist(), steered[0].tolist())
            sumo.simulationStep()
            self._just_freed.clear()
            if sumo.simulation.getArrivedNumber():
                self._dismiss()
            if self._open and (self._waiting or sumo.simulation.getDepartedNumber()):
                self._welcome()
            if self._open:
                self._read()
            else:
                self._follow()
        except (sumo.TraCIException, sumo.FatalTraCIError) as error:
            self._reload_next = True
            raise TrafficError(f"SUMO failed while driving: {_reason(error)}.") from None

    def _command(self, speeds: list[float], steered: list[bool]) -> None:
        vehicle = self._sumo.vehicle
        for name, column in self._columns.items():
            if steered[column]:
                if column != EGO and column not in self._steered:
                    vehicle.setSpeedMode(name, _MODE_TARGET)
                    self._steered[column] = name
                vehicle.setSpeed(name, speeds[column])
            elif column in self._steered:
                del self._steered[column]
                vehicle.setSpeed(name, -1)
                vehicle.setSpeedMode(name, _MODE_SUMO)

    def _welcome(self) -> None:
        vehicle = self._sumo.vehicle
        come, self._waiting = [*self._waiting, *self._sumo.simulation.getDepartedIDList()], []
        gone = set(self._sumo.simulation.getArrivedIDList())
        for name in come:
            if name not in self._columns and name not in gone:
                self._adopt(name)
                if name in self._transmits and vehicle.getLaneID(name) in self._offsets:  # of the convoy, not of a flow
                    vehicle.setLaneChangeMode(name, 0)

    def _dismiss(self) -> None:
        for name in self._sumo.simulation.getArrivedIDList():
            if name in self._waiting:
                self._waiting.remove(name)
            column = self._columns.pop(name, None)
            if column is not None:
                self._just_freed.add(column)
                self._steered.pop(column, None)
                for array in self.state:
                    array[0, column] = 0

    def _read(self) -> None:
        """Copies SUMO's truth into the arrays, whatever happened to the cars."""
        speed_of, accel_of = self._sumo.vehicle.getSpeed, self._sumo.vehicle.getAcceleration
        _, speed, accel = self._rows
        for name, column in self._columns.items():
            speed[column] = speed_of(name)
            accel[column] = accel_of(name)
            self._locate(name, column)

    def _follow(self) -> None:
        """The same for cars that all took one step along their routes; this is the engine's share of every step.

        Half the questions are enough then. Acceleration is SUMO's own difference of speeds. A position that continues
        the last one is on the same lane, for the next one counts from 0 again, a lane's length less.
        """
        lane_position, speed_of = self._sumo.vehicle.getLanePosition, self._sumo.vehicle.getSpeed
        position, speed, accel = self._rows
        lane_from_m = self._lane_from_m
        for name, column in self._columns.items():
            now = speed_of(name)
            accel[column] = (now - speed[column]) / STEP_S
            speed[column] = now
            here = lane_from_m[column] + lane_position(name)
            if abs(here - position[column] - now * STEP_S) < _SAME_LANE_M:
                position[column] = here
            else:
                self._locate(name, column)

    def _locate(self, name: str, column: int) -> None:
        vehicle = self._sumo.vehicle
        offset = self._offsets.get(vehicle.getLaneID(name))
        if offset is None:
            self._read_off_route(name, column)
        else:
            self._lane_from_m[column] = offset
            self.state.position_m[0, column] = offset + vehicle.getLanePosition(name)
            self.state.on_route[0, column] = True

    def _read_off_route(self, name: str, column: int) -> None:
        if self.state.on_route[0, column]:
            self.state.leaves_m[0, column] = self._turned_off_m(name)
        self._lane_from_m[column] = math.nan  # continues nothing
        self.state.on_route[0, column] = False
        self.state.position_m[0, column] += self.state.speed_mps[0, column] * STEP_S
        x, y = self._sumo.vehicle.getPosition(name)
        self.state.x_m[0, column], self.state.y_m[0, column] = x, y
        self.state.heading_rad[0, column] = math.radians(90.0 - self._sumo.vehicle.getAngle(name))

    def _turned_off_m(self, name: str) -> float:
        """Where a car left the route [m]: at the end of the last edge they share, unless it only changed lanes."""
        vehicle = self._sumo.vehicle
        begins = {lane.rpartition("_")[0]: start for lane, start in self._offsets.items()}
        if vehicle.getRoadID(name) in begins:
            return -math.inf
        driven = vehicle.getRoute(name)[: vehicle.getRouteIndex(name) + 1]
        last_m = next(begins[edge] for edge in reversed(driven) if edge in begins)
        end_m = float(self.routes.length_m[self.routes.index[0]])
        return min((start for start in self._offsets.values() if start > last_m), default=end_m)

    def _refuse_if_closed(self) -> None:
        if self._closed:  # libsumo would serve it all the same, with the simulation that another world owns by now
            raise TrafficError("this world is closed; open a new one.")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if self._on_close is not None:
            self._on_close()
