"""Policies that drive V001 alone by car following: on the truth (IDM), or on the radio (CACC)."""

from __future__ import annotations

import abc

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.driver import idm
from roadsense.convoy.observation import Observation
from roadsense.convoy.truth import CAR_SPACING_M
from roadsense.policies.base import Remembering, Stateless, Truth
from roadsense.policies.v2v import Heard, next_heard
from roadsense.traffic.base import EGO, STEP_S

MAX_ACCEL_MPS2 = 2.6
"""Full acceleration taken of V001 [m/s²]."""

CRUISE_MPS = 30.0
"""Speed on a free road: the limits are not observed [m/s]."""

CRUISE_GAIN_PER_S = 0.4
"""How hard a cruise control holds it [m/s² per m/s]; SUMO's CACC has the same."""

FOLLOW_SILENT_S = 3.0
"""How long a car that fell silent is followed on [s]."""


def _action(accel_mps2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The action that asks for an acceleration."""
    scaled = np.where(accel_mps2 < 0.0, accel_mps2 / MAX_BRAKE_MPS2, accel_mps2 / MAX_ACCEL_MPS2)
    return np.clip(scaled, -1.0, 1.0)


class IdmPolicy(Stateless):
    """The Intelligent Driver Model on the truth, driving alone: what a perfect sensor and no radio can do."""

    name, control, privileged = "idm", "acceleration", True
    HEADWAY_S, MIN_GAP_M = 1.0, 2.5

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        records, speeds = truth.records, truth.traffic.speed_mps[:, EGO]
        accel = np.array([
            idm(speed, CRUISE_MPS, gap, closing, MAX_ACCEL_MPS2, self.HEADWAY_S, self.MIN_GAP_M)
            for speed, gap, closing in zip(speeds, records["gap_m"], records["closing_speed_mps"], strict=True)
        ])  # fmt: skip
        return _action(accel)


class _RadioFollower(Remembering):
    """Follows the next car ahead that it hears, with the gap of :func:`roadsense.policies.v2v.next_heard`.

    A set of messages names nobody: where the next car falls silent, the one before it is the next that is heard. A gap
    that jumps by the room of a car is taken for that, and the silent car is followed on for a while, as it moves with
    the acceleration it reported last. Behind nobody V001 keeps its speed.

    The gap at a standstill is wider than the 2 m that these laws have behind a radar, because both position estimates
    are metres off.
    """

    control = "acceleration"
    MEMORY = np.dtype([
        ("known", np.bool_),  # whether there is a leader
        ("silent_s", np.float64),
        ("gap_m", np.float64),
        ("lead_speed_mps", np.float64),
        ("lead_accel_mps2", np.float64),
        ("accel_mps2", np.float64),  # asked for
    ])  # fmt: skip

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        heard = self._follow_on(next_heard(observation))
        wish = np.where(heard.ahead, self._wish(heard), 0.0)
        wish = np.minimum(wish, CRUISE_GAIN_PER_S * (CRUISE_MPS - heard.speed_mps))
        self._memory["accel_mps2"] = np.clip(wish, -MAX_BRAKE_MPS2, MAX_ACCEL_MPS2)
        return _action(self._memory["accel_mps2"])

    def _follow_on(self, heard: Heard) -> Heard:
        """What is heard, with the leader of before where he fell silent; remembered."""
        memory = self._memory
        gap = memory["gap_m"] + STEP_S * (memory["lead_speed_mps"] - heard.speed_mps)
        lead_speed = np.maximum(memory["lead_speed_mps"] + STEP_S * memory["lead_accel_mps2"], 0.0)
        silent = memory["known"] & (memory["silent_s"] < FOLLOW_SILENT_S) & (heard.gap_m > gap + CAR_SPACING_M)
        memory["known"] = heard.ahead | silent
        memory["silent_s"] = np.where(silent, memory["silent_s"] + STEP_S, 0.0)
        memory["gap_m"] = np.where(silent, gap, heard.gap_m)
        memory["lead_speed_mps"] = np.where(silent, lead_speed, heard.lead_speed_mps)
        memory["lead_accel_mps2"] = np.where(silent, memory["lead_accel_mps2"], heard.lead_accel_mps2)
        return heard._replace(
            ahead=memory["known"], gap_m=memory["gap_m"], lead_speed_mps=memory["lead_speed_mps"],
            lead_accel_mps2=memory["lead_accel_mps2"],
        )  # fmt: skip

    @abc.abstractmethod
    def _wish(self, heard: Heard) -> NDArray[np.float64]:
        """Acceleration [world] behind the leader [m/s²]."""


class Cacc(_RadioFollower):
    """CACC of Milanés and Shladover as SUMO has it, by the radio instead of a radar.

    With e = g − g0 − Tv and ė = v_l − v + T·a, the speed changes in each 0.1 s by .45e + .0125ė in a gap that is nearly
    right (e up to .2 m), .005e + .05ė in a wider one, .45e + .05ė in a narrower one. Source: Milanés and Shladover,
    Journal of Intelligent Transportation Systems 20 (2015); gains and signs as in SUMO's car-following model "CACC".
    """

    name = "cacc"
    STANDSTILL_M, HEADWAY_S, NEARLY_RIGHT_M = 6.0, 1.0, 0.2

    def _wish(self, heard: Heard) -> NDArray[np.float64]:
        error = heard.gap_m - self.STANDSTILL_M - self.HEADWAY_S * heard.speed_mps
        change = heard.lead_speed_mps - heard.speed_mps + self.HEADWAY_S * heard.accel_mps2
        close, wide = error < 0.0, error >= self.NEARLY_RIGHT_M
        gain = np.where(wide, 0.005, 0.45)
        gain_of_change = np.where(close | wide, 0.05, 0.0125)
        return (gain * error + gain_of_change * change) / STEP_S


class Ploeg(_RadioFollower):
    """CACC of Ploeg: the acceleration u follows u̇ = [−u + kp(g − g0 − hv) + kd(v_l − v − ha) + u_l]/h.

    The leader's u_l is the acceleration it reported. h .5 s, kp .2, kd .7. Source: Ploeg, Scheepers, van Nunen, van de
    Wouw, Nijmeijer, IEEE ITSC (2011).
    """

    name = "ploeg"
    STANDSTILL_M, HEADWAY_S, GAIN_GAP, GAIN_SPEED = 8.0, 0.5, 0.2, 0.7

    def _wish(self, heard: Heard) -> NDArray[np.float64]:
        error = heard.gap_m - self.STANDSTILL_M - self.HEADWAY_S * heard.speed_mps
        change = heard.lead_speed_mps - heard.speed_mps - self.HEADWAY_S * heard.accel_mps2
        asked = self._memory["accel_mps2"]
        wanted = self.GAIN_GAP * error + self.GAIN_SPEED * change + heard.lead_accel_mps2
        return asked + STEP_S * (wanted - asked) / self.HEADWAY_S
