"""What a sweep is told beside the configuration of its trainings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roadsense.errors import UsageError
from roadsense.training.ray_connection import check_address

OWN_RAY, WITHOUT_RAY = "local", "none"
"""Addresses of a Ray of the sweep's own, and of no Ray at all."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """How a training is swept."""

    seeds: int = 5
    """Trainings of each point: with --seed, and from there on in steps of the largest --n-envs, so that no two share a
    world."""
    grid: str | None = None
    """What is varied: a shipped grid by name, or a YAML file; none: the configuration alone."""
    run_dir: Path = Path("runs/sweep")
    """Folder of the sweep, with one run folder for each trial."""
    ray_address: str = OWN_RAY
    """``local`` (a Ray of its own, where Ray is installed), ``auto`` or ``host:port`` of a cluster, or ``none``: one
    trial after another in this process."""
    cpus_per_trial: int | None = None
    """CPUs that a trial takes of Ray's; none: as many as --torch-threads."""
    at_once: int | None = None
    """Most trials at a time; none: as many as Ray has CPUs for."""

    def __post_init__(self) -> None:
        for name in ("seeds", "cpus_per_trial", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1.")
        check_address(self.ray_address, OWN_RAY, WITHOUT_RAY)
