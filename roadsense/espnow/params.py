"""Radio and sensor parameters: the schema of ``params/espnow/*.json``."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roadsense.errors import ParamsError, explain

PENDING_MESSAGES = 8
"""Most messages of one link that may be under way at once; parameters that could need more are refused."""

LOSS_BINS = 32
"""Most distance steps of a loss table."""

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=10)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Beacon(_Section):
    """When a car sends; its phase within the interval is drawn anew for every episode."""

    interval_ms: Annotated[float, Field(ge=20, le=1000)] = 100.0
    """Nominal time between two beacons of a car."""
    drift_ppm_sd: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """Standard deviation over cars of the relative error of that time, in parts per million."""


class Loss(_Section):
    """Which beacons are lost, a step function of the true distance between sender and receiver."""

    from_m: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1, max_length=LOSS_BINS - 1)]
    """Distance at which each step begins; the first begins at 0."""
    probability: tuple[Share, ...]
    """Share of beacons lost in each step."""
    mean_burst: tuple[Annotated[float, Field(ge=1, le=10_000)], ...]
    """Mean number of beacons lost in a row, for beacons every 100 ms, in each step; independent losses have
    1 / (1 - probability) and fewer are impossible."""
    range_m: Annotated[float, Field(gt=0, le=100_000)]
    """From this distance on everything is lost."""

    @model_validator(mode="after")
    def _is_a_table(self) -> Loss:
        steps = len(self.from_m)
        problems = [
            f"{name} has {len(values)} entries but from_m has {steps}, give one per step"
            for name, values in (("probability", self.probability), ("mean_burst", self.mean_burst))
            if len(values) != steps
        ]
        if self.from_m[0] != 0:
            problems.append(f"from_m begins at {self.from_m[0]:g}, let it begin at 0")
        edges = (*self.from_m, self.range_m)
        for lower, upper in itertools.pairwise(edges):
            if upper <= lower:
                where = "range_m must lie beyond from_m" if upper == self.range_m else "from_m must ascend"
                problems.append(f"{where}, but {upper:g} follows {lower:g}")
        for share, burst in zip(self.probability, self.mean_burst, strict=False):
            if share < 1 and burst < least_mean_burst(share) - 1e-3:
                least = math.ceil(1000 * least_mean_burst(share)) / 1000
                problems.append(
                    f"mean_burst {burst:g} is impossible at probability {share:g}, state at least {least:g}"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Latency(_Section):
    """Time from sending to arrival: shift + gamma(shape, scale), and rarely a uniform ``tail_ms`` on top."""

    shift_ms: Annotated[float, Field(ge=0, le=1000)]
    shape: Annotated[float, Field(ge=0.1, le=1000)]
    scale_ms: Annotated[float, Field(ge=0, le=1000)]
    tail_probability: Share
    tail_ms: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=1000)]]

    @model_validator(mode="after")
    def _tail_ascends(self) -> Latency:
        if self.tail_ms[0] > self.tail_ms[1]:
            raise ValueError(f"tail_ms ends at {self.tail_ms[1]:g} below its start {self.tail_ms[0]:g}, swap them")
        return self

    @property
    def mean_ms(self) -> float:
        return self.shift_ms + self.shape * self.scale_ms + self.tail_probability * sum(self.tail_ms) / 2

    @property
    def longest_ms(self) -> float:
        """A latency that fewer than one draw in 1e8 exceeds: twenty scales beyond the gamma's mean, and the tail."""
        tail = self.tail_ms[1] if self.tail_probability > 0 else 0.0
        return self.shift_ms + (self.shape + 20.0 * max(1.0, math.sqrt(self.shape))) * self.scale_ms + tail


class Gps(_Section):
    """Position fixes with a correlated error (Ornstein–Uhlenbeck per axis)."""

    rate_hz: Annotated[float, Field(gt=0, le=10)]
    """Fixes per second; every car has its own phase."""
    sigma_m: Annotated[float, Field(ge=0, le=50)]
    """Standard deviation of the error per axis."""
    tau_s: Annotated[float, Field(gt=0, le=3600)]
    """Correlation time of the error."""
    extrapolate: bool
    """Whether positions are carried on by measured speed and heading between fixes and to the moment of sending;
    false is the plain hold of cheap firmware."""


class Noise(_Section):
    """Standard deviations of the white noise of a car's other sensors, drawn at every tick."""

    speed_mps: Annotated[float, Field(ge=0, le=10)]
    accel_mps2: Annotated[float, Field(ge=0, le=20)]
    heading_deg: Annotated[float, Field(ge=0, le=90)]


class Phy(_Section):
    """The medium that all cars share: a frame takes its airtime, who finds it busy waits its turn (IEEE 802.11 DCF)."""

    rate_kbps: Annotated[float, Field(ge=50, le=54_000)] = 1000.0
    """Data rate."""
    payload_bytes: Annotated[int, Field(ge=1, le=1470)] = 90
    """Body of a frame."""
    slot_us: Annotated[float, Field(ge=1, le=100)] = 20.0
    """Length of a backoff slot, and how long it takes until others sense a frame."""
    difs_us: Annotated[float, Field(ge=1, le=1000)] = 50.0
    """Time the medium must be idle before a backoff counts down."""
    backoff_slots: Annotated[int, Field(ge=1, le=1024)] = 16
    """A backoff is drawn uniformly from this many slots, 0 on."""

    @property
    def airtime_s(self) -> float:
        """Preamble of 192 µs, then body and 43 bytes of headers at the data rate."""
        return 192e-6 + 8.0 * (self.payload_bytes + 43) / (self.rate_kbps * 1000.0)


class Relays(_Section):
    """Store and forward: a car repeats, at its own next tick, what it has newly heard from ahead; once a message."""

    max_hops: Annotated[int, Field(ge=1, le=3)] = 3
    """Most relays a message goes through."""
    cone_deg: Annotated[float, Field(gt=0, le=180)] = 45.0
    """Half angle of the cone around its heading within which the source must lie."""
    per_tick: Annotated[int, Field(ge=1, le=64)] = 8
    """Most messages a car repeats at one tick."""


class Randomisation(_Section):
    """Domain randomisation: ranges of factors drawn uniformly once per training episode."""

    loss_scale: tuple[Factor, Factor] = (1.0, 1.0)
    burst_scale: tuple[Factor, Factor] = (1.0, 1.0)
    latency_scale: tuple[Factor, Factor] = (1.0, 1.0)
    gps_sigma_scale: tuple[Factor, Factor] = (1.0, 1.0)
    noise_scale: tuple[Factor, Factor] = (1.0, 1.0)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Randomisation:
        problems = [
            f"{name} ends at {high:g} below its start {low:g}, swap them"
            for name, (low, high) in self.__dict__.items()
            if low > high
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class RadioParams(_Section):
    """Everything the emulator needs to know; one file of ``params/espnow``."""

    schema_version: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    provenance: Annotated[dict[str, str], Field(min_length=1)]
    """Where each figure comes from, by topic."""
    beacon: Beacon
    loss: Loss
    latency: Latency
    gps: Gps
    noise: Noise
    phy: Phy | None = None
    """The shared medium; none: frames take no time and never meet."""
    relays: Relays | None = None
    """Whether cars repeat each other; none: they do not."""
    stale_after_ms: Annotated[float, Field(ge=100, le=10_000)] = 500.0
    """A peer leaves the table when the newest message of it arrived longer ago."""
    randomisation: Randomisation = Randomisation()

    @model_validator(mode="after")
    def _messages_under_way_fit(self) -> RadioParams:
        longest = self.latency.longest_ms * self.randomisation.latency_scale[1]
        limit = (PENDING_MESSAGES - 1) * self.beacon.interval_ms
        if longest > limit:
            raise ValueError(
                f"latency: may reach {longest:.0f} ms, at beacon.interval_ms {self.beacon.interval_ms:g} at most "
                f"{limit:.0f} ms can be emulated, lower the latency"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all values."""
        document = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(document.encode()).hexdigest()


def least_mean_burst(probability: float) -> float:
    """Mean run of losses when they are independent; a Gilbert–Elliott chain cannot have shorter ones."""
    return 1.0 / (1.0 - probability)


def parse_params(text: str | bytes, where: str) -> RadioParams:
    """Parameters from the JSON of a file.

    Args:
        text: the JSON.
        where: it comes from; begins the message.

    Raises:
        ParamsError: it is not JSON, or holds unknown or impossible values; the message names all of them.
    """
    try:
        json.loads(text)
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError
        raise ParamsError(f"{where}: is not JSON ({error}); correct or replace the file.") from None
    try:
        return RadioParams.model_validate_json(text)
    except ValidationError as error:
        raise ParamsError(f"{where}: {explain(error, RadioParams)}. Correct it.") from None
