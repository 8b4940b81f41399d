"""The per-world record that the rules of a step share, and what an episode may end in."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_PEERS = 16
"""Capacity of a world beside the ego where none is asked for."""

MAX_EVENTS = 8
"""Most brakings of steered peers in one episode."""

HISTORY = 32
"""Steps of the leader's state a driver can look back on; bounds the reaction time to 3.1 s."""

NEVER = np.iinfo(np.int64).max // 4
"""A step number that no episode reaches."""


class EndReason(enum.IntEnum):
    """Why an episode ended; ``info["end_reason"]``."""

    RUNNING = 0
    COLLISION = 1
    HORIZON = 2
    ROUTE_END = 3
    PEER_CONTACT = 4
    """Two peers touched: the episode is invalid and says nothing about the policy."""
    REAR_CONTACT = 5
    """The car behind ran into V001."""


def is_termination(reason: Any) -> Any:
    """Which end reasons (a number or an array) are contacts of V001, after which nothing follows: ``terminated``."""
    return (reason == EndReason.COLLISION) | (reason == EndReason.REAR_CONTACT)


def is_truncation(reason: Any) -> Any:
    """Which end reasons (a number or an array) only cut an episode off: ``truncated``."""
    return (reason != EndReason.RUNNING) ^ is_termination(reason)


class HazardKind(enum.IntEnum):
    """What happens in an episode."""

    NONE = 0
    EMERGENCY_BRAKE = 1
    STALLED_VEHICLE = 2


class HazardPhase(enum.IntEnum):
    """``info["hazard_phase"]``."""

    NOT_YET = 0
    ACTIVE = 1
    OVER = 2


class Control(enum.IntEnum):
    """What an action means."""

    BRAKE = 0
    ACCELERATION = 1


WORLD_DTYPE = np.dtype(
    [
        ("seed", np.uint64),
        ("step", np.int64),
        # --- hazard, drawn at reset
        ("hazard_kind", np.int64),
        ("hazard_rank", np.int64),  # of the target among the transmitting cars ahead, 1: the next one; 0: no hazard
        ("hazard_target", np.int64),  # column, -1: none
        ("hazard_decel_mps2", np.float64),
        ("onset_step", np.int64),
        ("over_step", np.int64),
        ("hold_until_onset", np.bool_),
        # --- brakings of steered peers, the hazard's among them
        ("num_events", np.int64),
        ("event_target", np.int64, (MAX_EVENTS,)),
        ("event_start", np.int64, (MAX_EVENTS,)),
        ("event_end", np.int64, (MAX_EVENTS,)),
        ("event_decel_mps2", np.float64, (MAX_EVENTS,)),
        # --- the swinging speed of the first car ahead
        ("wave_target", np.int64),  # column, that of the ego: nobody
        ("wave_amplitude_mps", np.float64),
        ("wave_hz", np.float64),
        # --- driver
        ("reaction_steps", np.int64),
        ("inattentive_from", np.int64),
        ("attentive_from", np.int64),
        ("driver_headway_s", np.float64),
        ("driver_min_gap_m", np.float64),
        ("driver_speed_factor", np.float64),
        ("seen_gap_m", np.float64, (HISTORY,)),
        ("seen_lead_speed_mps", np.float64, (HISTORY,)),
        ("risk_s", np.float64),  # how long the driver has faced a risk that calls for emergency braking
        ("held", np.bool_),  # auto-hold keeps the car at a standstill
        # --- ego
        ("max_accel_mps2", np.float64),
        ("max_speed_mps", np.float64),
        ("actuator_accel_mps2", np.float64),
        ("previous_accel_mps2", np.float64),
        ("action", np.float64),
        ("driver_accel_mps2", np.float64),
        ("demand_mps2", np.float64),  # deceleration the policy asks for, 0 inside the dead band
        # --- truth at the present step
        ("leader", np.int64),  # column, -1: none
        ("gap_m", np.float64),
        ("follower", np.int64),  # column of the next car behind, -1: none
        ("rear_gap_m", np.float64),
        ("peers_touch", np.bool_),  # two of them overlap on the route
        ("closing_speed_mps", np.float64),
        ("required_decel_mps2", np.float64),
        ("needed_before_mps2", np.float64),  # required deceleration at the step the action was chosen
        ("hazard_phase", np.int64),
        ("impact_speed_mps", np.float64),
        ("end_reason", np.int64),
    ],
    align=True,
)
"""One record a world. Per-car quantities are arrays of their own (:class:`roadsense.traffic.base.TrafficState`)."""


class Targets(NamedTuple):
    """What the environment asks of the traffic engine, [world, car]."""

    next_speed_mps: NDArray[np.float64]
    steered: NDArray[np.bool_]
    stated_speed_mps: NDArray[np.float64]
    """Speed of each car at t = 0, for ``hold_until_onset``."""

    @classmethod
    def zeros(cls, num_worlds: int, max_cars: int) -> Targets:
        shape = (num_worlds, max_cars)
        return cls(np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(shape))
