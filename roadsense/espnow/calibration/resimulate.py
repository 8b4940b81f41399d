"""The logged drive, played again by the emulator with the fitted parameters, measured like the logs."""

from __future__ import annotations

import json

import numpy as np

from roadsense.espnow.calibration.axes import EARTH_M
from roadsense.espnow.calibration.clocks import BLOCK_S
from roadsense.espnow.calibration.latency_law import ClockError
from roadsense.espnow.calibration.matching import local_times
from roadsense.espnow.calibration.measure import Measured
from roadsense.espnow.calibration.records import Board, Floats
from roadsense.espnow.calibration.traces import Link
from roadsense.espnow.clock import STEP_S
from roadsense.espnow.params import RadioParams, parse_params
from roadsense.espnow.play import Motion, Played, play

LONGEST_S = 1800.0
"""Of a longer drive only the begin is played again."""

SEEDS = (1, 2, 3)
"""Each is one repetition of the drive."""


def resimulate(measured: Measured, params: RadioParams) -> list[Link]:
    """The links of the logged drive as the emulator plays them; none where the boards never drove together.

    Differences by placement are left out: the fitted table is that of these boards, wherever they lay.
    """
    motion = logged_motion(measured)
    if motion is None:
        return []
    document = params.model_dump(mode="json") | {"placement": None, "alarms": None}
    plain = parse_params(json.dumps(document), "re-simulated parameters")
    worlds = {name: np.repeat(values, len(SEEDS), axis=1) for name, values in vars(motion).items()}
    played = play(plain, SEEDS, Motion(**worlds))
    return [
        _link(played, world, sender, receiver, measured)
        for world in range(len(SEEDS))
        for sender in range(len(measured.boards))
        for receiver in range(len(measured.boards))
        if sender != receiver
    ]


def logged_motion(measured: Measured) -> Motion | None:
    """Where the boards said they were while all of them were recording, every 0.1 s by the first one's clock."""
    if len(measured.boards) < 2:
        return None
    first = measured.boards[0]
    epoch = int(np.bincount(first.sent.epoch).argmax())
    tracks = [_track(board, first, epoch, measured) for board in measured.boards]
    if any(len(times_ms) < 2 for times_ms, _ in tracks):
        return None
    begin_ms, end_ms = max(times[0] for times, _ in tracks), min(times[-1] for times, _ in tracks)
    end_ms = min(end_ms, begin_ms + 1000.0 * LONGEST_S)
    grid_ms = np.arange(begin_ms, end_ms, 1000.0 * STEP_S)
    if len(grid_ms) < 100:
        return None
    rows = np.stack([[np.interp(grid_ms, times, one) for one in values] for times, values in tracks])
    lat, lon, speed, heading = rows.transpose(1, 2, 0)[:, :, None, :]  # [quantity, step, world, car]
    zero = np.zeros_like(speed)
    east = np.radians(lon - lon[0, 0, 0]) * EARTH_M * np.cos(np.radians(lat[0, 0, 0]))
    north = np.radians(lat - lat[0, 0, 0]) * EARTH_M
    return Motion(x_m=east, y_m=north, speed_mps=speed, accel_mps2=zero, heading_rad=np.radians(90.0 - heading))


def _track(board: Board, first: Board, epoch: int, measured: Measured) -> tuple[Floats, list[Floats]]:
    """A board's times by the first one's clock, and latitude, longitude, speed and unwrapped heading then."""
    sent = board.sent
    times_ms = np.full(len(sent.local_ms), np.nan)
    for own in np.unique(sent.epoch).tolist():
        here = sent.epoch == own
        if board is first:
            times_ms[here] = sent.local_ms[here] if own == epoch else np.nan
        else:
            by_epoch = local_times(board, first, measured.clocks, own, sent.local_ms[here])
            times_ms[here] = by_epoch.get(epoch, np.full(int(here.sum()), np.nan))
    known = np.isfinite(times_ms) & np.isfinite(sent.lat_deg) & np.isfinite(sent.lon_deg)
    order = np.flatnonzero(known)[np.argsort(times_ms[known], kind="stable")]
    heading = np.degrees(np.unwrap(np.radians(np.nan_to_num(sent.heading_deg[order]))))
    return times_ms[order], [sent.lat_deg[order], sent.lon_deg[order], np.nan_to_num(sent.speed_mps[order]), heading]


def _link(played: Played, world: int, sender: int, receiver: int, measured: Measured) -> Link:
    frames = played.frames
    own = (frames["sender"] == sender) & (frames["source"] == sender) & (frames["receiver"] == receiver)
    frames = frames[own & (frames["world"] == world)]
    names = [board.name for board in measured.boards]
    latency_ms = 1000.0 * (frames["arrival_s"] - frames["sent_s"])
    rng = np.random.Generator(np.random.Philox(key=(world, 100 * sender + receiver)))
    latency_ms += clock_noise_ms(measured.clock_error, len(frames), rng)
    latency_ms[~np.isfinite(latency_ms)] = np.nan
    return Link(
        names[sender], names[receiver], frames["generation"].astype(np.int64), ~np.isfinite(frames["arrival_s"]),
        np.diff(frames["generation"], prepend=-(10**9)) == 1, frames["distance_m"].astype(np.float64), latency_ms,
        ~frames["collided"], np.ones(len(frames), np.bool_), np.full(len(frames), 1000 * world),
        (10**6 * world + frames["sent_s"] // BLOCK_S).astype(np.int64),
    )  # fmt: skip


def clock_noise_ms(error: ClockError, n: int, rng: np.random.Generator) -> Floats:
    """What clocks of that resolution add to n latencies."""
    return error.step_ms * np.sum([rng.random(n) - 0.5 for _ in range(error.times)], axis=0)
