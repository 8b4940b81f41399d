"""Whom a student learns from: the oracle, more careful in hazards and quieter elsewhere than it has to be itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.truth import required_decel_with_margin
from roadsense.convoy.world import HazardPhase
from roadsense.policies.base import Truth
from roadsense.policies.privileged import Oracle
from roadsense.traffic.base import EGO


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """What the teacher does beyond the oracle, and why a student needs it."""

    margin_m: float = 8.0
    """Further gap it leaves in a hazard [m]: both cars' positions are wrong by 3 m each."""
    stop_s: float = 1.0
    """For the margin alone it never stops a car faster than in this time [s]: a slow car's full braking would be
    copied in every traffic jam."""
    match: float = 1.0
    """Share of the next car's deceleration it brakes with at least in a hazard, while the gap shrinks: a deceleration
    is heard better than a gap."""
    creep_mps2: float = 1.0
    """What it brakes with at least where a slow car creeps up to the next one, hazard or not [m/s²]: gentle enough for
    every traffic jam, and a driver who does not look creeps into contact."""
    ordinary_mps2: float = 3.0
    """Required deceleration from which it acts where there is no hazard and the driver looks [m/s²]."""


class Teacher(Oracle):
    """The oracle as one learns from it.

    Args:
        config: how it differs from the oracle.
    """

    name = "teacher"
    HARD_MPS2 = 2.5
    """The next car brakes hard from here on [m/s²]."""
    SLOW_MPS, NEAR_M = 4.0, 12.0
    """A car below this speed creeps up to one that is nearer than this [m/s, m]."""
    OPENING_MPS = -0.5
    """The gap shrinks or may from this closing speed on [m/s]."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self._side, self._reach_m = np.zeros((0, 0), np.int8), np.zeros((0, 0))

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._side) == len(chosen):
            self._side[chosen] = 0

    def demand(self, truth: Truth) -> NDArray[np.float64]:
        """Deceleration it asks for, [world], not limited yet [m/s²]."""
        records, plain = truth.records, super().demand(truth)
        needed = records["required_decel_mps2"]
        quiet = np.where(needed >= self.config.ordinary_mps2, plain, 0.0)
        wary = np.maximum.reduce([plain, self._for_the_margin(truth), self._matched(truth)])
        return np.maximum(np.where(in_hazard(truth), wary, quiet), self._creeping(truth))

    def _for_the_margin(self, truth: Truth) -> NDArray[np.float64]:
        if self._side.shape != truth.traffic.alive.shape:
            self._side = np.zeros(truth.traffic.alive.shape, np.int8)
            self._reach_m = np.zeros(self._side.shape)
        needed = np.zeros(len(self._side))
        required_decel_with_margin(truth.traffic, self._side, self._reach_m, self.config.margin_m, needed)
        asked = np.where(needed >= self.ACT_FROM_MPS2, self.SPARE * needed, 0.0)
        return np.minimum(asked, 1.0 + truth.traffic.speed_mps[:, EGO] / self.config.stop_s)

    def _creeping(self, truth: Truth) -> NDArray[np.float64]:
        records, speed = truth.records, truth.traffic.speed_mps[:, EGO]
        near = (speed > 0.0) & (speed < self.SLOW_MPS) & (records["gap_m"] < self.NEAR_M)
        return np.where(near & (records["closing_speed_mps"] > 0.0), self.config.creep_mps2, 0.0)

    def _matched(self, truth: Truth) -> NDArray[np.float64]:
        records, traffic = truth.records, truth.traffic
        leader = records["leader"]
        decel = np.where(leader >= 0, -traffic.accel_mps2[np.arange(len(leader)), leader], 0.0)
        follows = (decel >= self.HARD_MPS2) & (records["closing_speed_mps"] > self.OPENING_MPS)
        return np.where(follows & (traffic.speed_mps[:, EGO] > 0.0), self.config.match * decel, 0.0)


def in_hazard(truth: Truth) -> NDArray[np.bool_]:
    """Where a hazard is under way or the driver does not look, [world]."""
    records = truth.records
    looks_away = (records["step"] >= records["inattentive_from"]) & (records["step"] < records["attentive_from"])
    found: NDArray[np.bool_] = (records["hazard_phase"] == HazardPhase.ACTIVE) | looks_away
    return found
