"""Policies that need no learning: bounds, rules on what the radio says, and car following on the truth.

Every policy acts on all worlds at once. Only ``oracle`` and ``idm`` read the truth, and say so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.driver import idm
from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation
from roadsense.convoy.truth import CAR_SPACING_M, required_decel
from roadsense.errors import UsageError, nearest
from roadsense.jit import kernel
from roadsense.philox import uniform
from roadsense.policies.base import Policy, Truth
from roadsense.randomness import Purpose
from roadsense.traffic.base import EGO

CAR_LENGTH_M = 5.0
"""Length assumed of a peer, which its message does not state [m]."""

STANDING_MPS = 1.5
"""Below this speed the tuned rule takes a car to stand: speeds are reported with noise [m/s]."""

_RANDOM = int(Purpose.POLICY)
_SPEED = EGO_FEATURES[0].scale
_FORWARD, _RELATIVE_SPEED, _ACCEL = PEER_FEATURES[0].scale, PEER_FEATURES[2].scale, PEER_FEATURES[5].scale


class _Constant(Policy):
    """Always the same action."""

    control = "brake"

    def __init__(self, name: str, action: float) -> None:
        self.name, self._action = name, action

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        pass

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        return np.full(len(observation.ego), self._action)


class RandomPolicy(Policy):
    """Uniform actions from the episode's own stream."""

    name, control = "random", "brake"

    def __init__(self) -> None:
        self._seeds, self._decisions = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._seeds) != len(chosen):
            self._seeds, self._decisions = seeds.copy(), np.zeros(len(chosen), np.int64)
        self._seeds[chosen], self._decisions[chosen] = seeds[chosen], 0

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        keys = zip(self._seeds, self._decisions, strict=True)
        actions = np.array([uniform(seed, _RANDOM, decision, 0, 0) for seed, decision in keys])
        self._decisions += 1
        return actions


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


class V2VRule(Policy):
    """Brakes when a peer ahead reports hard braking, or the positions it heard call for it.

    Args:
        name: of the policy.
        threshold_mps2: reported deceleration from which a peer brakes hard [m/s²].
        standstill_m: gap that braking shall leave [m].
        tuned: whether braking is kept up while everything is stale, and 1 m/s² of it held while the gap to the next car
            does not grow or both cars stand.
    """

    control = "brake"

    def __init__(self, name: str, threshold_mps2: float, standstill_m: float, tuned: bool) -> None:
        self.name = name
        self._threshold, self._standstill, self._tuned = threshold_mps2, standstill_m, tuned
        self._braking = np.zeros(0)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._braking) != len(chosen):
            self._braking = np.zeros(len(chosen))
        self._braking[chosen] = 0.0

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        actions = np.zeros(len(observation.ego))
        _rule(
            observation.ego, observation.peers, observation.peer_mask, self._threshold, self._standstill,
            self._braking, self._tuned, actions,
        )  # fmt: skip
        return actions


class Oracle(Policy):
    """Brakes by the truth's required deceleration over all cars ahead, with 15 % to spare, and holds at standstill."""

    name, control, privileged = "oracle", "brake", True
    ACT_FROM_MPS2 = 1.0

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        pass

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        records = truth.records
        needed = records["required_decel_mps2"]
        demand = np.where(needed >= self.ACT_FROM_MPS2, 1.15 * needed, 0.0)
        speed = truth.traffic.speed_mps[:, EGO]
        closed_up = (records["gap_m"] < 4.0) & (records["closing_speed_mps"] >= 0.0) & (speed < 1.5)
        demand = np.where(closed_up, np.maximum(demand, 2.0), demand)
        return np.minimum(demand, MAX_BRAKE_MPS2) / MAX_BRAKE_MPS2


class IdmPolicy(Policy):
    """The Intelligent Driver Model on the truth, driving alone: what a perfect sensor and no radio can do."""

    name, control, privileged = "idm", "acceleration", True
    MAX_ACCEL_MPS2, HEADWAY_S, MIN_GAP_M, DESIRED_MPS = 2.6, 1.0, 2.5, 30.0

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        pass

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        assert truth is not None, "privileged"
        records, speeds = truth.records, truth.traffic.speed_mps[:, EGO]
        accel = np.array([
            idm(speed, self.DESIRED_MPS, gap, closing, self.MAX_ACCEL_MPS2, self.HEADWAY_S, self.MIN_GAP_M)
            for speed, gap, closing in zip(speeds, records["gap_m"], records["closing_speed_mps"], strict=True)
        ])  # fmt: skip
        return np.clip(np.where(accel < 0.0, accel / MAX_BRAKE_MPS2, accel / self.MAX_ACCEL_MPS2), -1.0, 1.0)


BASELINES: dict[str, Callable[[], Policy]] = {
    "none": lambda: _Constant("none", 0.0),
    "always_brake": lambda: _Constant("always_brake", 1.0),
    "random": RandomPolicy,
    "v2v_rule": lambda: V2VRule("v2v_rule", 2.5, 2.0, tuned=False),
    "v2v_tuned": lambda: V2VRule("v2v_tuned", 3.2, 6.0, tuned=True),
    "oracle": Oracle,
    "idm": IdmPolicy,
}
"""Baseline policies by name."""


def make_baseline(name: str) -> Policy:
    """A fresh baseline policy.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in BASELINES:
        raise UsageError(f"policy {name!r} is unknown; {nearest(name, BASELINES)}")
    return BASELINES[name]()
