"""The loop of a step in kernels, over all worlds: decide and actuate; once the traffic moved, hear, score, observe."""

from __future__ import annotations

import math

from numba import types
from numba.experimental import structref

from roadsense.convoy.control import steer_ego, steer_peers
from roadsense.convoy.driver import look
from roadsense.convoy.episode import draw_episode
from roadsense.convoy.observation import observe
from roadsense.convoy.reward import score
from roadsense.convoy.truth import impact_speed, refresh_truth, touches
from roadsense.convoy.world import HISTORY, WORLD_DTYPE, EndReason
from roadsense.espnow.kernels import begin_episode, step_radio
from roadsense.jit import counted_kernel, kernel
from roadsense.prefetch import prefetch
from roadsense.traffic.base import EGO, STEP_S
from roadsense.traffic.geometry import place, pose

WARM_UP_TICKS = 30
"""Virtual ticks before t = 0 in which the radio tables fill while every car is carried backwards along its route."""

ROUTE_MARGIN_M = 5.0
"""An episode ends when the front bumper is this close to the end of the ego's route [m]."""

_BLOCK = 32
"""Worlds that go through a step together: few enough for the processor to keep their data at hand, many enough for it
to keep the code."""

_WORLD_BYTES = WORLD_DTYPE.itemsize

_RUNNING, _COLLISION, _HORIZON = int(EndReason.RUNNING), int(EndReason.COLLISION), int(EndReason.HORIZON)
_ROUTE_END, _PEER_CONTACT = int(EndReason.ROUTE_END), int(EndReason.PEER_CONTACT)
_REAR_CONTACT = int(EndReason.REAR_CONTACT)


@structref.register
class _BatchType(types.StructRef):
    """Numba's type of a :class:`Batch`."""


class Batch(structref.StructRefProxy):
    """All arrays of a batch as one argument.

    Every array that is passed to a kernel costs about a tenth of a microsecond, and a step needs over a hundred of
    them; bundled once, they cost nothing.
    """


FIELDS = [
    "worlds", "traffic", "side", "reach_m", "virtual", "routes", "targets", "tables", "radio", "observation", "actions",
    "active", "steps", "specs", "draw_keys", "ahead", "rows", "keys", "units", "reward_of", "terms", "rewards",
    "control", "lowest", "highest", "horizon_steps",
]  # fmt: skip
"""Names of the arrays of a :class:`Batch`, in its order."""

structref.define_proxy(Batch, _BatchType, FIELDS)


@counted_kernel
def decide_and_actuate(batch):
    """First half of a step: where every steered car shall be a step from now.

    Returns:
        False, having changed nothing, where an action is no number.
    """
    worlds, traffic, routes, targets = batch.worlds, batch.traffic, batch.routes, batch.targets
    for w in range(worlds.shape[0]):
        if batch.active[w] and math.isnan(batch.actions[w]):
            return False
    for w in range(worlds.shape[0]):
        if batch.active[w]:
            world = worlds[w]
            if w + 1 < worlds.shape[0]:
                prefetch(worlds, w + 1, 0, _WORLD_BYTES)
            look(world, traffic, w)
            world.needed_before_mps2 = world.required_decel_mps2
            world.previous_accel_mps2 = traffic.accel_mps2[w, EGO]
            action = min(max(batch.actions[w], batch.lowest), batch.highest)
            steer_ego(world, traffic, routes, targets, w, action, batch.control)
            steer_peers(world, traffic, targets, w)
    return True


@kernel
def end_of_episode(world, traffic, routes, w, horizon_steps):
    """Why the episode ends at this step, as an ``EndReason``; 0 while it goes on."""
    if world.gap_m <= 0.0:
        return _COLLISION
    if world.rear_gap_m <= 0.0:
        return _REAR_CONTACT
    if world.peers_touch:
        return _PEER_CONTACT
    if traffic.position_m[w, EGO] > routes.length_m[routes.index[w]] - ROUTE_MARGIN_M or not traffic.alive[w, EGO]:
        return _ROUTE_END
    if world.step >= horizon_steps:
        return _HORIZON
    return _RUNNING


@counted_kernel
def hear_and_score(batch):
    """Second half of a step, after the traffic moved: geometry, radio, truth, reward, end, observation."""
    worlds, traffic, routes, radio = batch.worlds, batch.traffic, batch.routes, batch.radio
    for first in range(0, worlds.shape[0], _BLOCK):
        end = min(first + _BLOCK, worlds.shape[0])
        place(routes, traffic, first, end)
        for w in range(first, end):
            if batch.active[w]:
                worlds[w].step += 1
            batch.steps[w] = worlds[w].step
        step_radio(batch.tables, radio, worlds.seed, batch.steps, traffic.x_m, traffic.y_m, traffic.speed_mps,
                   traffic.accel_mps2, traffic.heading_rad, traffic.alive, traffic.transmits, batch.active,
                   first, end)  # fmt: skip
        for w in range(first, end):
            if batch.active[w]:
                world = worlds[w]
                refresh_truth(world, traffic, w, batch.side, batch.reach_m)
                batch.rewards[w] = score(world, traffic, w, batch.reward_of, batch.terms[w])
                world.end_reason = end_of_episode(world, traffic, routes, w, batch.horizon_steps)
                if touches(world):
                    world.impact_speed_mps = impact_speed(world, traffic, w)
                observe(world, radio, w, batch.observation, batch.rows, batch.keys, batch.units)


@counted_kernel
def carry_back(batch, w, tick):
    """Writes the virtual state of one world ``-tick`` steps before t = 0: every car at its speed on its route."""
    traffic, virtual, routes = batch.traffic, batch.virtual, batch.routes
    for car in range(traffic.alive.shape[1]):
        virtual.alive[w, car] = traffic.alive[w, car]
        virtual.transmits[w, car] = traffic.transmits[w, car]
        virtual.speed_mps[w, car] = traffic.speed_mps[w, car]
        carried = traffic.speed_mps[w, car] * STEP_S * tick
        if traffic.on_route[w, car]:
            s, length = traffic.position_m[w, car] + carried, traffic.length_m[w, car]
            x, y, heading = pose(routes, routes.index[w], s, length)
        else:
            heading = traffic.heading_rad[w, car]
            x = traffic.x_m[w, car] + carried * math.cos(heading)
            y = traffic.y_m[w, car] + carried * math.sin(heading)
        virtual.x_m[w, car], virtual.y_m[w, car], virtual.heading_rad[w, car] = x, y, heading


@counted_kernel
def warm_up(batch):
    """Draws the episodes of the active worlds, which were just reset; fills radio, driver's view and observation."""
    worlds, traffic, virtual, radio = batch.worlds, batch.traffic, batch.virtual, batch.radio
    for w in range(worlds.shape[0]):
        if batch.active[w]:
            place(batch.routes, traffic, w, w + 1)
            draw_episode(worlds[w], batch.specs[w], batch.draw_keys[w], traffic, w, batch.ahead)
            begin_episode(batch.tables, radio, worlds.seed, w)
            batch.side[w] = 0
            refresh_truth(worlds[w], traffic, w, batch.side, batch.reach_m)
            leader = worlds[w].leader
            for back in range(HISTORY):
                worlds[w].seen_gap_m[back] = worlds[w].gap_m
                worlds[w].seen_lead_speed_mps[back] = traffic.speed_mps[w, leader] if leader >= 0 else 0.0
    for w in range(worlds.shape[0]):
        if not batch.active[w]:
            continue
        for tick in range(-WARM_UP_TICKS, 1):
            batch.steps[w] = tick
            carry_back(batch, w, tick)
            step_radio(batch.tables, radio, worlds.seed, batch.steps, virtual.x_m, virtual.y_m, virtual.speed_mps,
                       virtual.accel_mps2, virtual.heading_rad, virtual.alive, virtual.transmits, batch.active,
                       w, w + 1)  # fmt: skip
        observe(worlds[w], radio, w, batch.observation, batch.rows, batch.keys, batch.units)
