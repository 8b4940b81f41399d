"""Policies that need no learning, by name: constant and random ones, rules on the radio, sensors, bounds.

Every policy acts on all worlds at once. Those that read the truth say so (``privileged``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.errors import UsageError, nearest
from roadsense.philox import uniform
from roadsense.policies.base import BatchPolicy, Stateless, Truth
from roadsense.policies.following import Cacc, IdmPolicy, Ploeg
from roadsense.policies.privileged import BrakeAtOnset, FirstReception, Oracle, R157Human, TtcAeb
from roadsense.policies.v2v import Rss, V2VRule
from roadsense.randomness import Purpose

_RANDOM = int(Purpose.POLICY)


class _Constant(Stateless):
    """Always the same action."""

    control = "brake"

    def __init__(self, name: str, action: float) -> None:
        self.name, self._action = name, action

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        return np.full(len(observation.ego), self._action)


class RandomPolicy(BatchPolicy):
    """Uniform actions from the episode's own stream."""

    name, control = "random", "brake"

    def __init__(self) -> None:
        self._seeds, self._decisions = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._seeds) != len(chosen):
            self._seeds, self._decisions = seeds.copy(), np.zeros(len(chosen), np.int64)
        self._seeds[chosen], self._decisions[chosen] = seeds[chosen], 0

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        keys = zip(self._seeds, self._decisions, strict=True)
        actions = np.array([uniform(seed, _RANDOM, decision, 0, 0) for seed, decision in keys])
        self._decisions += 1
        return actions


BASELINES: dict[str, Callable[[], BatchPolicy]] = {
    "none": lambda: _Constant("none", 0.0),
    "always_brake": lambda: _Constant("always_brake", 1.0),
    "random": RandomPolicy,
    "v2v_rule": lambda: V2VRule("v2v_rule", 2.5, 2.0, tuned=False),
    "v2v_tuned": lambda: V2VRule("v2v_tuned", 3.2, 6.0, tuned=True),
    "a_req": lambda: V2VRule("a_req", math.inf, 2.0, tuned=False),
    "rss": Rss,
    "cacc": Cacc,
    "ploeg": Ploeg,
    "ttc_aeb": TtcAeb,
    "r157_human": R157Human,
    "idm": IdmPolicy,
    "first_reception": FirstReception,
    "brake_at_onset": BrakeAtOnset,
    "oracle": Oracle,
}
"""Baseline policies by name."""


def make_baseline(name: str) -> BatchPolicy:
    """A fresh baseline policy.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in BASELINES:
        raise UsageError(f"policy {name!r} is unknown; {nearest(name, BASELINES)}")
    return BASELINES[name]()
