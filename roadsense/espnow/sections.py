"""The sections of radio parameters, each with its units, bounds and defaults."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

LOSS_BINS = 32
"""Most distance steps of a loss table."""

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=10)]


class Section(BaseModel):
    """A part of a params file: unknown keys, NaN and numbers written as text are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Beacon(Section):
    """When a car sends; its phase within the interval is drawn anew for every episode."""

    interval_ms: Annotated[float, Field(ge=20, le=1000)] = 100.0
    """Nominal time between two beacons of a car."""
    drift_ppm_sd: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """Standard deviation over cars of the relative error of a car's clock, by which it also sends, in parts per
    million."""
    running_s: tuple[Annotated[float, Field(ge=10, le=1e6)], Annotated[float, Field(ge=10, le=1e6)]] = (10.0, 600.0)
    """How long a board has been running at t = 0, drawn uniformly: what its clock, which is in its messages, shows."""

    @model_validator(mode="after")
    def _range_ascends(self) -> Beacon:
        if self.running_s[0] > self.running_s[1]:
            raise ValueError(
                f"running_s ends at {self.running_s[1]:g} below its start {self.running_s[0]:g}, swap them"
            )
        return self


class Loss(Section):
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


class Latency(Section):
    """Time from sending to arrival: shift + gamma(shape, scale), and rarely a uniform ``tail_ms`` on top.

    Where ``phy`` is in force, this is what the two boards' software takes: waiting for the medium and airtime come on
    top.
    """

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


class Gps(Section):
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


class Noise(Section):
    """Standard deviations of the white noise of a car's other sensors, drawn at every tick."""

    speed_mps: Annotated[float, Field(ge=0, le=10)]
    accel_mps2: Annotated[float, Field(ge=0, le=20)]
    heading_deg: Annotated[float, Field(ge=0, le=90)]


class Phy(Section):
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


class Relays(Section):
    """Store and forward: a car repeats, at its own next tick, what it has newly heard from ahead; once a message."""

    max_hops: Annotated[int, Field(ge=1, le=3)] = 3
    """Most relays a message goes through."""
    cone_deg: Annotated[float, Field(gt=0, le=180)] = 45.0
    """Half angle of the cone around its heading within which the source must lie."""
    per_tick: Annotated[int, Field(ge=1, le=64)] = 3
    """Most messages a car repeats at one tick, drawn if there are more; with many, a crowd fills the medium."""


class Placement(Section):
    """How a board is mounted decides more than distance: every car has its own offset, anew in every episode.

    A link's loss is the standard normal distribution at (margin of the table + both cars' offsets); the margins are
    such that the table is the mean over cars.
    """

    link_sd: Annotated[float, Field(ge=0, le=3)] = 0.3
    """Standard deviation over links of that margin; half of its variance comes from each car."""
    door_probability: Share = 0.0
    """Share of cars whose board lies in a door, which spoils all their links."""
    door_loss: Share = 0.85
    """Loss of such links, at the least."""
    door_burst: Annotated[float, Field(ge=1, le=10_000)] = 14.5
    """Mean run of losses on such links, at the least."""


class Propagation(Section):
    """A frame's power at the receiver: log-distance loss, shadowing, cars in between, fading; then a logistic error.

    Defaults: 1 Mbps boards of 20 dBm in the open, of whose frames 59 % arrive at 300 m; 60 % in Espressif's field test.
    """

    power_dbm: Annotated[float, Field(ge=-40, le=40)] = 20.0
    sensitivity_dbm: Annotated[float, Field(ge=-130, le=0)] = -98.0
    """Power at which half of the frames are lost."""
    error_width_db: Annotated[float, Field(gt=0, le=10)] = 1.0
    """A decibel more power divides the odds of a loss by e to the power of one over this."""
    loss_1m_db: Annotated[float, Field(ge=0, le=120)] = 40.0
    """Path loss at 1 m: free space at 2.4 GHz."""
    exponent: Annotated[float, Field(ge=1, le=6)] = 3.0
    """Path loss grows by ten times this many decibels with every tenfold distance."""
    blocking_db: Annotated[float, Field(ge=0, le=40)] = 10.0
    """Lost for every car that stands between the two."""
    shadow_sd_db: Annotated[float, Field(ge=0, le=20)] = 3.5
    """Standard deviation of slow changes along the road."""
    shadow_corr_m: Annotated[float, Field(gt=0, le=1000)] = 20.0
    """Distance travelled, by both cars together, over which the correlation of these falls to 1/e."""
    fading_m: tuple[Annotated[float, Field(ge=0.5, le=100)], Annotated[float, Field(ge=0.5, le=100)]] = (1.5, 0.75)
    """Nakagami's m near and far: the smaller, the deeper frames fade."""
    fading_far_from_m: Annotated[float, Field(ge=0, le=100_000)] = 80.0


class Alarms(Section):
    """False alarms: now and then a car tells that it brakes hard while it does not, and the speed that it would have.

    Who lies is drawn anew for every alarm from the cars that send, V001 excepted. Where it is, the liar tells truly. If
    it leaves the road, another one goes on.
    """

    every_s: Annotated[float, Field(ge=1, le=1000)] = 10.0
    """Time from the begin of one alarm to the next; the first begins at this time."""
    lasts_s: Annotated[float, Field(ge=0.1, le=100)] = 2.0
    decel_mps2: Annotated[float, Field(gt=0, le=20)] = 8.0


class Randomisation(Section):
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


def least_mean_burst(probability: float) -> float:
    """Mean run of losses when they are independent; a Gilbert–Elliott chain cannot have shorter ones."""
    return 1.0 / (1.0 - probability)
