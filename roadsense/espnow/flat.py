"""The older, flat layout of params files (``latency.base_ms``, ``packet_loss.rate_tier_1``, …), read into today's.

What it states by two numbers becomes a distribution with the same moments: latency a shifted gamma with the stated
mean and standard deviation, loss a step function of distance with ``base_rate`` up to the first threshold,
``rate_tier_1`` and ``rate_tier_2`` up to the second (the old emulator went from one to the other), and ``rate_tier_3``
beyond. What it did not know (fix rate, correlation time of the GPS error, range) is taken as in the shipped profiles.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roadsense.errors import ParamsError, explain
from roadsense.espnow.sections import Gps, Noise, Share, least_mean_burst

_SHAPE = 1.6  # of the gamma in the shipped profiles
_RANGE_M, _GPS_RATE_HZ, _GPS_TAU_S = 450.0, 1.0, 60.0

_UNUSED = {
    "latency": ("notes",),
    "burst_loss": ("loss_multiplier", "max_loss_cap", "max_burst_length"),
    "sensor_noise": ("gyro_std_rad_s", "mag_std_ut"),
    "domain_randomization": ("jitter_std_range_ms",),
}
"""What is read, and has no counterpart in today's layout."""

Positive = Annotated[float, Field(gt=0, le=1000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Latency(_Section):
    base_ms: Positive
    jitter_std_ms: Annotated[float, Field(ge=0, le=1000)]
    distance_factor: Annotated[float, Field(ge=0, le=0)] = 0.0
    """Nothing measured depends on distance; files state 0."""
    notes: str = ""

    @model_validator(mode="after")
    def _is_a_latency(self) -> _Latency:
        if self.jitter_std_ms > 3.0 * self.base_ms:
            raise ValueError(
                f"jitter_std_ms {self.jitter_std_ms:g} is more than three times base_ms {self.base_ms:g}, which no"
                " latency is; clock offsets may be left in it"
            )
        return self


class _PacketLoss(_Section):
    base_rate: Share
    distance_threshold_1: Positive
    distance_threshold_2: Positive
    rate_tier_1: Share
    rate_tier_2: Share
    rate_tier_3: Share

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> _PacketLoss:
        if self.distance_threshold_2 <= self.distance_threshold_1:
            raise ValueError(f"distance_threshold_2 is {self.distance_threshold_2:g}, not beyond distance_threshold_1")
        return self


class _BurstLoss(_Section):
    enabled: bool
    mean_burst_length: Annotated[float, Field(ge=1, le=10_000)]
    loss_multiplier: float | None = None
    """Of the old emulator's own burst model; the mean length alone says what was measured."""
    max_loss_cap: Share = 1.0
    """Most loss in a burst; below the loss itself it would silently lower it."""
    max_burst_length: float | None = None


class _SensorNoise(_Section):
    gps_std_m: Annotated[float, Field(ge=0, le=50)]
    speed_std_ms: Annotated[float, Field(ge=0, le=10)]
    accel_std_ms2: Annotated[float, Field(ge=0, le=20)]
    heading_std_deg: Annotated[float, Field(ge=0, le=90)]
    gyro_std_rad_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    mag_std_ut: Annotated[float, Field(ge=0, le=1000)] = 0.0


class _Observation(_Section):
    staleness_threshold_ms: Annotated[float, Field(ge=100, le=10_000)] = 500.0


class _Ranges(_Section):
    latency_range_ms: tuple[Positive, Positive] | None = None
    loss_rate_range: tuple[Share, Share] | None = None
    jitter_std_range_ms: tuple[float, float] | None = None
    gps_noise_range_m: tuple[float, float] | None = None


class _FlatParams(_Section):
    latency: _Latency
    packet_loss: _PacketLoss
    burst_loss: _BurstLoss
    sensor_noise: _SensorNoise
    observation: _Observation = _Observation()
    domain_randomization: _Ranges = _Ranges()
    sensor_noise_driving: _SensorNoise | None = None
    sensor_noise_stationary: _SensorNoise | None = None
    metadata: dict[str, Any] = Field(default={}, alias="_metadata")


def is_flat(document: object) -> bool:
    """Whether a JSON document is in the older layout."""
    return isinstance(document, dict) and "packet_loss" in document and "loss" not in document


def from_flat(document: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """The same parameters in today's layout, to be validated like any other.

    Args:
        document: in the older layout.
        name: of the parameters.
        where: they come from; begins the message.

    Raises:
        ParamsError: it holds unknown or impossible values; the message names all of them.
    """
    try:
        flat = _FlatParams.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{where}: {explain(error, _FlatParams)}. Correct it.") from None
    noise = flat.sensor_noise_driving or flat.sensor_noise
    unused = [f"{section}.{name}" for section, names in _UNUSED.items() for name in names
              if name in document.get(section, {})]  # fmt: skip
    return {
        "schema_version": 1,
        "name": name,
        "provenance": {
            "source": f"{where}, in the older flat layout",
            "metadata": str(flat.metadata or "none"),
            "not carried over": ", ".join(unused) or "nothing",
        },
        "beacon": {"interval_ms": 100.0, "drift_ppm_sd": 20.0},
        "loss": _loss(flat.packet_loss, flat.burst_loss),
        "latency": _latency(flat.latency),
        "gps": Gps(rate_hz=_GPS_RATE_HZ, sigma_m=noise.gps_std_m, tau_s=_GPS_TAU_S, extrapolate=True).model_dump(),
        "noise": Noise(
            speed_mps=noise.speed_std_ms, accel_mps2=noise.accel_std_ms2, heading_deg=noise.heading_std_deg
        ).model_dump(),
        "stale_after_ms": flat.observation.staleness_threshold_ms,
        "randomisation": _randomisation(flat, noise),
    }


def _loss(loss: _PacketLoss, burst: _BurstLoss) -> dict[str, Any]:
    near, far = loss.distance_threshold_1, loss.distance_threshold_2
    shares = [loss.base_rate, loss.rate_tier_1, loss.rate_tier_2, loss.rate_tier_3]
    mean = burst.mean_burst_length if burst.enabled else 1.0
    possible = [mean if share == 1.0 else max(mean, least_mean_burst(share)) for share in shares]
    return {"from_m": [0.0, near, (near + far) / 2.0, far], "probability": shares, "mean_burst": possible,
            "range_m": max(_RANGE_M, far + 1.0)}  # fmt: skip


def _latency(latency: _Latency) -> dict[str, Any]:
    """Shift + gamma with the stated mean and standard deviation (its variance is shape · scale²)."""
    mean, deviation = latency.base_ms, latency.jitter_std_ms
    shape, scale = _SHAPE, deviation / math.sqrt(_SHAPE)
    if shape * scale > mean:  # too wide for that shape: one that begins at 0
        shape, scale = (mean / deviation) ** 2, deviation**2 / mean
    shift = max(0.0, mean - shape * scale)
    return {"shift_ms": shift, "shape": shape, "scale_ms": scale, "tail_probability": 0.0, "tail_ms": [0.0, 0.0]}


def _randomisation(flat: _FlatParams, noise: _SensorNoise) -> dict[str, list[float]]:
    """Ranges of values as ranges of factors on the stated value."""
    stated = {
        "loss_scale": (flat.domain_randomization.loss_rate_range, flat.packet_loss.base_rate),
        "latency_scale": (flat.domain_randomization.latency_range_ms, flat.latency.base_ms),
        "gps_sigma_scale": (flat.domain_randomization.gps_noise_range_m, noise.gps_std_m),
    }
    return {name: [edge / value for edge in pair] for name, (pair, value) in stated.items() if pair and value > 0.0}
