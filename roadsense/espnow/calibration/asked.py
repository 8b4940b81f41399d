"""What a calibration is told beside the logs."""

from __future__ import annotations

from dataclasses import dataclass

from roadsense.statistics import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Choices and assumptions of a calibration."""

    edges_m: tuple[float, ...]
    """Begins of the steps of distance; the first is 0."""
    least_latency_ms: float
    """Assumed where nothing measured it."""
    usual_tail_ms: tuple[float, float]
    """Range of the latency's tail, where too few messages were late."""
    excluded: tuple[str, ...] = ()
    """Links to leave out, ``V003:V001``, sender first."""
    confidence: float = CONFIDENCE
