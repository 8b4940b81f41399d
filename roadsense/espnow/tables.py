"""Parameters in force, one record per world, as kernels read them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.channel import QUANTILES, gamma_quantiles
from roadsense.espnow.params import RadioParams
from roadsense.espnow.sections import LOSS_BINS, Placement, Propagation
from roadsense.philox import uniform
from roadsense.randomness import Purpose

TABLE_DTYPE = np.dtype(
    [
        ("beacon_interval_s", np.float64),
        ("beacon_drift_sd", np.float64),
        ("running_from_s", np.float64),
        ("running_to_s", np.float64),
        ("placement_sd", np.float64),  # of that margin, per car
        ("door_probability", np.float64),
        ("door_loss", np.float64),
        ("door_burst", np.float64),
        ("latency_shift_s", np.float64),
        ("latency_gamma", np.int64),  # row of the quantiles of its body
        ("latency_scale_s", np.float64),
        ("tail_probability", np.float64),
        ("tail_from_s", np.float64),
        ("tail_to_s", np.float64),
        ("gps_rate_hz", np.float64),
        ("gps_sigma_m", np.float64),
        ("gps_tau_s", np.float64),
        ("extrapolate", np.bool_),
        ("speed_sd_mps", np.float64),
        ("accel_sd_mps2", np.float64),
        ("heading_sd_rad", np.float64),
        ("stale_after_s", np.float64),
        # --- medium
        ("airtime_s", np.float64),  # of one frame; 0: frames take no time and never meet
        ("slot_s", np.float64),
        ("difs_s", np.float64),
        ("backoff_slots", np.float64),
        # --- relays
        ("relay_hops", np.int64),  # most relays a message may go through
        ("relay_cosine", np.float64),  # of the half angle of the cone ahead whose messages are relayed
        ("relays_per_tick", np.int64),
        # --- propagation; all unused where it is not in force
        ("propagates", np.bool_),
        ("margin_1m_db", np.float64),  # received power above the sensitivity at 1 m
        ("db_per_decade", np.float64),
        ("blocking_db", np.float64),
        ("shadow_sd_db", np.float64),
        ("shadow_corr_m", np.float64),
        ("fading_far_from_m", np.float64),
        ("near_m", np.float64),  # of the gain of power, gamma distributed with this shape and mean 1
        ("far_m", np.float64),
        ("near_gamma", np.int64),
        ("far_gamma", np.int64),
        ("error_width_db", np.float64),
        # --- false alarms
        ("alarm_every_s", np.float64),  # 0: nobody lies
        ("alarm_lasts_s", np.float64),
        ("alarm_decel_mps2", np.float64),
        # Steps of the loss table; the one after the last is the end of range, where everything is lost.
        ("loss_from_m", np.float64, (LOSS_BINS,)),
        ("loss_margin", np.float64, (LOSS_BINS,)),  # whose standard normal distribution is the loss, see channel
        ("loss_burst", np.float64, (LOSS_BINS,)),
    ],
    align=True,
)
"""Parameters in force in one world, randomisation applied; :data:`RadioTables` is [world] of it."""

TABLE_BYTES = TABLE_DTYPE.fields["loss_from_m"][1] if TABLE_DTYPE.fields else 0
"""Bytes of a record before the steps of its loss table, of which each link needs one."""

RadioTables = NDArray[np.void]
"""[world] of ``TABLE_DTYPE``."""


_NO_GAMMA = -1
_GAMMAS = ("latency_gamma", "near_gamma", "far_gamma")


def _factors(params: RadioParams, seed: int | None) -> dict[str, float]:
    """The factor of every randomised quantity: 1 without a seed, else drawn from its range."""
    ranges = dict(params.randomisation)
    if seed is None:
        return dict.fromkeys(ranges, 1.0)
    key = np.uint64(seed)
    draws = (uniform(key, int(Purpose.RADIO_DOMAIN), 0, index, 0) for index in range(len(ranges)))
    return {name: low + (high - low) * draw for (name, (low, high)), draw in zip(ranges.items(), draws, strict=True)}


class GammaQuantiles:
    """Quantiles of gamma distributions of scale 1, each kept once for all worlds that use it.

    Attributes:
        rows: [row, ``QUANTILES``], as :func:`~roadsense.espnow.channel.quantile` reads them.
    """

    def __init__(self, num_worlds: int) -> None:
        self.rows = np.zeros((len(_GAMMAS) * num_worlds, QUANTILES))
        self._shapes: dict[float, int] = {}

    def row_of(self, shape: float, tables: RadioTables) -> int:
        """The row of a shape, filled if it is new; rows that no world uses any more are given away."""
        if shape not in self._shapes:
            if len(self._shapes) == len(self.rows):
                used = {int(row) for name in _GAMMAS for row in tables[name]} - {_NO_GAMMA}
                self._shapes = {known: row for known, row in self._shapes.items() if row in used}
            free = set(range(len(self.rows))) - set(self._shapes.values())
            self._shapes[shape] = min(free)
            self.rows[self._shapes[shape]] = gamma_quantiles(shape)
        return self._shapes[shape]


def fill_tables(
    tables: RadioTables, quantiles: GammaQuantiles, world: int, params: RadioParams, seed: int | None = None
) -> None:
    """Puts parameters in force in one world.

    Args:
        tables: [world] of ``TABLE_DTYPE``.
        quantiles: shared by all worlds.
        world: which one.
        params: as read.
        seed: of the episode; if given, the parameters are varied within ``params.randomisation``.
    """
    from scipy.special import ndtri

    row, factor = tables[world], _factors(params, seed)
    for name in _GAMMAS:
        row[name] = _NO_GAMMA
    row["beacon_interval_s"] = params.beacon.interval_ms / 1000.0
    row["beacon_drift_sd"] = params.beacon.drift_ppm_sd * 1e-6
    row["running_from_s"], row["running_to_s"] = params.beacon.running_s
    steps = len(params.loss.from_m)
    share = np.ones(LOSS_BINS)
    share[:steps] = np.minimum(1.0, np.array(params.loss.probability) * factor["loss_scale"])
    burst = np.ones(LOSS_BINS)
    burst[:steps] = np.maximum(1.0, np.array(params.loss.mean_burst) * factor["burst_scale"])
    row["loss_from_m"] = (*params.loss.from_m, params.loss.range_m, *[math.inf] * (LOSS_BINS - steps - 1))
    placement = params.placement or Placement(link_sd=0.0)
    # The mean over a normal offset of variance s² of the distribution function at a is that function at a/√(1 + s²).
    row["loss_margin"] = math.sqrt(1.0 + placement.link_sd**2) * ndtri(share)
    row["loss_burst"] = burst
    row["placement_sd"] = placement.link_sd / math.sqrt(2.0)
    row["door_probability"] = placement.door_probability
    row["door_loss"], row["door_burst"] = placement.door_loss, placement.door_burst
    late = factor["latency_scale"] / 1000.0
    row["latency_shift_s"] = params.latency.shift_ms * late
    row["latency_gamma"] = quantiles.row_of(params.latency.shape, tables)
    row["latency_scale_s"] = params.latency.scale_ms * late
    row["tail_probability"] = params.latency.tail_probability
    row["tail_from_s"], row["tail_to_s"] = (edge * late for edge in params.latency.tail_ms)
    row["gps_rate_hz"], row["gps_tau_s"] = params.gps.rate_hz, params.gps.tau_s
    row["gps_sigma_m"] = params.gps.sigma_m * factor["gps_sigma_scale"]
    row["extrapolate"] = params.gps.extrapolate
    row["speed_sd_mps"] = params.noise.speed_mps * factor["noise_scale"]
    row["accel_sd_mps2"] = params.noise.accel_mps2 * factor["noise_scale"]
    row["heading_sd_rad"] = math.radians(params.noise.heading_deg) * factor["noise_scale"]
    row["stale_after_s"] = params.stale_after_ms / 1000.0
    phy, relays = params.phy, params.relays
    row["airtime_s"] = phy.airtime_s if phy else 0.0
    row["slot_s"], row["difs_s"] = (phy.slot_us * 1e-6, phy.difs_us * 1e-6) if phy else (0.0, 0.0)
    row["backoff_slots"] = phy.backoff_slots if phy else 1
    row["relay_hops"] = relays.max_hops if relays else 0
    row["relay_cosine"] = math.cos(math.radians(relays.cone_deg)) if relays else 1.0
    row["relays_per_tick"] = relays.per_tick if relays else 0
    row["propagates"] = params.propagation is not None
    if params.propagation is not None:
        near, far = params.propagation.fading_m
        row["near_m"], row["far_m"] = near, far
        row["near_gamma"] = quantiles.row_of(near, tables)
        row["far_gamma"] = quantiles.row_of(far, tables)
        _fill_propagation(row, params.propagation)
    alarms = params.alarms
    row["alarm_every_s"] = alarms.every_s if alarms else 0.0
    row["alarm_lasts_s"] = alarms.lasts_s if alarms else 0.0
    row["alarm_decel_mps2"] = alarms.decel_mps2 if alarms else 0.0


def _fill_propagation(row: np.void, physics: Propagation) -> None:
    row["margin_1m_db"] = physics.power_dbm - physics.loss_1m_db - physics.sensitivity_dbm
    row["db_per_decade"] = 10.0 * physics.exponent
    row["blocking_db"] = physics.blocking_db
    row["shadow_sd_db"], row["shadow_corr_m"] = physics.shadow_sd_db, physics.shadow_corr_m
    row["fading_far_from_m"] = physics.fading_far_from_m
    row["error_width_db"] = physics.error_width_db
