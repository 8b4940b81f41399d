"""Responsibility-Sensitive Safety: the gap from which a car can still stop behind one that brakes as hard as it can.

Constants ``rss_v2v``: a car that hears of the braking by radio answers within half a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RSS_RESPONSE_S = 0.5
"""Response time ρ [s]."""

RSS_ACCEL_MPS2 = 2.6
"""Acceleration a that the follower may have while it responds [m/s²]."""

RSS_MIN_BRAKE_MPS2 = 4.5
"""Least braking of the follower, once it responds [m/s²]."""

RSS_MAX_BRAKE_MPS2 = 9.0
"""Hardest braking of the car ahead [m/s²]."""


def rss_distance(speed_mps: Any, lead_speed_mps: Any) -> Any:
    """Safe longitudinal distance [m] at speed v behind a car at speed v_l; numbers or arrays [m/s].

    max(0, vρ + ½aρ² + (v + ρa)²/(2b_min) − v_l²/(2b_max)). Source: Shalev-Shwartz, Shammah, Shashua, arXiv:1708.06374.
    """
    faster = speed_mps + RSS_RESPONSE_S * RSS_ACCEL_MPS2
    responding = speed_mps * RSS_RESPONSE_S + 0.5 * RSS_ACCEL_MPS2 * RSS_RESPONSE_S**2
    stopping = faster**2 / (2.0 * RSS_MIN_BRAKE_MPS2) - lead_speed_mps**2 / (2.0 * RSS_MAX_BRAKE_MPS2)
    return np.maximum(0.0, responding + stopping)
