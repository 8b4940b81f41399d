"""Figures of boards: how they are mounted, what that does to their links, and their clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Played
from roadsense.espnow.sections import Placement
from roadsense.espnow.verification.comparison import Comparison, binomial_chance, judged
from roadsense.espnow.verification.expected import link_loss
from roadsense.espnow.verification.links import LinkFrames
from roadsense.statistics import clopper_pearson

_BADLY_SDS = 0.43  # a third of all boards are mounted worse than that many deviations
_NEAR = 0.1  # of an interval


def of_ends(params: RadioParams, played: Played, rows: LinkFrames) -> Iterator[Comparison]:
    """Loss of links by the board at either end: both count alike."""
    placement = params.placement or Placement(link_sd=0.0)
    world = rows.frames["world"]
    for end in ("sender", "receiver"):
        boards = played.cars[world, rows.frames[end]]
        badly = rows.own & rows.heard & (boards["placement"] > _BADLY_SDS * placement.link_sd / np.sqrt(2.0))
        in_door = rows.own & rows.heard & boards["in_door"]
        if placement.link_sd > 0.0:
            yield from judged(f"loss with a badly mounted {end}", rows.lost[badly], rows.loss[badly], world[badly])
        if placement.door_probability > 0.0:
            name = f"loss with the {end}'s board in a door"
            yield from judged(name, rows.lost[in_door], rows.loss[in_door], world[in_door])


def of_boards(params: RadioParams, drives: Sequence[NDArray[np.void]]) -> Iterator[Comparison]:
    """Over all cars of all drives: placement and its spread, doors, clocks and phases; the table is the mean.

    Args:
        params: parameters.
        drives: [world, car] of ``CAR_DTYPE`` each.
    """
    placement = params.placement or Placement(link_sd=0.0)
    boards = np.concatenate([cars.ravel() for cars in drives])
    offsets, in_door, each = boards["placement"], boards["in_door"], np.arange(len(boards))
    yield from judged("placement variance", offsets**2, np.full(len(each), placement.link_sd**2 / 2), each)
    low, high = clopper_pearson(int(in_door.sum()), len(each))
    yield Comparison(
        name="boards in a door", expected=placement.door_probability, estimate=float(in_door.mean()), low=low,
        high=high, n=len(each),
        chance=binomial_chance(int(in_door.sum()), int(in_door.sum()), len(each), placement.door_probability),
    )  # fmt: skip
    if placement.link_sd > 0.0:  # else all boards are the mean
        pairs = offsets[: len(offsets) // 2 * 2].reshape(-1, 2).sum(1)
        for step, (begin_m, share) in enumerate(zip(params.loss.from_m, params.loss.probability, strict=True)):
            loss, _ = link_loss(params, np.full(len(pairs), step), pairs, np.zeros(len(pairs), np.bool_))
            name = f"mean over boards of the loss from {begin_m:g} m"
            yield from judged(name, loss, np.full(len(loss), share), np.arange(len(loss)))
    yield from _of_clocks(params, drives, boards)


def _of_clocks(
    params: RadioParams, drives: Sequence[NDArray[np.void]], boards: NDArray[np.void]
) -> Iterator[Comparison]:
    each, beacon = np.arange(len(boards)), params.beacon
    drift_ppm = 1e6 * (1.0 / boards["clock_rate"] - 1.0)
    yield from judged("clock drift variance [ppm²]", drift_ppm**2, np.full(len(each), beacon.drift_ppm_sd**2), each)
    low_s, high_s = beacon.running_s
    shown_s = (boards["clock_s"] - low_s) / max(high_s - low_s, 1e-9)
    if high_s > low_s:
        yield from judged("clocks at t = 0, of their range", shown_s, np.full(len(each), 0.5), each)
    apart = np.concatenate([cars["beacon_phase_s"][:, 1] - cars["beacon_phase_s"][:, 0] for cars in drives])
    share = np.abs((1000.0 * apart / beacon.interval_ms + 0.5) % 1.0 - 0.5) < _NEAR
    yield from judged(
        "phases of two cars near each other", share, np.full(len(share), 2 * _NEAR), np.arange(len(share))
    )
