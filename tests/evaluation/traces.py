"""Episodes written by hand: V001 in column 0, one peer in column 1."""

import numpy as np

from roadsense.convoy.trace import EpisodeTrace
from roadsense.convoy.world import NEVER


def trace(steps=20, **changes):
    """A quiet episode: both cars at 20 m/s, 30 m apart, nobody asks for anything; ``changes`` replace fields."""
    time = np.arange(steps + 1) * 0.1
    fields = {
        "scenario_id": "by-hand", "seed": 1, "hazard_kind": 0, "hazard_rank": 0, "hazard_target": -1,
        "hazard_decel_mps2": 0.0, "onset_step": NEVER, "over_step": NEVER, "inattentive_from": NEVER,
        "attentive_from": NEVER, "end_reason": 2, "impact_speed_mps": 0.0, "num_peers": 1,
        "position_m": np.column_stack([20.0 * time, 35.0 + 20.0 * time]),
        "speed_mps": np.full((steps + 1, 2), 20.0),
        "accel_mps2": np.zeros((steps + 1, 2)),
        "length_m": np.full((steps + 1, 2), 5.0),
        "alive": np.ones((steps + 1, 2), bool),
        "gap_m": np.full(steps + 1, 30.0),
        "closing_speed_mps": np.zeros(steps + 1),
        "required_decel_mps2": np.zeros(steps + 1),
        "hazard_phase": np.zeros(steps + 1, int),
        "leader": np.ones(steps + 1, int),
        "target_heard": np.zeros(steps + 1, bool),
        "age_s": np.column_stack([np.full(steps + 1, np.nan), np.full(steps + 1, 0.1)]),
        "action": np.zeros(steps),
        "demand_mps2": np.zeros(steps),
        "driver_accel_mps2": np.zeros(steps),
        "reward": np.full(steps, -0.5),
        "reward_terms": np.zeros((steps, 5)),
        "beacons_received": np.array([0, 15]),
        "beacons_lost": np.array([0, 5]),
        "failure": "",
    }  # fmt: skip
    unknown = set(changes) - set(fields)
    assert not unknown, unknown
    return EpisodeTrace(**{**fields, **changes})


def braking_hazard(steps=20, onset=5, **changes):
    """The peer brakes with 6 m/s² from step ``onset`` on, to the end."""
    phase = np.zeros(steps + 1, int)
    phase[onset:] = 1
    accel = np.zeros((steps + 1, 2))
    accel[onset + 1 :, 1] = -6.0
    stated = {"hazard_kind": 1, "hazard_rank": 1, "hazard_target": 1, "hazard_decel_mps2": 6.0, "onset_step": onset,
              "hazard_phase": phase, "accel_mps2": accel, "inattentive_from": onset}  # fmt: skip
    return trace(steps, **{**stated, **changes})


def pulse(steps, *spans, level=2.0):
    """Demand [T]: ``level`` within the given [from, to) spans, else 0."""
    demand = np.zeros(steps)
    for first, end in spans:
        demand[first:end] = level
    return demand
