"""The record of episodes: truth and what the policy saw, as arrays over time. Metrics and replay read nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.hazard import tells_of_hazard
from roadsense.convoy.picture import Picture, PictureRecorder
from roadsense.convoy.world import HazardKind
from roadsense.traffic.base import STEP_S

HAZARD_SHARE = 0.8
"""A hazard really happened when its target reached this share of the asked deceleration."""


class EpisodeTrace(NamedTuple):
    """One episode of T steps with C cars. Row t of a [T+1, ...] array is the state at t · 0.1 s; row t of a [T, ...]
    array is the decision taken there."""

    scenario_id: str
    seed: int
    hazard_kind: int
    hazard_rank: int
    hazard_target: int
    hazard_decel_mps2: float
    onset_step: int
    over_step: int
    inattentive_from: int
    attentive_from: int
    end_reason: int
    impact_speed_mps: float
    num_peers: int
    position_m: NDArray[np.float64]
    """[T+1, C]"""
    speed_mps: NDArray[np.float64]
    """[T+1, C]"""
    accel_mps2: NDArray[np.float64]
    """[T+1, C]"""
    length_m: NDArray[np.float64]
    """[T+1, C]"""
    alive: NDArray[np.bool_]
    """[T+1, C]"""
    gap_m: NDArray[np.float64]
    """[T+1]"""
    closing_speed_mps: NDArray[np.float64]
    """[T+1]"""
    required_decel_mps2: NDArray[np.float64]
    """[T+1]"""
    hazard_phase: NDArray[np.int64]
    """[T+1]"""
    leader: NDArray[np.int64]
    """[T+1], column of the next car ahead, -1: none."""
    target_heard: NDArray[np.bool_]
    """[T+1], a beacon of the hazard's target that states its first braking, or a later state, had arrived by then."""
    age_s: NDArray[np.float64]
    """[T+1, C], time since the newest message of each car in the table arrived; NaN outside the table."""
    action: NDArray[np.float64]
    """[T]"""
    demand_mps2: NDArray[np.float64]
    """[T], deceleration the policy asked for."""
    driver_accel_mps2: NDArray[np.float64]
    """[T]"""
    reward: NDArray[np.float64]
    """[T]"""
    reward_terms: NDArray[np.float64]
    """[T, 5]"""
    beacons_received: NDArray[np.int64]
    """[C], over the episode."""
    beacons_lost: NDArray[np.int64]
    """[C], over the episode."""
    failure: str = ""
    """Why the episode was broken off; empty where it was played to its end."""
    ego: NDArray[np.float32] | None = None
    """[T+1, 4], observations where they were asked for."""
    peers: NDArray[np.float32] | None = None
    peer_mask: NDArray[np.int8] | None = None
    picture: Picture | None = None
    """What drawing it needs, where it was asked for."""

    @property
    def num_steps(self) -> int:
        return len(self.action)


def hazard_happened(trace: EpisodeTrace) -> bool:
    """True where the target really did what the episode drew."""
    if trace.hazard_kind == HazardKind.NONE or trace.hazard_target < 0:
        return False
    target = trace.hazard_target
    if trace.hazard_kind == HazardKind.STALLED_VEHICLE:
        return bool((trace.speed_mps[:, target] == 0.0).all())
    during = trace.hazard_phase == 1
    return bool((trace.accel_mps2[during, target] <= -HAZARD_SHARE * trace.hazard_decel_mps2).any())


_STATE = ("position_m", "speed_mps", "accel_mps2", "length_m", "alive")
_RECORD = ("gap_m", "closing_speed_mps", "required_decel_mps2", "hazard_phase", "leader")
_DECISION = ("action", "demand_mps2", "driver_accel_mps2")
_SCALARS = (
    "seed", "hazard_kind", "hazard_rank", "hazard_target", "hazard_decel_mps2", "onset_step", "over_step",
    "inattentive_from", "attentive_from", "end_reason", "impact_speed_mps",
)  # fmt: skip


class TraceRecorder:
    """Records every world of a batch; call ``begin`` after a reset and ``record`` after every step.

    Args:
        worlds: the batch.
        observations: whether observations are kept too.
        picture: whether that is kept too which drawing needs; the worlds must keep frames.
    """

    def __init__(self, worlds: ConvoyWorlds, observations: bool = False, picture: bool = False) -> None:
        self._worlds = worlds
        self._picture = PictureRecorder(worlds) if picture else None
        steps, num, cars = worlds.config.horizon_steps, worlds.num_worlds, worlds.config.max_peers + 1
        self._over_time: dict[str, NDArray[Any]] = {}
        state, records = worlds.traffic.state, worlds.records
        for name in _STATE:
            self._over_time[name] = np.zeros((num, steps + 1, cars), getattr(state, name).dtype)
        for name in (*_RECORD, *_DECISION):
            self._over_time[name] = np.zeros((num, steps + 1), records.dtype[name])
        self._over_time["target_heard"] = np.zeros((num, steps + 1), np.bool_)
        self._over_time["age_s"] = np.zeros((num, steps + 1, cars))
        self._over_time["reward"] = np.zeros((num, steps + 1))
        self._over_time["reward_terms"] = np.zeros((num, steps + 1, worlds.terms.shape[1]))
        self._seen = ("ego", "peers", "peer_mask") if observations else ()
        for name in self._seen:
            array = getattr(worlds.observation, name)
            self._over_time[name] = np.zeros((num, steps + 1, *array.shape[1:]), array.dtype)
        self._received = np.zeros((num, cars), np.int64)
        self._lost = np.zeros((num, cars), np.int64)

    def begin(self, chosen: NDArray[np.bool_]) -> None:
        """Starts new traces in the chosen worlds, which were just reset."""
        self._received[chosen] = self._lost[chosen] = 0
        self._over_time["target_heard"][chosen] = False
        self._write(np.flatnonzero(chosen))
        if self._picture is not None:
            self._picture.begin(np.flatnonzero(chosen))

    def record(self, active: NDArray[np.bool_]) -> None:
        """Stores the step that the active worlds just took."""
        worlds = self._worlds
        rows = np.flatnonzero(active)
        before = worlds.records["step"][rows] - 1
        for name in _DECISION:
            self._over_time[name][rows, before] = worlds.records[name][rows]
        self._over_time["reward"][rows, before] = worlds.rewards[rows]
        self._over_time["reward_terms"][rows, before] = worlds.terms[rows]
        radio = worlds.emulator.state
        self._received[rows] += radio.received[rows]
        self._lost[rows] += radio.lost[rows]
        self._write(rows)
        if self._picture is not None:
            self._picture.record(rows)

    def _write(self, rows: NDArray[np.intp]) -> None:
        worlds, times = self._worlds, self._over_time
        step = worlds.records["step"][rows]
        for name in _STATE:
            times[name][rows, step] = getattr(worlds.traffic.state, name)[rows]
        for name in _RECORD:
            times[name][rows, step] = worlds.records[name][rows]
        for name in self._seen:
            times[name][rows, step] = getattr(worlds.observation, name)[rows]
        radio = worlds.emulator.state
        known = radio.message_count[rows] > 0
        now = step * STEP_S
        times["age_s"][rows, step] = np.where(known, now[:, None] - radio.message_arrival_s[rows, :, 0], np.nan)
        heard = tells_of_hazard(worlds.records, radio)[rows]
        times["target_heard"][rows, step] = heard | times["target_heard"][rows, np.maximum(step - 1, 0)]

    def trace(self, world: int) -> EpisodeTrace:
        """The trace of a world's episode so far, copied."""
        record, scenario = self._worlds.records[world], self._worlds.scenarios[world]
        assert scenario is not None, "a trace begins with a reset"
        steps = int(record["step"])
        decisions = {*_DECISION, "reward", "reward_terms"}
        arrays: dict[str, Any] = {
            name: array[world, : steps if name in decisions else steps + 1].copy()
            for name, array in self._over_time.items()
        }
        scalars: dict[str, Any] = {name: record[name].item() for name in _SCALARS}
        return EpisodeTrace(
            scenario_id=scenario.scenario_id, num_peers=len(scenario.vehicles) - 1,
            beacons_received=self._received[world].copy(), beacons_lost=self._lost[world].copy(),
            picture=self._picture.picture(world) if self._picture is not None else None, **scalars, **arrays,
        )  # fmt: skip
