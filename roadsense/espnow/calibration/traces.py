"""What became of every frame on every link: heard or lost, how late, over which distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.clocks import BLOCK_S
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.matching import Clocks, Match, Matches, local_times
from roadsense.espnow.calibration.places import EARTH_M
from roadsense.espnow.calibration.recording import beacon_interval_ms, recording
from roadsense.espnow.calibration.records import Board, Bools, Floats, Ints, LogSet, Sent

LONGEST_MS = 1000.0
"""What is later than that was not under way: a clock or a stamp is wrong."""

FARTHEST_M = 5000.0
"""No board is heard from further away, so positions that say so are wrong, or the frame tells nothing."""

_POSITION_MS = 2000.0  # a position is taken to hold between fixes that are no further apart, or two beacons

_CLEAR_MS = (4.0, 1.0)  # another board's frame may keep the medium busy for that long, and start that much earlier


@dataclass(frozen=True)
class Link:
    """All frames of a sender that a receiver could have heard, in order; arrays are [frame]."""

    sender: str
    receiver: str
    frame: Ints
    """Which of the sender's own frames."""
    lost: Bools
    follows: Bools
    """Whether it is the sender's very next frame after the one before it here."""
    distance_m: Floats
    """By the positions both told; NaN where one told none."""
    latency_ms: Floats
    """As the clocks showed it; NaN where lost. Above the pair's least latency by an exact amount."""
    free: Bools
    """Whether no other board's frame was near, so that it need not have waited for the medium."""
    two_way: Bools
    """Whether both directions of the pair were heard, which makes the latency absolute."""
    stretch: Ints
    """Epochs of the sender's and the receiver's clock, 1000 · the one + the other."""
    block: Ints
    """Ten-second block of its time of sending."""

    @property
    def name(self) -> str:
        return f"{self.sender}→{self.receiver}"


def trace_links(logs: LogSet, matches: Matches, clocks: Clocks, findings: Findings) -> list[Link]:
    """All links of all boards that have an RX file."""
    links = []
    boards = {board.name: board for board in logs.boards}
    usual_ms = beacon_interval_ms([board.sent.stamp_ms for board in logs.boards])
    every_ms = {board.name: beacon_interval_ms([board.sent.stamp_ms], usual_ms) for board in logs.boards}
    spans = {
        board.name: recording(board, every_ms[board.name], _others_ms(board, logs, clocks), findings)
        for board in logs.boards
        if board.heard is not None
    }
    for (sender, receiver), match in sorted(matches.items()):
        link = _trace(
            boards[sender], boards[receiver], match, clocks, spans[receiver], every_ms[sender], boards, findings
        )
        if len(link.lost):
            links.append(link)
        elif any({sender, receiver} == {one, other} for one, other, _, _ in clocks):
            findings.add("no_overlap", link.name, "were never recorded at the same time; not used")
    return links


def _others_ms(board: Board, logs: LogSet, clocks: Clocks) -> dict[int, Floats]:
    """When other boards sent their own frames, by the clock of one board, in order and by its epoch."""
    found: dict[int, list[Floats]] = {}
    for other in logs.boards:
        for epoch in np.unique(other.sent.epoch).tolist() if other is not board else []:
            stamps_ms = other.sent.stamp_ms[other.sent.epoch == epoch]
            for own, local_ms in local_times(other, board, clocks, epoch, stamps_ms).items():
                found.setdefault(own, []).append(local_ms)
    return {epoch: np.sort(np.concatenate(parts)) for epoch, parts in found.items()}


def _trace(
    sender: Board, receiver: Board, match: Match, clocks: Clocks, spans: dict[int, list[tuple[float, float]]],
    interval_ms: float, boards: dict[str, Board], findings: Findings,
) -> Link:  # fmt: skip
    sent = sender.sent
    n = len(sent.stamp_ms)
    observed, two_way, free = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.ones(n, np.bool_)
    expected_ms, span = np.full(n, np.nan), np.full(n, -1, np.int64)
    distance, stretch = np.full(n, np.nan), np.zeros(n, np.int64)
    for epoch in np.unique(sent.epoch).tolist():
        here = np.flatnonzero(sent.epoch == epoch)
        for other, local_ms in local_times(sender, receiver, clocks, epoch, sent.stamp_ms[here]).items():
            for number, (first, last) in enumerate(spans.get(other, ())):
                inside = (local_ms >= first) & (local_ms <= last)
                inside &= (match.epoch[here] == other) | (match.epoch[here] < 0)  # heard in another one: not in this
                seen = here[inside]
                observed[seen], span[seen], expected_ms[seen] = True, 1000 * other + number, local_ms[inside]
                stretch[seen] = 1000 * epoch + other
                two_way[seen] = _is_two_way(clocks, sender.name, receiver.name, epoch, other)
                distance[seen] = _distances_m(sent, seen, receiver.sent, other, local_ms[inside])
        for name, board in boards.items():
            if name != sender.name:
                free[here] &= _free(board, local_times(sender, board, clocks, epoch, sent.stamp_ms[here]), len(here))
    far = observed & (distance > FARTHEST_M)
    if far.any():
        text = f"{int(far.sum())} frames of {int(observed.sum())} went further than {FARTHEST_M / 1000.0:g} km by the"
        findings.add("too_far", f"{sender.name}→{receiver.name}", f"{text} positions of both; not counted by distance")
        distance[far] = np.nan
    arrived = ~np.isnan(match.arrival_ms)
    frame = np.flatnonzero(observed)
    gap_ms = np.diff(sent.stamp_ms[frame], prepend=-np.inf)
    follows = (gap_ms > 0) & (gap_ms < 1.5 * interval_ms) & (np.diff(span[frame], prepend=-1) == 0)
    latency = match.arrival_ms[frame] - expected_ms[frame]
    latency[~np.isfinite(latency)] = np.nan
    wrong = np.abs(latency) > LONGEST_MS
    if wrong.any():
        text = f"{int(wrong.sum())} messages seem to take more than {LONGEST_MS:g} ms; their times are not used"
        findings.add("impossible_time", f"{sender.name}→{receiver.name}", text)
        latency[wrong] = np.nan
    block = (sent.epoch[frame] * 1_000_000 + sent.stamp_ms[frame] // (1000.0 * BLOCK_S)).astype(np.int64)
    return Link(
        sender.name, receiver.name, frame, ~arrived[frame], follows, distance[frame], latency, free[frame],
        two_way[frame], stretch[frame], block,
    )  # fmt: skip


def _is_two_way(clocks: Clocks, one: str, other: str, epoch: int, other_epoch: int) -> bool:
    clock = clocks.get((one, other, epoch, other_epoch)) or clocks.get((other, one, other_epoch, epoch))
    return clock is not None and clock.two_way


def _free(board: Board, local: dict[int, Floats], count: int) -> Bools:
    """Which moments lie well clear of a board's frames; all where the two clocks were never compared."""
    free = np.ones(count, np.bool_)
    for epoch, times_ms in local.items():
        aired = np.sort(board.aired[1][board.aired[0] == epoch])
        if len(aired):
            first = np.searchsorted(aired, times_ms - _CLEAR_MS[0])
            free &= np.searchsorted(aired, times_ms + _CLEAR_MS[1], "right") == first
    return free


def _distances_m(sent: Sent, frames: Ints, other: Sent, epoch: int, other_ms: Floats) -> Floats:
    """Distance at the times of some frames; the other board's position is interpolated between its own frames."""
    track = (other.epoch == epoch) & np.isfinite(other.lat_deg) & np.isfinite(other.lon_deg)
    if track.sum() < 2:
        return np.full(len(frames), np.nan)
    order = np.argsort(other.local_ms[track], kind="stable")
    times = other.local_ms[track][order]
    lat, lon = (np.interp(other_ms, times, values[track][order]) for values in (other.lat_deg, other.lon_deg))
    nearest = np.searchsorted(times, other_ms).clip(1, len(times) - 1)
    longest_ms = max(_POSITION_MS, 2.5 * beacon_interval_ms([other.stamp_ms]))
    unknown = times[nearest] - times[nearest - 1] > longest_ms
    lat[unknown | (other_ms < times[0] - longest_ms) | (other_ms > times[-1] + longest_ms)] = np.nan
    north = np.radians(sent.lat_deg[frames] - lat) * EARTH_M
    east = np.radians(sent.lon_deg[frames] - lon) * EARTH_M * np.cos(np.radians(lat))
    return np.asarray(np.hypot(north, east))
