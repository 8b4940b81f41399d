"""Figures of played drives, each with what the parameters say about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.figures import quantile
from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Played
from roadsense.espnow.sections import Placement
from roadsense.espnow.verification.expected import Floats, latency_quantile_ms, link_loss, still_bad
from roadsense.espnow.verification.links import LinkFrames, by_link
from roadsense.statistics import clopper_pearson, clustered_mean

_LEAST_EVENTS = 20.0  # fewer than that expected, and a figure is not estimated
_QUANTILES = (0.5, 0.95, 0.99)
_EPSILON_MS = 1e-6
_ONE_TURN_S = 0.02  # frames that a car sends in one go follow each other within that


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure as the parameters state it and as the emulator plays it."""

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


def of_drive(params: RadioParams, played: Played, relays: bool) -> Iterator[Comparison]:
    """All figures of a drive of many worlds."""
    rows = by_link(played, params)
    yield from _of_links(params, rows)
    yield from _of_latency(params, rows)
    yield _plain("collided", ~rows.heard[rows.own], rows.frames["world"][rows.own])
    if relays:
        yield from _of_relays(rows)
    yield from _of_table(played)


def _of_links(params: RadioParams, rows: LinkFrames) -> Iterator[Comparison]:
    """Loss, bursts and independence of the links, by step of the loss table; collisions left out."""
    one = _take(rows, rows.own)
    generation = one.frames["generation"]
    next_one = one.follows & (np.diff(generation, prepend=generation[0]) == 1) & (np.diff(one.step, prepend=-1) == 0)
    pair = next_one & one.heard & np.roll(one.heard, 1)
    stays = still_bad(one.loss, one.memory, np.where(pair, one.since_s, 0.1))
    world = one.frames["world"]
    was_lost, was_before = np.roll(one.lost, 1), np.roll(one.lost, 2)
    triple = pair & np.roll(pair, 1)
    for step, begin_m in enumerate(params.loss.from_m):
        here = one.heard & (one.step == step)
        where = f"from {begin_m:g} m"
        yield from _judged(f"loss {where}", one.lost[here], one.loss[here], world[here])
        after = pair & was_lost & (one.step == step)
        yield from _judged(f"lost after a loss {where}", one.lost[after], stays[after], world[after])
        three = triple & (one.step == step)
        run, expected = one.lost & was_lost & was_before, one.loss * stays * np.roll(stays, 1)
        yield from _judged(f"three lost in a row {where}", run[three], expected[three], world[three])
    yield from _of_pairs(one)


def _of_pairs(one: LinkFrames) -> Iterator[Comparison]:
    """Of one beacon on the links to two cars: they are lost independently."""
    keys = one.frames[["world", "sender", "generation", "receiver"]]
    order = np.argsort(keys, order=("world", "sender", "generation", "receiver"))
    sender, world, generation = (one.frames[name][order] for name in ("sender", "world", "generation"))
    same = np.zeros(len(order), np.bool_)
    same[1:] = (np.diff(sender) == 0) & (np.diff(world) == 0) & (np.diff(generation) == 0)
    both_heard = same & one.heard[order] & np.roll(one.heard[order], 1)
    lost, loss = one.lost[order], one.loss[order]
    both, expected = lost & np.roll(lost, 1), loss * np.roll(loss, 1)
    yield from _judged("lost on two links at once", both[both_heard], expected[both_heard], world[both_heard])


def _of_latency(params: RadioParams, rows: LinkFrames) -> Iterator[Comparison]:
    """Quantiles of airtime and stack, from the begin of a frame to its arrival."""
    arrived = rows.own & ~rows.lost
    airtime_ms = 1000.0 * params.phy.airtime_s if params.phy else 0.0
    seen = 1000.0 * (rows.frames["arrival_s"] - rows.frames["sent_s"])[arrived]
    constant = params.latency.scale_ms == 0.0 and params.latency.tail_probability == 0.0
    for share in _QUANTILES:
        if len(seen) * (1.0 - share) < _LEAST_EVENTS:
            continue
        expected = airtime_ms + latency_quantile_ms(params.latency, share)
        found = quantile(f"latency p{100 * share:g} [ms]", seen, share, rows.frames["world"][arrived])
        below = int((seen <= expected + _EPSILON_MS).sum())
        exact = bool(np.abs(seen - expected).max() <= _EPSILON_MS)
        yield Comparison(
            name=found.name, expected=expected, estimate=found.value, low=found.low, high=found.high, n=found.n,
            chance=float(exact) if constant else _binomial_chance(below, len(seen), share),
        )  # fmt: skip


def _of_relays(rows: LinkFrames) -> Iterator[Comparison]:
    """What is relayed goes over the link as it is then, and goes once."""
    world, relayed = rows.frames["world"], ~rows.own
    here = relayed & rows.heard
    yield from _judged("loss of relayed frames", rows.lost[here], rows.loss[here], world[here])
    after = here & rows.follows & np.roll(rows.heard, 1) & np.roll(rows.lost, 1) & (rows.since_s < _ONE_TURN_S)
    stays = still_bad(rows.loss, rows.memory, np.where(after, rows.since_s, 0.0))
    yield from _judged("relayed frame lost after a loss on its link", rows.lost[after], stays[after], world[after])
    told = rows.frames[["world", "sender", "receiver", "source", "generation"]][relayed]
    if len(told) > 0:
        yield _exact("relayed more than once by one car", len(told) - len(np.unique(told)), len(told))


def _of_table(played: Played) -> Iterator[Comparison]:
    """The ego has what frames brought it, nothing else; and how much of all that is."""
    frames = played.frames[played.frames["receiver"] == 0]
    key = ["world", "source", "generation"]
    brought = frames[np.isfinite(frames["arrival_s"]) & (frames["arrival_s"] <= played.end_s)]
    messages, received = len(np.unique(brought[key])), int(played.cars["received_total"][:, 1:].sum())
    yield _exact("messages in the table that no frame brought, or missing", abs(received - messages), messages)
    sent = np.unique(frames[frames["sender"] == frames["source"]][key])
    arrived = np.isin(sent, np.unique(frames[np.isfinite(frames["arrival_s"])][key]))
    yield _plain("delivered in the end", arrived, sent["world"])


def of_boards(params: RadioParams, boards: NDArray[np.void]) -> Iterator[Comparison]:
    """Placement over all cars of all drives: its spread, doors, and that the table is the mean."""
    placement = params.placement or Placement(link_sd=0.0)
    offsets, in_door, cars = boards["placement"], boards["in_door"], np.arange(len(boards))
    yield from _judged("placement variance", offsets**2, np.full(len(cars), placement.link_sd**2 / 2), cars)
    low, high = clopper_pearson(int(in_door.sum()), len(in_door))
    yield Comparison(
        name="boards in a door", expected=placement.door_probability, estimate=float(in_door.mean()), low=low,
        high=high, n=len(in_door),
        chance=_binomial_chance(int(in_door.sum()), len(in_door), placement.door_probability),
    )  # fmt: skip
    if placement.link_sd == 0.0:
        return  # all boards are the mean
    pairs = offsets[: len(offsets) // 2 * 2].reshape(-1, 2).sum(1)
    for step, (begin_m, share) in enumerate(zip(params.loss.from_m, params.loss.probability, strict=True)):
        loss, _ = link_loss(params, np.full(len(pairs), step), pairs, np.zeros(len(pairs), np.bool_))
        name = f"mean over boards of the loss from {begin_m:g} m"
        yield from _judged(name, loss, np.full(len(loss), share), np.arange(len(loss)))


def _take(rows: LinkFrames, chosen: NDArray[np.bool_]) -> LinkFrames:
    """Some rows of links, still in order; what follows what is worked out anew."""
    some = {field.name: getattr(rows, field.name)[chosen] for field in dataclasses.fields(rows)}
    frames = some["frames"]
    link = frames[["world", "receiver", "sender"]]
    some["follows"] = np.concatenate([[False], link[1:] == link[:-1]])
    some["since_s"] = np.diff(frames["sent_s"], prepend=np.nan)
    return LinkFrames(**some)


def _judged(name: str, seen: NDArray[Any], expected: Floats, world: NDArray[Any]) -> Iterator[Comparison]:
    """A mean against its expectation, worlds being what is independent; nothing where too little happens."""
    certain = bool(np.all((expected == 0.0) | (expected == 1.0)))
    if len(seen) == 0 or (not certain and min(expected.sum(), (1.0 - expected).sum()) < _LEAST_EVENTS):
        return
    mean = clustered_mean(np.asarray(seen, np.float64), world, expected)
    chance = float(np.array_equal(seen, expected)) if certain else mean.chance
    yield Comparison(
        name=name, expected=float(expected.mean()), estimate=mean.value, low=mean.low,
        high=mean.high, n=len(seen), chance=chance,
    )  # fmt: skip


def _plain(name: str, seen: NDArray[np.bool_], world: NDArray[Any]) -> Comparison:
    mean = clustered_mean(np.asarray(seen, np.float64), world)
    return Comparison(
        name=name, expected=None, estimate=mean.value, low=mean.low, high=mean.high, n=len(seen),
        chance=None,
    )  # fmt: skip


def _exact(name: str, wrong: int, n: int) -> Comparison:
    """Something that never happens, not even rarely."""
    share = wrong / max(1, n)
    low, high = clopper_pearson(min(wrong, n), n)
    return Comparison(
        name=name, expected=0.0, estimate=share, low=low, high=high, n=n,
        chance=0.0 if wrong else 1.0,
    )  # fmt: skip


def _binomial_chance(count: int, total: int, share: float) -> float:
    """Two-sided probability of a count at least so far off."""
    from scipy.stats import binom

    return float(min(1.0, 2.0 * min(binom.cdf(count, total, share), binom.sf(count - 1, total, share))))
