"""What a dataset is drawn from, and the envelope outside of which traffic would crash by itself."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from roadsense.convoy.player import DEFAULT_RADIO
from roadsense.convoy.source import BUILT_IN
from roadsense.episode_spec import Range
from roadsense.errors import UsageError

MIN_TAU_S = 0.1
"""Shortest headway of a Krauss peer: one step of reaction, below which it may run into its leader [s]."""

MIN_EMERGENCY_DECEL_MPS2 = 6.0
"""Peers that cannot brake this hard run into each other in hazards [m/s²]."""

MAX_DECEL_AT_LIMITS_MPS2 = 2.5
"""Where limits drop: Krauss slows for every limit with ``decel``, and harder would look like a hazard [m/s²]."""

MIN_EGO_GAP_M = 7.0
"""Smallest bumper gap ahead of the ego at t = 0 [m]."""

MAX_GAP_FACTOR = 1.5
"""Largest bumper gap at t = 0, in units of the smallest one: minGap + v·tau."""

LATEST_ONSET_S = 25.0
"""A later hazard leaves less than 15 s to the end of the episode [s]."""

_BOUNDS: dict[str, tuple[float, float]] = {
    "peer_count": (1, 16),
    "speed_mps": (5.0, 35.0),
    "time_gap_s": (0.8, 3.0),
    "tau": (MIN_TAU_S, 3.0),
    "sigma": (0.0, 1.0),
    "speedFactor": (0.5, 1.5),
    "decel": (1.5, 6.0),
    "spawn_jitter_s": (0.0, 2.0),
    "vehsPerHour": (0.01, 10.0),
    "hazard_share": (0.0, 1.0),
    "hazard_decel_mps2": (0.5, 9.0),
    "hazard_onset_s": (5.0, LATEST_ONSET_S),
    "hazard_release_s": (0.5, 10.0),
    "inattention_s": (0.1, 40.0),
    "reaction_s": (0.0, 2.5),
}
"""Safe values of each range: no hazard drawn within them is physically unavoidable."""


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Each scenario draws uniformly from these; names are SUMO's where SUMO has the quantity."""

    peer_count: tuple[int, int] = (1, 8)
    """Cars ahead of the ego; every count comes up equally often."""
    speed_mps: Range = (8.0, 25.0)
    """Speed of the convoy at t = 0 and cruising speed of its first car [m/s]; lower where limits ask for it."""
    time_gap_s: Range = (0.8, 1.4)
    """Headway the driver of V001 keeps [s]."""
    tau: Range = (0.3, 1.4)
    """Headway each peer keeps [s]."""
    sigma: Range = (0.0, 0.5)
    """Imperfection (dawdling) of each peer."""
    speedFactor: Range = (0.9, 1.1)
    """Desired speed of each car in units of the limit."""
    decel: Range = (2.0, 4.5)
    """Comfortable deceleration of all cars of a convoy [m/s²]; at most 2.5 where limits drop."""
    spawn_jitter_s: Range = (0.0, 0.5)
    """How much later than its headway asks for a car follows at t = 0 [s]."""
    vehsPerHour: Range = (0.7, 1.3)
    """Factor on the background traffic of a base scenario that has any."""
    hazard_share: Range = (0.75, 0.75)
    """Share of a split's scenarios with a hazard; the rest is ordinary driving."""
    hazard_decel_mps2: Range = (3.0, 9.0)
    """Deceleration of a braking peer [m/s²]; drawn anew in every episode."""
    hazard_onset_s: Range = (5.0, 20.0)
    """When it begins to brake [s]; drawn anew in every episode."""
    hazard_release_s: Range = (2.0, 5.0)
    """How long it brakes where it does not brake to a standstill [s]; drawn anew in every episode."""
    inattention_s: Range | None = None
    """How long an inattentive driver stays so [s]; None: to the end of the episode."""
    reaction_s: Range = (0.6, 1.0)
    """Reaction time of the driver [s]."""

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            stated = getattr(self, name)
            if stated is None:
                continue
            low, high = stated
            if not low <= high:
                raise UsageError(f"ranges: {name} is {low} to {high}; state two numbers, the lower one first.")
            if low < least or high > most:
                raise UsageError(
                    f"ranges: {name} is {low} to {high}; the safe envelope is {least} to {most}, stay within it."
                )

    def document(self) -> dict[str, list[float]]:
        """As they stand in a manifest; what is None is left out."""
        return {name: list(pair) for name, pair in dataclasses.asdict(self).items() if pair is not None}


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Everything a dataset depends on; equal configs give byte-identical datasets."""

    seed: int = 0
    """Root of all draws."""
    base_scenarios: tuple[str, ...] = BUILT_IN
    """Roads: names of shipped base scenarios, or directories of others."""
    held_out: tuple[str, ...] = ()
    """Roads that only ``eval`` drives on; none named: the last one."""
    train: int = 120
    """Scenarios of the split ``train``."""
    val: int = 40
    """Scenarios of the split ``val``."""
    eval: int = 60
    """Scenarios of the split ``eval``, over all roads."""
    emulator_params: str = DEFAULT_RADIO
    """Radio parameters that belong to the dataset: a shipped name or a JSON file; copied into it."""
    stalled_share: float = 0.05
    """Share of hazards in which a peer stands still from t = 0."""
    release_share: float = 0.5
    """Share of braking peers that drive on again; drawn anew in every episode."""
    attentive_share: float = 0.2
    """Share of scenarios whose driver sees the hazard for himself."""
    datasets_dir: str = "scenarios/datasets"
    """Where datasets lie, one folder each."""
    dataset_id: str | None = None
    """Name of that folder; none: made of seed and configuration."""
    ranges: Ranges = field(default_factory=Ranges)
    """What scenarios are drawn from."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be at least 0.")
        for name in ("train", "eval"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.val < 0:
            raise UsageError(f"val is {self.val}; it must be at least 0.")
        for name in ("stalled_share", "release_share", "attentive_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        if self.dataset_id is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{2,63}", self.dataset_id):
            raise UsageError(
                f"dataset id {self.dataset_id!r} is not usable; take 3 to 64 of a–z, 0–9, '.', '_' and '-'."
            )

    def choices(self) -> dict[str, Any]:
        """What the content follows from, beside seed, roads, radio and ranges."""
        names = ("train", "val", "eval", "stalled_share", "release_share", "attentive_share")
        return {name: getattr(self, name) for name in names}
