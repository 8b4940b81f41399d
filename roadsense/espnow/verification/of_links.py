"""Figures of links: loss, bursts, independence, distance, latency. Collided frames say nothing about a link."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.figures import quantile
from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Played
from roadsense.espnow.verification.comparison import LEAST_EVENTS, Comparison, binomial_chance, judged, never
from roadsense.espnow.verification.expected import Floats, latency_quantile_ms, still_bad
from roadsense.espnow.verification.links import LinkFrames, by_link

_QUANTILES = (0.5, 0.95, 0.99)
_EPSILON_MS = 1e-6


def of_links(params: RadioParams, rows: LinkFrames) -> Iterator[Comparison]:
    """Loss and bursts of the links, by step of the loss table, and their independence."""
    one = rows.only(rows.own)
    generation = one.frames["generation"]
    next_one = one.follows & (np.diff(generation, prepend=generation[:1]) == 1) & (np.diff(one.step, prepend=-1) == 0)
    pair = next_one & one.heard & np.roll(one.heard, 1)
    stays = still_bad(one.loss, one.memory, np.where(pair, one.since_s, 0.1))
    world = one.frames["world"]
    was_lost, was_before = np.roll(one.lost, 1), np.roll(one.lost, 2)
    triple = pair & np.roll(pair, 1)
    for step, begin_m in enumerate(params.loss.from_m):
        here = one.heard & (one.step == step)
        where = f"from {begin_m:g} m"
        yield from judged(f"loss {where}", one.lost[here], one.loss[here], world[here])
        after = pair & was_lost & (one.step == step)
        yield from judged(f"lost after a loss {where}", one.lost[after], stays[after], world[after])
        three = triple & (one.step == step)
        run, expected = one.lost & was_lost & was_before, one.loss * stays * np.roll(stays, 1)
        yield from judged(f"three lost in a row {where}", run[three], expected[three], world[three])
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
    yield from judged("lost on two links at once", both[both_heard], expected[both_heard], world[both_heard])


def of_latency(params: RadioParams, rows: LinkFrames, chosen: NDArray[np.bool_], what: str) -> Iterator[Comparison]:
    """Quantiles of airtime and stack, from the begin of a frame to its arrival."""
    arrived = chosen & ~rows.lost
    airtime_ms = 1000.0 * params.phy.airtime_s if params.phy else 0.0
    seen = 1000.0 * (rows.frames["arrival_s"] - rows.frames["sent_s"])[arrived]
    for share in _QUANTILES:
        if len(seen) * (1.0 - share) < LEAST_EVENTS:
            continue
        expected = airtime_ms + latency_quantile_ms(params.latency, share)
        found = quantile(f"{what} p{100 * share:g} [ms]", seen, share, rows.frames["world"][arrived])
        below, up_to = int((seen < expected - _EPSILON_MS).sum()), int((seen <= expected + _EPSILON_MS).sum())
        yield Comparison(
            name=found.name, expected=expected, estimate=found.value, low=found.low, high=found.high, n=found.n,
            chance=binomial_chance(below, up_to, len(seen), share),
        )  # fmt: skip


def of_distance(params: RadioParams, played: Played) -> Iterator[Comparison]:
    """Of cars that part, through all steps of the table and out of range."""
    rows = by_link(played, params)
    one = rows.only(rows.own)
    within, world = one.step < len(params.loss.from_m), one.frames["world"]
    here = within & one.heard
    yield from judged("loss while cars part", one.lost[here], _expected_on_the_way(one)[here], world[here])
    yield never("heard from out of range", int((~within & ~one.lost).sum()), int((~within).sum()))


def _expected_on_the_way(one: LinkFrames) -> Floats:
    """Probability that each beacon is lost on links whose loss changes: the state is handed on from step to step."""
    expected, kept = one.loss.copy(), one.memory ** (np.where(one.follows, one.since_s, 0.0) / 0.1)
    first = np.maximum.accumulate(np.where(one.follows, 0, np.arange(len(expected))))
    place = np.arange(len(expected)) - first
    for number in range(1, int(place.max(initial=0)) + 1):
        row = np.flatnonzero(place == number)
        expected[row] += (expected[row - 1] - one.loss[row]) * kept[row]
        expected[row[one.loss[row] == 0.0]] = 0.0  # nothing stays bad where nothing is ever lost
    return expected
