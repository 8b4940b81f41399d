"""The draws of a reset: hazard, ordinary driving and driver, from the episode's seed and the scenario's ranges.

Each quantity is drawn whether it is used or not, so that overriding one range moves no other draw.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.world import HISTORY, MAX_EVENTS, NEVER, HazardKind
from roadsense.episode_spec import EpisodeSpec
from roadsense.jit import kernel
from roadsense.philox import generator_uniform
from roadsense.randomness import Purpose, derive_seed
from roadsense.traffic.base import EGO, STEP_S
from roadsense.vehicles import VehicleType

_KINDS = {kind.name.lower(): kind for kind in HazardKind}
_NONE, _EMERGENCY_BRAKE = int(HazardKind.NONE), int(HazardKind.EMERGENCY_BRAKE)
_STALLED_VEHICLE = int(HazardKind.STALLED_VEHICLE)

ORDINARY_FROM_STEP, ORDINARY_TO_STEP = 30, 320
"""Ordinary brakings begin within these steps."""

STALLED_DECEL_MPS2 = 9.0
"""What keeps a stalled vehicle where it stands [m/s²]."""

STOPPING_SPEED_MPS = 15.0
"""The wait of an ordinary stop counts from the standstill of a car at this speed [m/s]."""

SPEC_DTYPE = np.dtype(
    [
        ("kind", np.int64),
        ("share", np.float64),
        ("rank", np.int64, (2,)),
        ("decel_mps2", np.float64, (2,)),
        ("onset_s", np.float64, (2,)),
        ("release_s", np.float64, (2,)),
        ("release_share", np.float64),
        ("reaction_s", np.float64, (2,)),
        ("inattentive_share", np.float64),
        ("inattention_s", np.float64, (2,)),  # NaN: to the end
        ("brakings", np.int64, (2,)),
        ("ordinary_decel_mps2", np.float64, (2,)),
        ("duration_s", np.float64, (2,)),
        ("stop_share", np.float64),
        ("wave_amplitude_mps", np.float64),
        ("wave_hz", np.float64),
        ("hold_until_onset", np.bool_),
        # --- of the ego's type
        ("max_accel_mps2", np.float64),
        ("max_speed_mps", np.float64),
        ("headway_s", np.float64),
        ("min_gap_m", np.float64),
        ("speed_factor", np.float64),
    ],
    align=True,
)
"""The ranges that an episode is drawn from, as kernels read them."""

DRAWS = (Purpose.HAZARD, Purpose.ORDINARY_DRIVING, Purpose.DRIVER)
"""What is drawn at a reset, in the order of its keys."""
_HAZARD, _ORDINARY, _DRIVER = range(len(DRAWS))


def keys_of(seed: int) -> list[int]:
    """The key of each of ``DRAWS`` in an episode."""
    return [derive_seed(seed, purpose) for purpose in DRAWS]


def spec_record(spec: EpisodeSpec, ego: VehicleType) -> NDArray[np.void]:
    """One record of ``SPEC_DTYPE``, from the ranges of an episode and the ego's type."""
    hazard, driver, ordinary = spec.hazard, spec.driver, spec.ordinary
    forever = (math.nan, math.nan)
    return np.array(
        (
            _KINDS[hazard.kind], hazard.share, hazard.rank, hazard.decel_mps2, hazard.onset_s,
            hazard.release_s or forever, hazard.release_share, driver.reaction_s, driver.inattentive_share,
            driver.inattention_s or forever, ordinary.brakings, ordinary.decel_mps2, ordinary.duration_s,
            ordinary.stop_share, spec.wave.amplitude_mps, spec.wave.frequency_hz, spec.hold_until_onset,
            ego.accel_mps2, ego.max_speed_mps, ego.tau_s, ego.min_gap_m,
            ego.speed_factor,
        ),
        SPEC_DTYPE,
    )  # fmt: skip


@kernel
def steps(seconds):
    """Whole control steps nearest to a duration."""
    return round(seconds / STEP_S)


@kernel
def between(bounds, unit):
    """The value at ``unit`` of [0, 1) within two bounds."""
    return bounds[0] + unit * (bounds[1] - bounds[0])


@kernel
def one_of(low, high, unit):
    """The whole number at ``unit`` of [0, 1) from ``low`` to ``high``."""
    return low + int(unit * (high - low + 1))


@kernel
def list_ahead(traffic, w, ahead):
    """Writes the columns of the transmitting cars ahead of the ego on its route, nearest first; returns how many."""
    position = traffic.position_m[w]
    count = 0
    for car in range(1, traffic.alive.shape[1]):
        here = traffic.alive[w, car] and traffic.on_route[w, car] and traffic.transmits[w, car]
        if not here or position[car] <= position[EGO]:
            continue
        place = count
        while place > 0 and position[ahead[place - 1]] > position[car]:
            ahead[place] = ahead[place - 1]
            place -= 1
        ahead[place] = car
        count += 1
    return count


@kernel
def draw_episode(world, spec, keys, traffic, w, ahead):
    """Fills the record of a world for a new episode.

    Args:
        world: of ``WORLD_DTYPE``.
        spec: of ``SPEC_DTYPE``.
        keys: [3], see :func:`keys_of`.
        traffic: the state at t = 0.
        w: the world's row in it.
        ahead: scratch, [n] with room for every car.
    """
    world.step = 0
    count = list_ahead(traffic, w, ahead)
    world.num_events = 0
    draw_hazard(world, spec, keys[_HAZARD], ahead, count)
    if world.hazard_kind == _NONE:
        draw_ordinary(world, spec, keys[_ORDINARY], ahead, count)
    world.wave_target = ahead[count - 1] if count > 0 and spec.wave_amplitude_mps > 0.0 else EGO
    world.wave_amplitude_mps, world.wave_hz = spec.wave_amplitude_mps, spec.wave_hz
    draw_driver(world, spec, keys[_DRIVER])
    world.max_accel_mps2, world.max_speed_mps = spec.max_accel_mps2, spec.max_speed_mps
    world.actuator_accel_mps2, world.previous_accel_mps2, world.action = 0.0, 0.0, 0.0
    world.driver_accel_mps2, world.demand_mps2, world.needed_before_mps2 = 0.0, 0.0, 0.0
    world.impact_speed_mps = 0.0
    world.end_reason = 0
    world.hold_until_onset = spec.hold_until_onset


@kernel
def add_event(world, target, start, end, decel):
    event = world.num_events
    world.event_target[event], world.event_decel_mps2[event] = target, decel
    world.event_start[event], world.event_end[event] = start, end
    world.num_events = event + 1


@kernel
def draw_hazard(world, spec, key, ahead, count):
    """Draws kind, target, deceleration, onset and end of the hazard."""
    kind = spec.kind if count > 0 else _NONE
    if kind == _EMERGENCY_BRAKE and generator_uniform(key, 5) >= spec.share:
        kind = _NONE
    world.hazard_kind = kind
    world.hazard_rank, world.hazard_target, world.hazard_decel_mps2 = 0, -1, 0.0
    world.onset_step, world.over_step = NEVER, NEVER
    if kind == _NONE:
        return
    rank = one_of(min(spec.rank[0], count), min(spec.rank[1], count), generator_uniform(key, 0))
    decel = between(spec.decel_mps2, generator_uniform(key, 1))
    onset = one_of(steps(spec.onset_s[0]), steps(spec.onset_s[1]), generator_uniform(key, 2))
    over = NEVER
    if generator_uniform(key, 3) < spec.release_share:
        over = onset + steps(between(spec.release_s, generator_uniform(key, 4)))
    if kind == _STALLED_VEHICLE:  # it stands where the scenario put it, from the first step to the last
        rank, onset, over, decel = count, 0, NEVER, STALLED_DECEL_MPS2
    world.hazard_rank, world.hazard_target, world.hazard_decel_mps2 = rank, ahead[rank - 1], decel
    world.onset_step, world.over_step = onset, over
    add_event(world, ahead[rank - 1], onset, over, decel)


@kernel
def draw_ordinary(world, spec, key, ahead, count):
    """The front car slows now and then, in disjoint slots of the episode."""
    brakings = one_of(spec.brakings[0], spec.brakings[1], generator_uniform(key, 0))
    if count == 0 or brakings == 0:
        return
    slot = (ORDINARY_TO_STEP - ORDINARY_FROM_STEP) // brakings
    for event in range(min(brakings, MAX_EVENTS)):
        first = 1 + 4 * event
        decel = between(spec.ordinary_decel_mps2, generator_uniform(key, first + 1))
        duration_s = between(spec.duration_s, generator_uniform(key, first + 2))
        if generator_uniform(key, first + 3) < spec.stop_share:
            duration_s += STOPPING_SPEED_MPS / decel
        lasts = min(steps(duration_s), slot)
        start = ORDINARY_FROM_STEP + event * slot + int(generator_uniform(key, first) * (slot - lasts + 1))
        add_event(world, ahead[count - 1], start, start + lasts, decel)


@kernel
def draw_driver(world, spec, key):
    """Draws reaction and inattention."""
    world.reaction_steps = min(steps(between(spec.reaction_s, generator_uniform(key, 0))), HISTORY - 1)
    world.inattentive_from, world.attentive_from = NEVER, NEVER
    if world.hazard_kind != _NONE and generator_uniform(key, 1) < spec.inattentive_share:
        world.inattentive_from = world.onset_step
        if not math.isnan(spec.inattention_s[0]):
            world.attentive_from = world.onset_step + steps(between(spec.inattention_s, generator_uniform(key, 2)))
    world.driver_headway_s, world.driver_min_gap_m = spec.headway_s, spec.min_gap_m
    world.driver_speed_factor = spec.speed_factor
    world.risk_s, world.held = 0.0, False
