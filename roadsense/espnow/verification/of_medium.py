"""Figures of the common medium and of relays: who meets whom on the air, what is repeated, what the ego has of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Played
from roadsense.espnow.sections import Relays
from roadsense.espnow.verification.comparison import LEAST_EVENTS, Comparison, judged, never, shown
from roadsense.espnow.verification.expected import Floats, still_bad
from roadsense.espnow.verification.links import LinkFrames
from roadsense.espnow.verification.of_links import of_latency

_ONE_TURN_S = 0.02  # frames that a car sends in one go follow each other within that
_SURELY_BEHIND = 8.0  # of the standard deviations of a GPS error
_OFF_THE_ROAD_M = 5.0
_MESSAGE = ["world", "source", "generation"]


def of_medium(params: RadioParams, rows: LinkFrames) -> Iterator[Comparison]:
    """Frames that collide are lost, and those that do not collide do not overlap."""
    collided = ~rows.heard
    yield shown("collided", collided[rows.own], rows.frames["world"][rows.own])
    yield never("collided and yet heard", int((collided & ~rows.lost).sum()), int(collided.sum()))
    if params.phy is None:
        return
    frames = np.unique(rows.frames[["world", "sent_s", "sender", "collided"]])
    overlap_s = frames["sent_s"][:-1] + params.phy.airtime_s - frames["sent_s"][1:]
    meet = (frames["world"][:-1] == frames["world"][1:]) & (overlap_s > params.phy.slot_us * 1e-6 + 1e-9)
    unnoticed = meet & ~(frames["collided"][:-1] & frames["collided"][1:])
    yield never("on the air at once, and not collided", int(unnoticed.sum()), len(frames))


def of_relays(params: RadioParams, relays: Relays, rows: LinkFrames, ahead_m: Floats) -> Iterator[Comparison]:
    """What is relayed goes over the link as it is then, goes once, and comes from ahead.

    Args:
        params: parameters.
        relays: in force.
        rows: frames by link.
        ahead_m: [world, car], how far ahead each car is.
    """
    frames, relayed = rows.frames, ~rows.own
    world, number = frames["world"], int(relayed.sum())
    here = relayed & rows.heard
    missed = rows.loss[rows.own].sum() > LEAST_EVENTS and (1.0 - rows.loss[rows.own]).sum() > LEAST_EVENTS
    if ahead_m.shape[1] > 2 and missed:
        yield never("nothing is relayed", int(number == 0), 1)
    if number == 0:
        return
    yield from judged("loss of relayed frames", rows.lost[here], rows.loss[here], world[here])
    after = here & rows.follows & np.roll(rows.heard, 1) & np.roll(rows.lost, 1) & (rows.since_s < _ONE_TURN_S)
    stays = still_bad(rows.loss, rows.memory, np.where(after, rows.since_s, 0.0))
    yield from judged("relayed frame lost after a loss on its link", rows.lost[after], stays[after], world[after])
    yield from of_latency(params, rows, relayed, "latency of relayed frames")
    told = frames[["world", "sender", "receiver", "source", "generation"]][relayed]
    yield never("relayed more than once by one car", number - len(np.unique(told)), number)
    yield never("relayed too often", int((frames["hops"][relayed] > relays.max_hops).sum()), number)
    lead_m = ahead_m[world, frames["source"]] - ahead_m[world, frames["sender"]]
    if relays.cone_deg <= 90.0:
        behind = lead_m < -_SURELY_BEHIND * params.gps.sigma_m - _OFF_THE_ROAD_M
        yield never("relayed from behind", int((relayed & behind).sum()), number)


def of_table(played: Played) -> Iterator[Comparison]:
    """The ego has what frames brought it, nothing else; and how much of all that is."""
    frames = played.frames[played.frames["receiver"] == 0]
    brought = frames[np.isfinite(frames["arrival_s"]) & (frames["arrival_s"] <= played.end_s)]
    messages, received = len(np.unique(brought[_MESSAGE])), int(played.cars["received_total"][:, 1:].sum())
    yield never("messages in the table that no frame brought, or missing", abs(received - messages), messages)
    sent = np.unique(frames[frames["sender"] == frames["source"]][_MESSAGE])
    arrived = np.isin(sent, np.unique(frames[np.isfinite(frames["arrival_s"])][_MESSAGE]))
    yield shown("delivered in the end", arrived, sent["world"])
