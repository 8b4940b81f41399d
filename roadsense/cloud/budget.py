"""What a job may cost: computed at its worst before the start, and kept to during it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from roadsense.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Caps on hours and money.

    Raises:
        UsageError: a cap or a price is no positive number, workers have no price or a price no workers, or the
            worst case costs more than the cap.
    """

    max_hours: float = 4.0
    """Hours that the job may take, all its attempts together [h]."""
    max_usd: float | None = None
    """What it may cost, all its attempts together [USD]; needs --usd-per-hour."""
    usd_per_hour: float | None = None
    """Price of the machine that the job runs on, or of the cluster's head [USD/h]."""
    worker_usd_per_hour: float | None = None
    """Highest price of one worker [USD/h]; none: there are no workers."""
    max_workers: int | None = None
    """Workers that the cluster may have: `max_workers` of its file; none: there are no workers."""
    reserve_s: float = 300.0
    """Kept back from the caps, for the last checkpoint and the upload [s]."""

    def __post_init__(self) -> None:
        for name in ("max_hours", "max_usd", "usd_per_hour"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{_flag(name)} is {value}; give a number above 0.")
        for name in ("worker_usd_per_hour", "max_workers", "reserve_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{_flag(name)} is {value}; give a number from 0 on.")
        if self.max_workers and not self.worker_usd_per_hour:
            raise UsageError(
                f"--max-workers {self.max_workers} would count as free; give the highest price of one by"
                " --worker-usd-per-hour."
            )
        if self.worker_usd_per_hour and not self.max_workers:
            raise UsageError(
                f"--worker-usd-per-hour {self.worker_usd_per_hour:g} is the price of no worker; give --max-workers, or"
                " leave it out."
            )
        if self.max_hours * 3600 <= self.reserve_s:
            raise UsageError(
                f"--max-hours {self.max_hours:g} leaves nothing once {self.reserve_s:g} s are kept back for the upload;"
                " give more."
            )
        if self.max_usd is None:
            return
        if self.usd_per_hour is None:
            raise UsageError("--max-usd needs the price of the machine; give --usd-per-hour too.")
        if round(self.worst_usd - self.max_usd, 6) > 0:  # 3 h × .1 USD/h are not above .3 USD
            raise UsageError(
                f"the worst case is {self.worst_case()}, above --max-usd {self.max_usd:g}; give fewer hours or workers,"
                " or a higher cap."
            )

    @property
    def worst_usd_per_hour(self) -> float:
        """What an hour costs with every worker there is room for [USD/h]; 0 where no price is given."""
        return (self.usd_per_hour or 0.0) + (self.max_workers or 0) * (self.worker_usd_per_hour or 0.0)

    @property
    def worst_usd(self) -> float:
        """What it costs at most: all hours, with all workers [USD]."""
        return self.max_hours * self.worst_usd_per_hour

    def worst_case(self) -> str:
        """The worst case as a sum that can be checked."""
        workers = f" + {self.max_workers} × {self.worker_usd_per_hour:g}" if self.max_workers else ""
        return f"{self.max_hours:g} h × ({self.usd_per_hour or 0:g}{workers}) USD/h = {self.worst_usd:.2f} USD"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Meter:
    """Counts hours and money of a job, and says when a cap is near.

    Money is counted at the worst case's rate, whatever number of workers is there: the job can not see all of them.

    Args:
        budget: the caps.
        used_hours: hours of earlier attempts, or of this machine before the job began [h].
        clock: seconds that only grow.
    """

    def __init__(self, budget: Budget, used_hours: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget, self.used_hours, self._clock, self._begun = budget, used_hours, clock, clock()

    @property
    def hours(self) -> float:
        """Hours so far, earlier attempts included [h]."""
        return self.used_hours + (self._clock() - self._begun) / 3600

    def reached(self) -> str | None:
        """Which cap is reached once what is kept back is spent too, as a sentence; None while there is room."""
        budget = self.budget
        hours = self.hours + budget.reserve_s / 3600
        if hours >= budget.max_hours:
            return f"the cap of {budget.max_hours:g} hours is reached"
        if budget.max_usd is not None and hours * budget.worst_usd_per_hour >= budget.max_usd:
            return f"the cap of {budget.max_usd:g} USD is reached"
        return None
