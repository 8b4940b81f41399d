"""Any number of worlds and their step: decide, actuate, move, hear, observe, score, end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import action_bounds
from roadsense.convoy.episode import DRAWS, SPEC_DTYPE, keys_of, spec_record
from roadsense.convoy.loop import FIELDS, Batch, decide_and_actuate, hear_and_score, warm_up
from roadsense.convoy.observation import Observation
from roadsense.convoy.reward import REWARD_TERMS, RewardConfig, reward_constants
from roadsense.convoy.world import MAX_PEERS, WORLD_DTYPE, Control, Targets
from roadsense.episode_spec import EpisodeSpec
from roadsense.errors import ActionError, UsageError, nearest
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.params import RadioParams
from roadsense.jit import tell_of_compiling
from roadsense.philox import LANES
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO, STEP_S, Traffic, TrafficState
from roadsense.traffic.route import RouteTable

HORIZON_STEPS = 400
"""Longest episode [control steps]."""

_MOST_STATED = 10_000
"""Of so many scenarios the ranges are kept ready."""

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
    max_frames: int = 0
    """How many frames of a step the radio keeps for whoever draws it; slower, and no other effect."""

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
        tell_of_compiling("loop.hear_and_score")
        self.config, self.traffic = config, traffic
        self.num_worlds = traffic.num_worlds
        max_cars = config.max_peers + 1
        self.emulator = Emulator(self.num_worlds, max_cars, config.messages_per_peer, config.max_frames)
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
        params: Sequence[RadioParams | None],
        randomise_radio: bool = False,
    ) -> None:
        """Begins an episode in every world whose scenario is not None.

        Args:
            scenarios: what to play, by world.
            seeds: of the episodes.
            specs: ranges of the draws; None takes the scenario's own.
            params: radio parameters, by world.
            randomise_radio: whether they are varied within their stated ranges.

        Raises:
            ScenarioError: the engine cannot play a scenario.
        """
        self.traffic.reset(scenarios, seeds)
        playing = [(world, scenario) for world, scenario in enumerate(scenarios) if scenario is not None]
        chosen = np.array([world for world, _ in playing], np.intp)
        state = self.traffic.state
        for world, scenario in playing:
            self.scenarios[world] = scenario
            self.records[world]["seed"] = seeds[world]
            self._specs[world] = self._spec(scenario, specs[world])
            self._draw_keys[world] = keys_of(seeds[world])
            radio = params[world]
            assert radio is not None, "a world that plays has a radio"
            self.emulator.prepare(world, seeds[world], radio, randomise_radio)
            self.targets.stated_speed_mps[world] = state.speed_mps[world]
        if self._batch is None or self._bound is not self.traffic.routes:
            self._bound = self.traffic.routes
            self._batch = Batch(*(self._own_arrays.get(name, self._bound) for name in FIELDS))
        self._active[:] = False
        self._active[chosen] = True
        self._all_active = False
        warm_up(self._batch)
        self.terms[chosen] = 0.0
        self.rewards[chosen] = 0.0

    def _spec(self, scenario: Scenario, spec: EpisodeSpec | None) -> NDArray[np.void]:
        """The ranges of an episode for kernels; a scenario's own ones are written down once."""
        if spec is not None:
            return spec_record(spec, scenario.ego.type)
        if len(self._stated) >= _MOST_STATED:
            self._stated.clear()
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


RENDERING: dict[str, Any] = {"render_modes": ["ansi", "rgb_array", "human"], "render_fps": round(1 / STEP_S)}
"""What Gymnasium asks of the metadata of whoever shows worlds (:class:`roadsense.convoy.show.Show`)."""
