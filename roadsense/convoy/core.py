"""The loop of a step, for any number of worlds: decide, actuate, move, hear, observe, score, end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import steer_ego, steer_peers
from roadsense.convoy.driver import look
from roadsense.convoy.episode import draw_episode
from roadsense.convoy.observation import Observation, observe
from roadsense.convoy.reward import REWARD_TERMS, RewardConfig, reward_constants, score
from roadsense.convoy.truth import peers_touch, refresh_truth
from roadsense.convoy.world import HISTORY, WORLD_DTYPE, Control, Targets
from roadsense.errors import UsageError, nearest
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.kernels import begin_episode, step_radio
from roadsense.espnow.params import RadioParams
from roadsense.jit import kernel
from roadsense.scenario import EpisodeSpec, Scenario
from roadsense.traffic.base import EGO, STEP_S, Traffic, TrafficState
from roadsense.traffic.geometry import place, pose

WARM_UP_TICKS = 30
"""Virtual ticks before t = 0 in which the radio tables fill while every car is carried backwards along its route."""

HORIZON_STEPS = 400
"""Longest episode [control steps]."""

ROUTE_MARGIN_M = 5.0
"""An episode ends when the front bumper is this close to the end of the ego's route [m]."""


@kernel
def decide_and_actuate(worlds, traffic, routes, targets, actions, control, active):
    """First half of a step: where every steered car shall be a step from now."""
    for w in range(worlds.shape[0]):
        if active[w]:
            world = worlds[w]
            look(world, traffic, w)
            world.needed_before_mps2 = world.required_decel_mps2
            world.previous_accel_mps2 = traffic.accel_mps2[w, EGO]
            steer_ego(world, traffic, routes, targets, w, actions[w], control)
            steer_peers(world, traffic, targets, w)


@kernel
def end_of_episode(world, traffic, routes, w, horizon_steps):
    """Why the episode ends at this step, as an ``EndReason``; 0 while it goes on."""
    if world.gap_m <= 0.0:
        return 1
    if peers_touch(traffic, w):
        return 4
    if traffic.position_m[w, EGO] > routes.length_m[routes.index[w]] - ROUTE_MARGIN_M or not traffic.alive[w, EGO]:
        return 3
    if world.step >= horizon_steps:
        return 2
    return 0


@kernel
def hear_and_score(worlds, traffic, routes, tables, radio, observation, steps, scratch, reward_of, terms, rewards,
                   horizon_steps, active):  # fmt: skip
    """Second half of a step, after the traffic moved: geometry, radio, truth, reward, end, observation."""
    place(routes, traffic)
    for w in range(worlds.shape[0]):
        if active[w]:
            worlds[w].step += 1
        steps[w] = worlds[w].step
    step_radio(tables, radio, worlds.seed, steps, traffic.x_m, traffic.y_m, traffic.speed_mps, traffic.accel_mps2,
               traffic.heading_rad, traffic.alive, traffic.transmits, active)  # fmt: skip
    rows, keys = scratch
    for w in range(worlds.shape[0]):
        if active[w]:
            world = worlds[w]
            refresh_truth(world, traffic, w)
            rewards[w] = score(world, traffic, w, reward_of, terms[w])
            world.end_reason = end_of_episode(world, traffic, routes, w, horizon_steps)
            if world.end_reason == 1:
                world.impact_speed_mps = max(world.closing_speed_mps, 0.0)
            observe(world, radio, w, observation, rows, keys)


@kernel
def warm_up(worlds, traffic, virtual, routes, tables, radio, observation, steps, scratch, chosen):
    """Fills radio tables, driver's view and the first observation of freshly reset worlds."""
    cars = traffic.alive.shape[1]
    place(routes, traffic)
    for w in range(worlds.shape[0]):
        if chosen[w]:
            begin_episode(tables, radio, worlds.seed, w)
            refresh_truth(worlds[w], traffic, w)
            for back in range(HISTORY):
                worlds[w].seen_gap_m[back] = worlds[w].gap_m
                leader = worlds[w].leader
                worlds[w].seen_lead_speed_mps[back] = traffic.speed_mps[w, leader] if leader >= 0 else 0.0
    for tick in range(-WARM_UP_TICKS, 1):
        for w in range(worlds.shape[0]):
            if not chosen[w]:
                continue
            steps[w] = tick
            for car in range(cars):
                virtual.alive[w, car] = traffic.alive[w, car]
                virtual.transmits[w, car] = traffic.transmits[w, car]
                virtual.speed_mps[w, car] = traffic.speed_mps[w, car]
                carried = traffic.speed_mps[w, car] * STEP_S * tick
                if traffic.on_route[w, car]:
                    x, y, heading = pose(
                        routes, routes.index[w], traffic.position_m[w, car] + carried, traffic.length_m[w, car]
                    )
                else:
                    heading = traffic.heading_rad[w, car]
                    x = traffic.x_m[w, car] + carried * np.cos(heading)
                    y = traffic.y_m[w, car] + carried * np.sin(heading)
                virtual.x_m[w, car], virtual.y_m[w, car], virtual.heading_rad[w, car] = x, y, heading
        step_radio(tables, radio, worlds.seed, steps, virtual.x_m, virtual.y_m, virtual.speed_mps, virtual.accel_mps2,
                   virtual.heading_rad, virtual.alive, virtual.transmits, chosen)  # fmt: skip
    rows, keys = scratch
    for w in range(worlds.shape[0]):
        if chosen[w]:
            observe(worlds[w], radio, w, observation, rows, keys)


@dataclass(frozen=True, kw_only=True)
class WorldsConfig:
    """What all worlds of a batch share."""

    control: str = "brake"
    """``"brake"`` (assistant over a human driver) or ``"acceleration"`` (the policy drives alone)."""
    max_peers: int = 16
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
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")


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
        self.config, self.traffic = config, traffic
        self.num_worlds = traffic.num_worlds
        max_cars = config.max_peers + 1
        self.emulator = Emulator(self.num_worlds, max_cars, config.messages_per_peer)
        self.records = np.zeros(self.num_worlds, WORLD_DTYPE)
        self.worlds = self.records.view(np.recarray)
        num_rows = config.max_peers * config.messages_per_peer
        self.observation = Observation.zeros(self.num_worlds, num_rows)
        self.targets = Targets.zeros(self.num_worlds, max_cars)
        self.rewards = np.zeros(self.num_worlds)
        self.terms = np.zeros((self.num_worlds, len(REWARD_TERMS)))
        self.scenarios: list[Scenario | None] = [None] * self.num_worlds
        self._virtual = TrafficState.zeros(self.num_worlds, max_cars)
        self._steps = np.zeros(self.num_worlds, np.int64)
        self._scratch = (np.zeros(num_rows, np.int64), np.zeros(num_rows))
        self._control = int(Control[config.control.upper()])
        self._reward_constants = reward_constants(config.reward)
        self._all = np.ones(self.num_worlds, np.bool_)

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
            draw_episode(self.records[world], scenario, specs[world] or scenario.episode, seeds[world], state, world)
            self.emulator.reset(world, seeds[world], params, randomise_radio)
            self.targets.stated_speed_mps[world] = state.speed_mps[world]
        warm_up(self.records, state, self._virtual, self.traffic.routes, self.emulator.tables, self.emulator.state,
                self.observation, self._steps, self._scratch, chosen)  # fmt: skip
        self.terms[chosen] = 0.0
        self.rewards[chosen] = 0.0

    def step(self, actions: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Moves the ``active`` worlds (default: all) by one control step of 0.1 s.

        Args:
            actions: [world] float64, within the action space.
            active: [world]; worlds that are not active keep everything as it is.
        """
        moving = self._all if active is None else active
        traffic, routes = self.traffic.state, self.traffic.routes
        decide_and_actuate(self.records, traffic, routes, self.targets, actions, self._control, moving)
        self.traffic.advance(self.targets.next_speed_mps, self.targets.steered, moving)
        hear_and_score(self.records, traffic, routes, self.emulator.tables, self.emulator.state, self.observation,
                       self._steps, self._scratch, self._reward_constants, self.terms, self.rewards,
                       self.config.horizon_steps, moving)  # fmt: skip

    def infos(self) -> dict[str, Any]:
        """The ``info`` of all worlds, each value an array with a leading world axis."""
        records, radio = self.records, self.emulator.state
        info: dict[str, Any] = {name: records[name] for name in INFO_SCALARS}
        info["reward_terms"] = dict(zip(REWARD_TERMS, self.terms.T, strict=True))
        info["beacons_received"] = radio.received[:, 1:]
        info["beacons_lost"] = radio.lost[:, 1:]
        return info

    def close(self) -> None:
        """Closes the engine; calling it again does nothing."""
        self.traffic.close()


INFO_SCALARS = ("gap_m", "closing_speed_mps", "required_decel_mps2", "hazard_phase", "hazard_rank", "end_reason")
"""Keys of ``info`` with one number a world."""
