"""Pictures of a world: the road from above around V001, what is true and what the policy was told. No display needed.

V001 stands still in the picture and looks to the right.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.picture import Heard, heard, road
from roadsense.convoy.raster import Colour, Raster
from roadsense.convoy.world import EndReason, HazardPhase
from roadsense.traffic.base import EGO, STEP_S
from roadsense.traffic.geometry import pose

WIDTH, HEIGHT = 960, 320
"""Of every picture [pixels]."""

PIXELS_PER_M = 4.0
EGO_AT = (200, 128)
"""Where the front bumper of V001 stands, column and row [pixels]."""

CAR_WIDTH_M = 1.8
LANE_WIDTH_M = 3.2
MARK_EVERY_M = 10.0
"""From one mark on the road to the next."""

_FADED_AFTER_S = 0.5
_PANEL_TOP = 250
_LEGEND_TOP = 8

GROUND: Colour = (232, 236, 230)
ROAD: Colour = (190, 195, 202)
EDGE: Colour = (250, 250, 250)
PANEL: Colour = (250, 250, 250)
INK: Colour = (38, 46, 56)
TRACK: Colour = (222, 226, 231)
EGO_COLOUR: Colour = (0, 92, 190)
PEER_COLOUR: Colour = (92, 102, 114)
HAZARD_COLOUR: Colour = (208, 36, 36)
SILENT_COLOUR: Colour = (140, 110, 60)
"""A car without a radio is only an outline."""
GHOST_COLOUR: Colour = (214, 112, 0)
"""Where the policy takes a car to be."""

_LEGEND: tuple[tuple[str, Colour, float], ...] = (
    ("V001", EGO_COLOUR, 0.0),
    ("peer", PEER_COLOUR, 0.0),
    ("hazard", HAZARD_COLOUR, 0.0),
    ("no radio", SILENT_COLOUR, 1.5),
    ("as told by radio", GHOST_COLOUR, 2.0),
)
"""Name, colour and outline of what may be in a picture."""


class View(NamedTuple):
    """Where a point of the network lies in the picture."""

    x_m: float
    y_m: float
    heading_rad: float
    """Of V001, which stands at ``EGO_AT``."""

    def pixel(self, x_m: Any, y_m: Any) -> tuple[Any, Any]:
        """Column and row [pixels] of a point, or of many."""
        dx, dy = x_m - self.x_m, y_m - self.y_m
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        return EGO_AT[0] + PIXELS_PER_M * (cos * dx + sin * dy), EGO_AT[1] - PIXELS_PER_M * (cos * dy - sin * dx)

    def turned(self, heading_rad: float) -> float:
        """Direction on the screen, clockwise from the right [rad]."""
        return self.heading_rad - heading_rad


def frame(worlds: ConvoyWorlds, world: int) -> NDArray[np.uint8]:
    """A picture of one world, [320, 960, 3] uint8; changes nothing.

    Raises:
        gymnasium.error.ResetNeeded: the world was never reset.
    """
    if worlds.scenarios[world] is None:
        raise gym.error.ResetNeeded("there is nothing to draw yet; call reset() before render().")
    state = worlds.traffic.state
    view = View(*(float(array[world, EGO]) for array in (state.x_m, state.y_m, state.heading_rad)))
    raster = Raster(WIDTH, HEIGHT, GROUND)
    _draw_road(raster, worlds, world, view)
    _draw_cars(raster, worlds, world, view)
    _draw_ghosts(raster, worlds, world, view)
    _draw_legend(raster)
    _draw_panel(raster, worlds, world)
    return raster.pixels


def _draw_road(raster: Raster, worlds: ConvoyWorlds, world: int, view: View) -> None:
    routes = worlds.traffic.routes
    axis = road(routes, world)
    ends = np.stack(view.pixel(axis[:, 0], axis[:, 1]), axis=1)
    low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
    reach = LANE_WIDTH_M * PIXELS_PER_M
    seen = np.flatnonzero(((high > -reach) & (low < np.array([WIDTH, HEIGHT]) + reach)).all(axis=1))
    for half_width_m, colour in ((LANE_WIDTH_M / 2 + 0.3, EDGE), (LANE_WIDTH_M / 2, ROAD)):
        for segment in seen:
            (x0, y0), (x1, y1) = ends[segment : segment + 2].tolist()
            raster.line(x0, y0, x1, y1, half_width_m * PIXELS_PER_M, colour)
    here = worlds.traffic.state.position_m[world, EGO]
    first = math.floor((here - EGO_AT[0] / PIXELS_PER_M) / MARK_EVERY_M)
    last = math.ceil((here + (WIDTH - EGO_AT[0]) / PIXELS_PER_M) / MARK_EVERY_M)
    route = routes.index[world]
    for mark in range(first, last + 1):
        at_m = mark * MARK_EVERY_M
        if 0.0 <= at_m <= routes.length_m[route]:
            x_m, y_m, heading = pose(routes, route, at_m, 1.0)
            raster.box(*view.pixel(x_m, y_m), view.turned(heading), 0.5, LANE_WIDTH_M / 2 * PIXELS_PER_M, EDGE)


def _draw_car(
    raster: Raster, view: View, x_m: float, y_m: float, heading: float, length_m: float, colour: Colour,
    alpha: float = 1.0, outline: float = 0.0,
) -> None:  # fmt: skip
    """A car whose front bumper is at (x, y)."""
    middle = view.pixel(x_m - length_m / 2 * math.cos(heading), y_m - length_m / 2 * math.sin(heading))
    half_length, half_width = length_m / 2 * PIXELS_PER_M, CAR_WIDTH_M / 2 * PIXELS_PER_M
    raster.box(*middle, view.turned(heading), half_length, half_width, colour, alpha, outline)


def _draw_cars(raster: Raster, worlds: ConvoyWorlds, world: int, view: View) -> None:
    state, record = worlds.traffic.state, worlds.records[world]
    is_active = record["hazard_phase"] == HazardPhase.ACTIVE
    for car in np.flatnonzero(state.alive[world])[::-1]:  # V001 last, above all others
        colour, outline = PEER_COLOUR, 0.0
        if not state.transmits[world, car]:
            colour, outline = SILENT_COLOUR, 1.5
        if is_active and car == record["hazard_target"]:
            colour = HAZARD_COLOUR
        if car == EGO:
            colour, outline = EGO_COLOUR, 0.0
        _draw_car(raster, view, state.x_m[world, car], state.y_m[world, car], state.heading_rad[world, car],
                  state.length_m[world, car], colour, outline=outline)  # fmt: skip


def _draw_ghosts(raster: Raster, worlds: ConvoyWorlds, world: int, view: View) -> None:
    """Where the policy takes the others to be; the older the message, the fainter."""
    told = Heard(*(values[0] for values in heard(worlds, slice(world, world + 1))))
    for car in np.flatnonzero(np.isfinite(told.age_s)):
        alpha = 1.0 - 0.75 * min(max(told.age_s[car] / _FADED_AFTER_S, 0.0), 1.0)
        _draw_car(raster, view, told.x_m[car], told.y_m[car], told.heading_rad[car],
                  worlds.traffic.state.length_m[world, car], GHOST_COLOUR, alpha, 2.0)  # fmt: skip


def _draw_legend(raster: Raster) -> None:
    x = 12
    for name, colour, outline in _LEGEND:
        raster.box(x + 9, _LEGEND_TOP + 7, 0.0, 9.0, 4.0, colour, outline=outline)
        raster.text(x + 24, _LEGEND_TOP, name, INK, 2)
        x += 44 + 12 * len(name)


def _draw_panel(raster: Raster, worlds: ConvoyWorlds, world: int) -> None:
    record, state = worlds.records[world], worlds.traffic.state
    raster.area(0, _PANEL_TOP, WIDTH, HEIGHT - _PANEL_TOP, PANEL)
    hazard = ("none yet", "active", "over")[record["hazard_phase"]]
    peers = int((state.alive[world] & state.transmits[world])[1:].sum())
    known = int((worlds.emulator.state.message_count[world] > 0).sum())
    said = f"T {record['step'] * STEP_S:4.1f} s  hazard {hazard}  heard {known}/{peers}"
    if record["end_reason"] != EndReason.RUNNING:
        said += f"  end: {EndReason(record['end_reason']).name.replace('_', ' ')}"
    hot = HAZARD_COLOUR if record["hazard_phase"] == HazardPhase.ACTIVE else INK
    raster.text(12, _PANEL_TOP + 8, said, hot, 2)
    speed, gap, action = float(state.speed_mps[world, EGO]), float(record["gap_m"]), float(record["action"])
    bars = (
        ("speed m/s", f"{speed:.1f}", speed / 40.0, EGO_COLOUR),
        ("gap m", f"{gap:.1f}" if math.isfinite(gap) else "-", gap / 100.0, PEER_COLOUR),
        ("action", f"{action:.2f}", abs(action), GHOST_COLOUR if action >= 0.0 else EGO_COLOUR),
        ("needed m/s/s", f"{record['required_decel_mps2']:.1f}", record["required_decel_mps2"] / MAX_BRAKE_MPS2,
         HAZARD_COLOUR),
    )  # fmt: skip
    for place, (name, value, share, colour) in enumerate(bars):
        x, width = 12 + place * 237, 225
        raster.text(x, _PANEL_TOP + 30, f"{name} {value}", INK, 2)
        raster.area(x, _PANEL_TOP + 50, width, 10, TRACK)
        raster.area(x, _PANEL_TOP + 50, round(width * min(max(share, 0.0), 1.0)), 10, colour)
