"""Assistants that read the truth: what a perfect sensor sees of the next car, and bounds on what the radio can give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.driver import emergency_response
from roadsense.convoy.hazard import tells_of_hazard
from roadsense.convoy.observation import Observation
from roadsense.convoy.world import HazardPhase
from roadsense.policies.base import Remembering, Stateless, Truth
from roadsense.traffic.base import EGO


class Oracle(Stateless):
    """Brakes by the truth's required deceleration over all cars ahead, with 15 % to spare, and holds at standstill."""

    name, control, privileged = "oracle", "brake", True
    ACT_FROM_MPS2 = 1.0
    SPARE = 1.15

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        return np.minimum(self.demand(truth), MAX_BRAKE_MPS2) / MAX_BRAKE_MPS2

    def demand(self, truth: Truth) -> NDArray[np.float64]:
        """Deceleration it asks for, [world], not limited yet [m/s²]."""
        records = truth.records
        needed = records["required_decel_mps2"]
        demand = np.where(needed >= self.ACT_FROM_MPS2, self.SPARE * needed, 0.0)
        speed = truth.traffic.speed_mps[:, EGO]
        closed_up = (records["gap_m"] < 4.0) & (records["closing_speed_mps"] >= 0.0) & (speed < 1.5)
        return np.where(closed_up, np.maximum(demand, 2.0), demand)


class TtcAeb(Remembering):
    """Automatic emergency braking without a radio: a camera or radar that sees the next car, and no other, exactly.

    Full braking from a time to collision below 1.5 s on, until the gap no longer shrinks.
    """

    name, control, privileged = "ttc_aeb", "brake", True
    BRAKE_BELOW_S = 1.5

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        gap, closing = truth.records["gap_m"], truth.records["closing_speed_mps"]
        soon = gap < self.BRAKE_BELOW_S * closing
        self._memory[:] = (closing > 0.0) & (soon | (self._memory > 0.0))
        return self._memory.copy()


class R157Human(Remembering):
    """The careful and competent human of UN R157, who looks at the next car all the time: what braking by eye is worth.

    The emergency response of V001's driver (:func:`roadsense.convoy.driver.emergency_response`), never inattentive.
    """

    name, control, privileged = "r157_human", "brake", True

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        records, traffic = truth.records, truth.traffic
        worlds, leader = np.arange(len(records)), records["leader"]
        own = traffic.speed_mps[:, EGO]
        lead_speed = np.where(leader >= 0, traffic.speed_mps[worlds, leader], own)
        lead_accel = np.where(leader >= 0, traffic.accel_mps2[worlds, leader], 0.0)
        demand = np.zeros(len(records))
        for w in worlds:
            self._memory[w], accel = emergency_response(
                self._memory[w], own[w], records["gap_m"][w], lead_speed[w], lead_accel[w]
            )
            demand[w] = max(0.0, -accel)
        return np.minimum(demand, MAX_BRAKE_MPS2) / MAX_BRAKE_MPS2


class FirstReception(Remembering):
    """Full braking from the first message that tells of the hazard to the end of the episode.

    The bound of every policy that only listens. Privileged only in knowing which message that is.
    """

    name, control, privileged = "first_reception", "brake", True

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        self._memory[tells_of_hazard(truth.records, truth.radio)] = 1.0
        return self._memory.copy()


class BrakeAtOnset(Stateless):
    """Full braking from the hazard's onset to the end of the episode: what braking can avoid at all."""

    name, control, privileged = "brake_at_onset", "brake", True

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        return np.where(truth.records["hazard_phase"] != HazardPhase.NOT_YET, 1.0, 0.0)
