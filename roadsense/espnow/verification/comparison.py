"""One figure as parameters state it and as the emulator plays it, and how likely a right emulator is so far off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.verification.expected import Floats
from roadsense.statistics import clopper_pearson, clustered_mean

LEAST_EVENTS = 20.0
"""Where fewer are expected, a count is judged by Poisson's bound and not by its spread."""

_LEAST_WORLDS = 5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure of played drives."""

    name: str
    expected: float | None
    """None: the parameters say nothing about it; it is shown and not judged."""
    estimate: float
    low: float
    """Of the 95 % interval."""
    high: float
    n: int
    chance: float | None
    """That a right emulator is at least so far off; None if it is not judged."""
    cars: int = 0
    """In a world; 0: over all drives."""
    relays: bool = False


def judged(name: str, seen: NDArray[Any], expected: Floats, world: NDArray[Any]) -> Iterator[Comparison]:
    """A mean against its expectation; nothing where too few worlds say anything.

    Args:
        name: of the figure.
        seen: [n], 0 or 1, or a value.
        expected: [n], what the parameters say about each.
        world: [n], which worlds they are of; these alone are independent.
    """
    if len(np.unique(world)) < _LEAST_WORLDS:
        return
    mean = clustered_mean(np.asarray(seen, np.float64), world, expected)
    chance = mean.chance
    rare = seen.dtype == np.bool_ and min(expected.sum(), (1.0 - expected).sum()) < LEAST_EVENTS
    if np.all((expected == 0.0) | (expected == 1.0)):
        chance = float(np.array_equal(seen, expected))
    elif rare:
        chance = _rare_chance(seen, expected, world)
    yield Comparison(
        name=name, expected=float(expected.mean()), estimate=mean.value, low=mean.low, high=mean.high, n=len(seen),
        chance=chance,
    )  # fmt: skip


def _rare_chance(seen: NDArray[Any], expected: Floats, world: NDArray[Any]) -> float:
    """Bound on the probability of events in so many worlds: no more of them have one than events are expected."""
    from scipy.stats import poisson

    few = expected.sum() < (1.0 - expected).sum()
    happened, rate = (seen != 0, expected) if few else (seen == 0, 1.0 - expected)
    return float(poisson.sf(len(np.unique(world[happened])) - 1, rate.sum()))


def shown(name: str, seen: NDArray[np.bool_], world: NDArray[Any]) -> Comparison:
    """A share that the parameters say nothing about."""
    mean = clustered_mean(np.asarray(seen, np.float64), world)
    return Comparison(
        name=name, expected=None, estimate=mean.value, low=mean.low, high=mean.high, n=len(seen), chance=None
    )


def never(name: str, wrong: int, n: int) -> Comparison:
    """Something that does not happen, not even rarely."""
    low, high = clopper_pearson(min(wrong, n), n)
    return Comparison(
        name=name, expected=0.0, estimate=wrong / max(1, n), low=low, high=high, n=n, chance=0.0 if wrong else 1.0
    )


def binomial_chance(below: int, up_to: int, total: int, share: float) -> float:
    """Two-sided probability of a count so far off, where values may be exactly at the mark.

    Args:
        below: how many are below it.
        up_to: how many are not above it.
        total: of all.
        share: expected below and expected not above it, at most and at least.
    """
    from scipy.stats import binom

    return float(min(1.0, 2.0 * min(binom.cdf(up_to, total, share), binom.sf(below - 1, total, share))))
