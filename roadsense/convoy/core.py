"""The loop of a step, for any number of worlds: decide, actuate, move, hear, observe, score, end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import types
from numba.experimental import structref
from numpy.typing import NDArray

from roadsense.convoy.control import action_bounds, steer_ego, steer_peers
from roadsense.convoy.driver import look
from roadsense.convoy.episode import DRAWS, SPEC_DTYPE, draw_episode, keys_of, spec_record
from roadsense.convoy.observation import Observation, observe
from roadsense.convoy.reward import REWARD_TERMS, RewardConfig, reward_constants, score
from roadsense.convoy.truth import impact_speed, refresh_truth, touches
from roadsense.convoy.world import HISTORY, MAX_PEERS, WORLD_DTYPE, Control, EndReason, Targets
from roadsense.episode_spec import EpisodeSpec
from roadsense.errors import ActionError, UsageError, nearest
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.kernels import begin_episode, step_radio
from roadsense.espnow.params import RadioParams
from roadsense.jit import counted_kernel, kernel, tell_of_compiling
from roadsense.philox import LANES
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO, STEP_S, Traffic, TrafficState
from roadsense.traffic.geometry import place, pose
from roadsense.traffic.route import RouteTable

WARM_UP_TICKS = 30
"""Virtual ticks before t = 0 in which the radio tables fill while every car is carried backwards along its route."""

HORIZON_STEPS = 400
"""Longest episode [control steps]."""

ROUTE_MARGIN_M = 5.0
"""An episode ends when the front bumper is this close to the end of the ego's route [m]."""

_BLOCK = 8
"""Worlds that go through a step together: few enough for the processor to keep at hand."""

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


_FIELDS = [
    "worlds", "traffic", "side", "reach_m", "virtual", "routes", "targets", "tables", "radio", "observation", "actions",
    "active", "steps", "specs", "draw_keys", "ahead", "rows", "keys", "units", "reward_of", "terms", "rewards",
    "control", "lowest", "highest", "horizon_steps",
]  # fmt: skip
structref.define_proxy(Batch, _BatchType, _FIELDS)


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
    place(batch.routes, traffic, 0, worlds.shape[0])
    for w in range(worlds.shape[0]):
        if batch.active[w]:
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


_MOST = {"max_peers": 2000, "messages_per_peer": 100, "horizon_steps": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class WorldsConfig:
    """What all worlds of a batch share."""

    control: str = "brake"
    """``"brake"`` (assistant over a human driver) or ``"acceleration"`` (the policy drives alone)."""
    max_peers: int = MAX_PEERS
    """Capacity of a world beside the ego."""
    messages_per_peer: int = 1
    """How many of the newest messages of each peer the observation holds."""
    horizon_steps: int = HORIZON_STEPS
    """Longest episode [control steps]."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Constants of the reward."""

    def __post_init__(self) -> None:
        names = [control.name.lower() for control in Control]
        if self.control not in names:
            raise UsageError(f"control {self.control!r} is unknown; {nearest(self.control, names)}")
        for name in ("max_peers", "messages_per_peer", "horizon_steps"):
            if not 1 <= getattr(self, name) <= _MOST[name]:
                raise UsageError(f"{name} is {getattr(self, name)}; it must lie between 1 and {_MOST[name]}.")

    @property
    def num_rows(self) -> int:
        """Rows of peers in an observation."""
        return self.max_peers * self.messages_per_peer


class ConvoyWorlds:
    """All rules of the environment over arrays with a leading world axis; shells translate to Gymnasium or SB3.

    Attributes:
        records: [world] of ``WORLD_DTYPE``.
        observation: arrays rewritten in place by ``reset`` and ``step``.
        rewards: [world]; ``terms``: [world, 5] in the order of ``REWARD_TERMS``.
        targets: what the traffic engine was asked for.
        traffic: the engine, with the true state of every car.
    """

    def __init__(self, config: WorldsConfig, traffic: Traffic) -> None:
        tell_of_compiling("core.hear_and_score")
        self.config, self.traffic = config, traffic
        self.num_worlds = traffic.num_worlds
        max_cars = config.max_peers + 1
        self.emulator = Emulator(self.num_worlds, max_cars, config.messages_per_peer)
        self.records = np.zeros(self.num_worlds, WORLD_DTYPE)
        num_rows = config.num_rows
        self.observation = Observation.zeros(self.num_worlds, num_rows)
        self.targets = Targets.zeros(self.num_worlds, max_cars)
        self.rewards = np.zeros(self.num_worlds)
        self.terms = np.zeros((self.num_worlds, len(REWARD_TERMS)))
        self.scenarios: list[Scenario | None] = [None] * self.num_worlds
        self._active = np.ones(self.num_worlds, np.bool_)
        self._all_active = True
        self._actions = np.zeros(self.num_worlds)
        self._specs = np.zeros(self.num_worlds, SPEC_DTYPE)
        self._draw_keys = np.zeros((self.num_worlds, len(DRAWS)), np.uint64)
        self._stated: dict[int, tuple[Scenario, NDArray[np.void]]] = {}
        self._batch: Batch | None = None
        self._bound: RouteTable | None = None  # the routes that the batch holds
        lowest, highest = action_bounds(config.control)
        self._own_arrays = {
            "worlds": self.records,
            "traffic": traffic.state,
            "side": np.zeros((self.num_worlds, max_cars), np.int8),
            "reach_m": np.zeros((self.num_worlds, max_cars)),
            "virtual": TrafficState.zeros(self.num_worlds, max_cars),
            "targets": self.targets,
            "tables": self.emulator.tables,
            "radio": self.emulator.arrays,
            "observation": self.observation,
            "actions": self._actions,
            "active": self._active,
            "steps": np.zeros(self.num_worlds, np.int64),
            "specs": self._specs,
            "draw_keys": self._draw_keys,
            "ahead": np.zeros(max_cars, np.int64),
            "rows": np.zeros(num_rows, np.int64),
            "keys": np.zeros(num_rows),
            "units": np.zeros(num_rows + LANES),
            "reward_of": reward_constants(config.reward),
            "terms": self.terms,
            "rewards": self.rewards,
            "control": int(Control[config.control.upper()]),
            "lowest": lowest,
            "highest": highest,
            "horizon_steps": config.horizon_steps,
        }

    def reset(
        self,
        scenarios: Sequence[Scenario | None],
        seeds: Sequence[int],
        specs: Sequence[EpisodeSpec | None],
        params: RadioParams,
        randomise_radio: bool = False,
    ) -> None:
        """Begins an episode in every world whose scenario is not None.

        Args:
            scenarios: what to play, by world.
            seeds: of the episodes.
            specs: ranges of the draws; None takes the scenario's own.
            params: radio parameters.
            randomise_radio: whether they are varied within their stated ranges.

        Raises:
            ScenarioError: the engine cannot play a scenario.
        """
        self.traffic.reset(scenarios, seeds)
        chosen = np.array([scenario is not None for scenario in scenarios])
        state = self.traffic.state
        for world, scenario in enumerate(scenarios):
            if scenario is None:
                continue
            self.scenarios[world] = scenario
            self.records[world]["seed"] = seeds[world]
            self._specs[world] = self._spec(scenario, specs[world])
            self._draw_keys[world] = keys_of(seeds[world])
            self.emulator.prepare(world, seeds[world], params, randomise_radio)
            self.targets.stated_speed_mps[world] = state.speed_mps[world]
        if self._batch is None or self._bound is not self.traffic.routes:
            self._bound = self.traffic.routes
            self._batch = Batch(*(self._own_arrays.get(name, self._bound) for name in _FIELDS))
        self._active[:] = chosen
        self._all_active = False
        warm_up(self._batch)
        self.terms[chosen] = 0.0
        self.rewards[chosen] = 0.0

    def _spec(self, scenario: Scenario, spec: EpisodeSpec | None) -> NDArray[np.void]:
        """The ranges of an episode for kernels; a scenario's own ones are written down once."""
        if spec is not None:
            return spec_record(spec, scenario.ego.type)
        if id(scenario) not in self._stated:
            self._stated[id(scenario)] = (scenario, spec_record(scenario.episode, scenario.ego.type))
        return self._stated[id(scenario)][1]

    def step(self, actions: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Moves the ``active`` worlds (default: all) by one control step of 0.1 s.

        Args:
            actions: [world] float64; values outside of the action space are clipped.
            active: [world]; worlds that are not active keep everything as it is.

        Raises:
            ActionError: an action is NaN; nothing has moved.
        """
        self._actions[:] = actions
        if active is not None or not self._all_active:
            self._active[:] = True if active is None else active
            self._all_active = active is None
        if not decide_and_actuate(self._batch):
            raise ActionError("an action is NaN; a policy must decide on a number.")
        self.traffic.advance(self.targets.next_speed_mps, self.targets.steered, self._active)
        hear_and_score(self._batch)

    def infos(self) -> dict[str, Any]:
        """The ``info`` of all worlds, each value an array with a leading world axis."""
        records, radio = self.records, self.emulator.state
        info: dict[str, Any] = {name: records[name] for name in INFO_SCALARS}
        info["reward_terms"] = dict(zip(REWARD_TERMS, self.terms.T, strict=True))
        info["beacons_received"] = radio.received[:, 1:]
        info["beacons_lost"] = radio.lost[:, 1:]
        return info

    def line(self, world: int) -> str:
        """A world in one line of text: time, own speed, gap, request, hazard phase, peers heard."""
        record, speed_mps = self.records[world], self.traffic.state.speed_mps[world, EGO]
        return (
            f"t={record['step'] * STEP_S:5.1f} s  v={speed_mps:5.2f} m/s  gap={record['gap_m']:6.1f} m"
            f"  action={record['action']:5.2f}  hazard={('none yet', 'active', 'over')[record['hazard_phase']]}"
            f"  heard={int(self.observation.peer_mask[world].sum())}"
        )

    def close(self) -> None:
        """Closes the engine; calling it again does nothing."""
        self.traffic.close()


INFO_SCALARS = ("gap_m", "closing_speed_mps", "required_decel_mps2", "hazard_phase", "hazard_rank", "end_reason")
"""Keys of ``info`` with one number a world."""


def check_render_mode(render_mode: str | None) -> None:
    """Refuses what nobody can show.

    Raises:
        UsageError: the mode is unknown.
    """
    if render_mode is not None and render_mode not in RENDERING["render_modes"]:
        raise UsageError(f"render_mode {render_mode!r} is unknown; {nearest(render_mode, RENDERING['render_modes'])}")


RENDERING: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": round(1 / STEP_S)}
"""What Gymnasium asks of the metadata of whoever shows :meth:`ConvoyWorlds.line`."""
