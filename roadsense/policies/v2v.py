"""Assistants that brake by what they hear over the radio, and read no truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation
from roadsense.convoy.rss import RSS_MIN_BRAKE_MPS2, rss_distance
from roadsense.convoy.truth import CAR_SPACING_M, required_decel
from roadsense.jit import kernel
from roadsense.policies.base import Remembering, Stateless, Truth

CAR_LENGTH_M = 5.0
"""Length assumed of a peer, which its message does not state [m]."""

STANDING_MPS = 1.5
"""Below this speed the tuned rule takes a car to stand: speeds are reported with noise [m/s]."""

_SPEED, _OWN_ACCEL = EGO_FEATURES[0].scale, EGO_FEATURES[1].scale
_FORWARD, _RELATIVE_SPEED, _ACCEL = PEER_FEATURES[0].scale, PEER_FEATURES[2].scale, PEER_FEATURES[5].scale


class Heard(NamedTuple):
    """What V001 knows of itself and of the next car ahead that it hears, [world]."""

    ahead: NDArray[np.bool_]
    """Whether anyone ahead is heard; the leader's values mean nothing where not."""
    gap_m: NDArray[np.float64]
    """Forward offset less an assumed length: as wrong as both position estimates, and in a bend along the chord."""
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    lead_speed_mps: NDArray[np.float64]
    lead_accel_mps2: NDArray[np.float64]


def next_heard(observation: Observation) -> Heard:
    """The nearest car with a positive forward offset, and V001 itself."""
    peers, worlds = observation.peers.astype(np.float64), np.arange(len(observation.ego))
    forward = np.where(observation.peer_mask > 0, peers[:, :, 0], -1.0) * _FORWARD
    forward[forward <= 0.0] = np.inf
    row = forward.argmin(axis=1)
    speed, accel = (observation.ego[:, column].astype(np.float64) for column in (0, 1))
    relative, lead_accel = peers[worlds, row, 2] * _RELATIVE_SPEED, peers[worlds, row, 5] * _ACCEL
    return Heard(
        ahead=np.isfinite(forward[worlds, row]),
        gap_m=forward[worlds, row] - CAR_LENGTH_M,
        speed_mps=speed * _SPEED,
        accel_mps2=accel * _OWN_ACCEL,
        lead_speed_mps=np.maximum(speed * _SPEED + relative, 0.0),
        lead_accel_mps2=lead_accel,
    )


@kernel
def _rule(ego, peers, mask, threshold_mps2, standstill_m, braking, tuned, actions):
    """Reacts to the hardest braking reported ahead, else to the required deceleration by what was heard.

    Args:
        ego, peers, mask: the observation.
        threshold_mps2: reported deceleration from which a peer brakes hard [m/s²].
        standstill_m: gap that braking shall leave [m].
        braking: [world], the last demand [m/s²], rewritten; only the tuned rule reads it.
        tuned: whether braking is held (:class:`V2VRule`).
        actions: [world], written.
    """
    for w in range(ego.shape[0]):
        speed = ego[w, 0] * _SPEED
        hardest, needed, near, near_relative, heard = 0.0, 0.0, np.inf, 0.0, False
        for row in range(mask.shape[1]):
            forward = peers[w, row, 0] * _FORWARD
            if mask[w, row] == 0 or forward <= 0.0:
                continue
            heard = True
            between = 0
            for other in range(mask.shape[1]):
                if mask[w, other] and 0.0 < peers[w, other, 0] * _FORWARD < forward:
                    between += 1
            relative, accel = peers[w, row, 2] * _RELATIVE_SPEED, peers[w, row, 5] * _ACCEL
            room = forward - CAR_LENGTH_M - CAR_SPACING_M * between - standstill_m
            needed = max(needed, required_decel(speed, max(speed + relative, 0.0), accel, room))
            hardest = min(hardest, accel)
            if forward < near:
                near, near_relative = forward, relative
        demand = 0.0
        if hardest < -threshold_mps2:
            demand = max(-hardest, 1.15 * needed)
        elif needed > 2.0:
            demand = needed
        if tuned and braking[w] > 0.0:
            if not heard:
                demand = max(demand, braking[w])  # everything went stale: keep braking
            elif near_relative <= 0.0 or (speed < STANDING_MPS and speed + near_relative < STANDING_MPS):
                demand = max(demand, 1.0)
        braking[w] = min(demand, MAX_BRAKE_MPS2)
        actions[w] = braking[w] / MAX_BRAKE_MPS2


class V2VRule(Remembering):
    """Brakes when a peer ahead reports hard braking, or the positions it heard call for it.

    Args:
        name: of the policy.
        threshold_mps2: reported deceleration from which a peer brakes hard [m/s²]. Infinite for ``a_req``, which shows
            what that answer is worth: the required deceleration alone waits until a braking has used up the room, and
            is as late as the positions are wrong.
        standstill_m: gap that braking shall leave [m].
        tuned: whether braking is kept up while everything is stale, and 1 m/s² of it held while the gap to the next car
            does not grow or both cars stand.
    """

    control = "brake"

    def __init__(self, name: str, threshold_mps2: float, standstill_m: float, tuned: bool) -> None:
        super().__init__()
        self.name = name
        self._threshold, self._standstill, self._tuned = threshold_mps2, standstill_m, tuned

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        actions = np.zeros(len(observation.ego))
        _rule(
            observation.ego, observation.peers, observation.peer_mask, self._threshold, self._standstill,
            self._memory, self._tuned, actions,
        )  # fmt: skip
        return actions


class Rss(Stateless):
    """Brakes with the least braking that RSS counts on, while the gap to the next heard car is below the safe distance.

    Constants ``rss_v2v``: see :mod:`roadsense.convoy.rss`. A car that follows at a usual headway is nearly always below
    that distance, so this brakes often.
    """

    name, control = "rss", "brake"

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        heard = next_heard(observation)
        unsafe = heard.ahead & (heard.gap_m < rss_distance(heard.speed_mps, heard.lead_speed_mps))
        return np.where(unsafe, RSS_MIN_BRAKE_MPS2 / MAX_BRAKE_MPS2, 0.0)
