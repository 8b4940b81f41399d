"""The reward, from the truth alone."""

from __future__ import annotations

import collections
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.truth import impact_speed, touches
from roadsense.errors import UsageError
from roadsense.jit import kernel
from roadsense.traffic.base import EGO, STEP_S

_DIVISORS = ("collision_speed_mps", "unsafe_span_mps2", "close_gap_m", "jerk_mps3", "progress_span_m")

REWARD_TERMS = ("collision", "unsafe_gap", "unneeded_braking", "jerk", "missed_progress")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Constants of the reward. Each term is at most 0."""

    collision: float = 100.0
    """Cost of a contact at no closing speed."""
    collision_speed_mps: float = 10.0
    """Closing speed that doubles the cost of a contact [m/s]."""
    collision_limit: float = 300.0
    """Most a contact can cost."""
    unsafe: float = 0.05
    """Cost of a step in which the required deceleration is extreme."""
    unsafe_from_mps2: float = 2.0
    """Required deceleration from which a step is unsafe [m/s²]."""
    unsafe_span_mps2: float = 6.0
    """Required deceleration above that at which the cost is full [m/s²]."""
    close: float = 0.2
    """Cost of a step at contact distance while moving."""
    close_gap_m: float = 3.0
    """Gap below which a moving car is too close [m]."""
    unneeded: float = 0.2
    """Cost of a step of full braking that nothing calls for."""
    unneeded_in_hazard: float = 0.04
    """The same while a hazard is active: too much is better than too late."""
    needed_factor: float = 1.25
    """Braking up to this multiple of the required deceleration is free."""
    needed_slack_mps2: float = 0.5
    """And this much beyond it [m/s²]."""
    jerk: float = 0.02
    """Cost of a step at the reference jerk."""
    jerk_mps3: float = 10.0
    """Reference jerk [m/s³]."""
    progress: float = 0.005
    """Cost of a step far behind the leader."""
    progress_gap_m: float = 8.0
    """Gap at standstill that costs nothing [m]."""
    progress_headway_s: float = 2.5
    """Headway that costs nothing [s]."""
    progress_span_m: float = 50.0
    """Gap beyond that at which the cost is full [m]."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < math.inf:
                raise UsageError(f"reward constant {name!r} is {value!r}; give a finite number that is not negative.")
        for name in _DIVISORS:
            if getattr(self, name) == 0.0:
                raise UsageError(f"reward constant {name!r} is 0; it divides, give a number above 0.")


_Constants = collections.namedtuple("_Constants", [field.name for field in dataclasses.fields(RewardConfig)])  # type: ignore[misc]


def reward_constants(config: RewardConfig) -> Any:
    """The configuration in the form kernels take."""
    return _Constants(*(float(value) for value in dataclasses.astuple(config)))


@kernel
def _clip01(value):
    return min(max(value, 0.0), 1.0)


@kernel
def score(world, traffic, w, c, terms):
    """Writes the terms of this step into ``terms`` [5] and returns their sum."""
    speed = traffic.speed_mps[w, EGO]
    accel = traffic.accel_mps2[w, EGO]
    needed = world.required_decel_mps2
    terms[:] = 0.0
    if touches(world):
        hit = impact_speed(world, traffic, w) / c.collision_speed_mps
        terms[0] = -min(c.collision_limit, c.collision * (1.0 + hit * hit))
    if speed > 0.1:
        terms[1] = -c.unsafe * _clip01((needed - c.unsafe_from_mps2) / c.unsafe_span_mps2)
        terms[1] -= c.close * _clip01(1.0 - world.gap_m / c.close_gap_m)
    if world.demand_mps2 > 0.0:
        price = c.unneeded_in_hazard if world.hazard_phase == 1 else c.unneeded
        surplus = world.demand_mps2 - c.needed_factor * world.needed_before_mps2 - c.needed_slack_mps2
        terms[2] = -price * max(0.0, surplus) / MAX_BRAKE_MPS2
    jerk = (accel - world.previous_accel_mps2) / STEP_S / c.jerk_mps3
    terms[3] = -c.jerk * min(1.0, jerk * jerk)
    if world.leader >= 0:
        lead_speed = traffic.speed_mps[w, world.leader]
        late = (world.gap_m - c.progress_gap_m - c.progress_headway_s * lead_speed) / c.progress_span_m
        terms[4] = -c.progress * _clip01(late)
    return terms[0] + terms[1] + terms[2] + terms[3] + terms[4]
