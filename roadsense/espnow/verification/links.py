"""Frames of played drives as sequences on links: what was lost after what."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Played
from roadsense.espnow.verification.expected import Floats, link_loss


@dataclass(frozen=True, kw_only=True)
class LinkFrames:
    """Frames in the order of their links, and on each link in the order of sending; [n] each."""

    frames: NDArray[np.void]
    own: NDArray[np.bool_]
    """The sender's own beacon, not one that it relays."""
    heard: NDArray[np.bool_]
    """Did not collide: whether it was lost tells of the link."""
    lost: NDArray[np.bool_]
    follows: NDArray[np.bool_]
    """The row before is of the same link."""
    since_s: Floats
    """Time since the row before; meaningless where it is of another link."""
    step: NDArray[np.intp]
    """Of the loss table."""
    loss: Floats
    """What the parameters say that this link loses, as its two boards are mounted."""
    memory: Floats
    """And the correlation of its state with itself after 100 ms."""

    def only(self, chosen: NDArray[np.bool_]) -> LinkFrames:
        """Some of the rows, still in order; what follows what is worked out anew."""
        some = {field.name: getattr(self, field.name)[chosen] for field in dataclasses.fields(self)}
        link = some["frames"][["world", "receiver", "sender"]]
        some["follows"] = np.concatenate([np.zeros(min(1, len(link)), np.bool_), link[1:] == link[:-1]])
        some["since_s"] = np.diff(some["frames"]["sent_s"], prepend=np.nan)
        return LinkFrames(**some)


def by_link(played: Played, params: RadioParams) -> LinkFrames:
    """Sorts the frames of a drive by link, with what the parameters say about each."""
    frames = played.frames
    order = np.lexsort((frames["sent_s"], frames["sender"], frames["receiver"], frames["world"]))
    frames = frames[order]
    world, sender, receiver = frames["world"], frames["sender"], frames["receiver"]
    follows = np.zeros(len(frames), np.bool_)
    follows[1:] = (world[1:] == world[:-1]) & (sender[1:] == sender[:-1]) & (receiver[1:] == receiver[:-1])
    step = np.searchsorted([*params.loss.from_m, params.loss.range_m], frames["distance_m"], side="right") - 1
    boards = played.cars
    offset = boards["placement"][world, sender] + boards["placement"][world, receiver]
    in_door = boards["in_door"][world, sender] | boards["in_door"][world, receiver]
    loss, memory = link_loss(params, step, offset, in_door)
    return LinkFrames(
        frames=frames, own=sender == frames["source"], heard=~frames["collided"], lost=np.isinf(frames["arrival_s"]),
        follows=follows, since_s=np.diff(frames["sent_s"], prepend=np.nan), step=step, loss=loss, memory=memory,
    )  # fmt: skip
