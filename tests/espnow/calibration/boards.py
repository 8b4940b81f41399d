"""Three boards that drive as a convoy, played by the emulator, and the csv files they would have written."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Motion, Played, play
from roadsense.espnow.profiles import read_params

NAMES = ("V001", "V002", "V003")
ORIGIN_DEG = (50.1, 8.6)
EARTH_M = 6_371_008.8
COLUMNS = (
    "lat", "lon", "speed", "heading", "accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z",
    "mag_x", "mag_y", "mag_z", "hop_count", "source_mac",
)  # fmt: skip
STEP_S = 0.1

STAGES = ((240.0, 0.0, 11.0, 31.0), (330.0, 14.0, 35.0, 38.0), (330.0, 17.0, 75.0, 76.0), (260.0, 0.0, 11.0, 31.0))
"""Seconds, speed, and the gaps behind the middle and the first car of each stage of the drive."""


@dataclass(frozen=True)
class Faults:
    """What went wrong in a drive."""

    bad_link: tuple[str, str] | None = ("V003", "V001")
    """Sender and receiver of a link that loses ``bad_loss`` in bursts of ``bad_burst``."""
    bad_loss: float = 0.85
    bad_burst: float = 14.5
    gap: tuple[str, float, float] | None = ("V002", 400.0, 440.0)
    """A board that wrote nothing from and until a time."""
    rx_gap: tuple[str, float, float] | None = ("V003", 900.0, 915.0)
    """A board that wrote no receptions."""
    reset: tuple[str, float, float] | None = ("V003", 700.0, 708.0)
    """A board that was off from a time and booted at another."""


TRUTH = {
    "beacon": {"interval_ms": 100.0, "drift_ppm_sd": 40.0},
    "loss": {
        "from_m": [0.0, 20.0, 50.0, 100.0], "probability": [0.05, 0.13, 0.2, 0.33],
        "mean_burst": [1.25, 1.6, 2.0, 2.5], "range_m": 450.0,
    },
    "latency": {"shift_ms": 0.9, "shape": 1.0, "scale_ms": 1.4, "tail_probability": 0.006, "tail_ms": [10.0, 50.0]},
    "gps": {"rate_hz": 1.0, "sigma_m": 1.5, "tau_s": 30.0, "extrapolate": True},
    "noise": {"speed_mps": 0.3, "accel_mps2": 0.25, "heading_deg": 3.0},
    "placement": None,
}  # fmt: skip
"""What the drive is played with, beside ``phy`` and ``relays`` of the profile convoy. Placement would give every link a
table of its own; the gamma of shape 1 is the one that the emulator's table of quantiles has without rounding."""


def true_params() -> RadioParams:
    document = read_params("convoy").model_dump(mode="json") | TRUTH
    return RadioParams.model_validate_json(json.dumps(document))


NONE = Faults(bad_link=None, gap=None, rx_gap=None, reset=None)


def convoy_motion(stages=STAGES) -> Motion:
    """Cars that go through the stages on a slow bend; speeds and gaps change smoothly, with some stop and go."""
    steps = round(sum(stage[0] for stage in stages) / STEP_S)
    time_s = STEP_S * np.arange(steps)
    table = np.array(stages)
    stage = np.searchsorted(np.cumsum(table[:, 0]), time_s, side="right")
    wanted = table[stage, 1] * (1.0 + 0.15 * np.sign(np.sin(2 * np.pi * time_s / 40.0)))
    speed, x = np.zeros((steps, 3)), np.zeros((steps, 3))
    x[0] = (0.0, table[0, 2], table[0, 2] + table[0, 3])
    ramp = np.zeros(steps)
    for i in range(1, steps):
        ramp[i] = ramp[i - 1] + np.clip(wanted[i] - ramp[i - 1], -0.15, 0.12)
    smooth = np.convolve(np.pad(ramp, 20, mode="edge"), np.ones(41) / 41.0, mode="valid")  # no jerk that cars have not
    for i in range(1, steps):
        lead = float(smooth[i])
        aim = np.array([0.0, 0.0, lead])
        for car in (1, 0):  # each behind the one ahead, towards the stage's gap
            error = x[i - 1, car + 1] - x[i - 1, car] - table[stage[i], 2 + car]
            aim[car] = np.clip(aim[car + 1] + 0.1 * error, 0.0, 40.0)
            if lead == 0.0 and abs(error) < 0.5:
                aim[car] = 0.0
        speed[i] = np.clip(aim, speed[i - 1] - 0.3, speed[i - 1] + 0.25)
        x[i] = x[i - 1] + STEP_S * speed[i]
    radius_m, begin_rad = 3000.0, 0.3
    heading = begin_rad + x / radius_m
    truth = {
        "x_m": radius_m * (np.sin(heading) - np.sin(begin_rad)),
        "y_m": radius_m * (np.cos(begin_rad) - np.cos(heading)),
        "speed_mps": speed,
        "accel_mps2": np.diff(speed, axis=0, prepend=speed[:1]) / STEP_S,
        "heading_rad": heading,
    }
    return Motion(**{name: values[:, None, :] for name, values in truth.items()})  # one world


def _chain(rng: np.random.Generator, n: int, loss: float, burst: float) -> np.ndarray:
    """A Gilbert–Elliott chain over frames."""
    leave, enter = 1.0 / burst, loss / ((1.0 - loss) * burst)
    draws, state, found = rng.random(n), rng.random() < loss, np.zeros(n, bool)
    for i in range(n):
        state = draws[i] >= leave if state else draws[i] < enter
        found[i] = state
    return found


def play_drive(params: RadioParams, seed: int, faults: Faults, stages=STAGES) -> Played:
    """The drive; on the bad link whatever its chain says is lost beside what the emulator loses."""
    played = play(params, [seed], convoy_motion(stages), contents=True)
    frames = played.frames.copy()
    if faults.bad_link:
        sender, receiver = (NAMES.index(name) for name in faults.bad_link)
        over = np.flatnonzero((frames["sender"] == sender) & (frames["receiver"] == receiver))
        lost = _chain(np.random.default_rng(seed), len(over), faults.bad_loss, faults.bad_burst)
        frames["arrival_s"][over[lost]] = np.inf
    return replace(played, frames=frames)


def clock_ms(played: Played, faults: Faults, car: int, t_s: np.ndarray) -> np.ndarray:
    """What a board's clock shows in whole milliseconds, begun anew where it was reset."""
    local = played.local_ms(car, t_s)
    if faults.reset and NAMES[car] == faults.reset[0]:
        boot_ms = played.local_ms(car, np.array(faults.reset[2]))
        local = np.where(np.asarray(t_s) >= faults.reset[2], local - boot_ms + 800.0, local)
    return np.floor(local)


def _writes(faults: Faults, car: int, t_s: np.ndarray, reception: bool) -> np.ndarray:
    kept = np.ones(len(t_s), bool)
    for hole in (faults.gap, faults.reset, faults.rx_gap if reception else None):
        if hole and hole[0] == NAMES[car]:
            kept &= (t_s < hole[1]) | (t_s >= hole[2])
    return kept


def write_logs(folder: Path, played: Played, faults: Faults, seed: int = 0) -> None:
    """Writes ``V001_tx.csv``, ``V001_rx.csv`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, beacons = played.frames, played.beacons
    index = {(int(b["car"]), int(b["generation"])): i for i, b in enumerate(beacons)}
    of = np.array([index.get((int(f["source"]), int(f["generation"])), -1) for f in frames])
    stamps = np.zeros(len(beacons))
    for car in range(len(NAMES)):
        mine = beacons["car"] == car
        stamps[mine] = clock_ms(played, faults, car, beacons["sent_s"][mine])
    cells = _cells(beacons, np.random.default_rng(seed))
    usable = of >= 0
    if faults.reset:  # off: it neither sends nor hears
        off = (frames["sent_s"] >= faults.reset[1]) & (frames["sent_s"] < faults.reset[2])
        usable &= ~(off & (frames["sender"] == NAMES.index(faults.reset[0])))
    for car, name in enumerate(NAMES):
        sent = np.flatnonzero((frames["sender"] == car) & usable)
        keys = np.stack([frames["source"][sent], frames["generation"][sent]], axis=1)
        sent = np.sort(sent[np.unique(keys, axis=0, return_index=True)[1]])
        heard = np.flatnonzero((frames["receiver"] == car) & np.isfinite(frames["arrival_s"]) & usable)
        heard = heard[np.argsort(frames["arrival_s"][heard], kind="stable")]
        for kind, vehicle, rows, when in (
            ("tx", "vehicle_id", sent, "sent_s"), ("rx", "from_vehicle_id", heard, "arrival_s"),
        ):  # fmt: skip
            rows = rows[_writes(faults, car, frames[when][rows], kind == "rx")]
            local = clock_ms(played, faults, car, frames[when][rows])
            lines = [
                [f"{at:.0f}", f"{stamps[i]:.0f}", NAMES[beacons["car"][i]], *cells[i], str(hops), "02:00:00:00:00:01"]
                for at, i, hops in zip(local, of[rows], frames["hops"][rows], strict=True)
            ]
            with (folder / f"{name}_{kind}.csv").open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("timestamp_local_ms", "msg_timestamp", vehicle, *COLUMNS))
                writer.writerows(lines)


def _cells(beacons: np.ndarray, rng: np.random.Generator) -> list[list[str]]:
    """What each beacon tells, as it stands in the files; coordinates are float32 on the wire."""
    lat = np.float32(ORIGIN_DEG[0] + np.degrees(beacons["y_m"] / EARTH_M))
    lon = np.float32(ORIGIN_DEG[1] + np.degrees(beacons["x_m"] / (EARTH_M * np.cos(np.radians(ORIGIN_DEG[0])))))
    heading = (90.0 - np.degrees(beacons["heading_rad"])) % 360.0
    other = rng.normal(0.0, 0.2, (8, len(beacons)))
    other[1] += 9.81
    texts = [[f"{value:.7f}" for value in column] for column in (lat, lon)]
    texts += [[f"{v:.4f}" for v in one] for one in (beacons["speed_mps"], heading, beacons["accel_mps2"], *other)]
    return [list(row) for row in zip(*texts, strict=True)]
