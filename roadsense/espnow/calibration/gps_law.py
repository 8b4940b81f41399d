"""The error of positions while standing: an Ornstein–Uhlenbeck process by its likelihood, with honest intervals.

A stand of a few minutes is a few correlation times long, so σ and τ come with wide intervals (by the profile of the
likelihood); the true place is unknown and estimated with them. Rounding of positions and what a car adds to them
between fixes is a third, white part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.axes import EARTH_M
from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.noise import moving, standing
from roadsense.espnow.calibration.records import Board, Floats
from roadsense.statistics import CONFIDENCE

SHORTEST_S = 60.0
"""Stands that are shorter tell nothing."""

FROZEN_M = 0.3
"""Receivers that hold a standing car still show less than this; their error in motion is then not measured."""

_EVERY_S = 5.0  # between samples
_SEES_HOLDING_MS = 500.0
_WHOLE = 10  # stands are cut to a multiple of so many samples, so that several share one decomposition
_SIGMAS_M = np.geomspace(0.02, 30.0, 90)
_TAUS_S = np.geomspace(2.0, 1000.0, 45)
_WHITES_M = np.array([0.003, 0.03, 0.06, 0.1, 0.14, 0.18, 0.23, 0.3, 0.5])


@dataclass(frozen=True)
class GpsError:
    """Standard deviation per axis and correlation time of the error of positions at rest."""

    sigma_m: Figure
    tau_s: Figure


def holds_fixes(boards: Sequence[Board]) -> tuple[bool, float] | None:
    """Whether positions of moving boards stand still between fixes, and fixes per second.

    None if nobody moved, or all wrote so seldom that a receiver of one fix a second could not be seen to hold them.
    """
    changes, rows, time_s = 0, 0, 0.0
    for board in boards:
        sent, moves = board.sent, moving(board.sent)
        together = moves[1:] & (np.diff(sent.local_ms) > 0.0) & (np.diff(sent.local_ms) < _SEES_HOLDING_MS)
        changes += int((together & ((np.diff(sent.lat_deg) != 0.0) | (np.diff(sent.lon_deg) != 0.0))).sum())
        rows += int(together.sum())
        time_s += float(np.diff(sent.local_ms)[together].sum()) / 1000.0
    if rows < 100:
        return None
    return changes < 0.5 * rows, changes / time_s


def standing_tracks(board: Board) -> list[Floats]:
    """Positions every five seconds of every long stand, one array [m] for each axis."""
    sent, still = board.sent, standing(board.sent)
    still &= np.isfinite(sent.lat_deg) & np.isfinite(sent.lon_deg)
    found = []
    for stand in np.split(np.arange(len(still)), np.flatnonzero(np.diff(still.astype(np.int8))) + 1):
        times_ms = sent.local_ms[stand]
        if not still[stand[0]] or times_ms[-1] - times_ms[0] < 1000.0 * SHORTEST_S:
            continue
        rows = stand[np.searchsorted(times_ms, np.arange(times_ms[0], times_ms[-1], 1000.0 * _EVERY_S))]
        rows = rows[: len(rows) // _WHOLE * _WHOLE]
        lat, lon = np.radians(sent.lat_deg[rows]), np.radians(sent.lon_deg[rows])
        found += [(lat - lat[0]) * EARTH_M, (lon - lon[0]) * EARTH_M * math.cos(lat[0])]
    return found


def gps_error(boards: Sequence[Board], confidence: float = CONFIDENCE) -> GpsError | None:
    """The error at rest over all boards; None if none stood for long."""
    tracks = [track for board in boards for track in standing_tracks(board)]
    if not tracks:
        return None
    likelihood = np.stack([_log_likelihood(tracks, tau_s) for tau_s in _TAUS_S])  # [tau, sigma, white]
    samples = sum(len(track) for track in tracks)
    sigma = _profile("gps sigma at rest", "m", _SIGMAS_M, likelihood.max(axis=(0, 2)), samples, confidence)
    tau = _profile("gps correlation time at rest", "s", _TAUS_S, likelihood.max(axis=(1, 2)), samples, confidence)
    return GpsError(sigma, tau)


def _log_likelihood(tracks: Sequence[Floats], tau_s: float) -> Floats:
    """[sigma, white], restricted to what the unknown true place leaves (REML).

    In the eigenvectors of the correlation every sample has its own variance, whatever sigma and white are.
    """
    total = np.zeros(len(_SIGMAS_M) * len(_WHITES_M))
    for n in sorted({len(track) for track in tracks}):
        lag_s = _EVERY_S * np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        values, vectors = np.linalg.eigh(np.exp(-lag_s / tau_s))
        y = vectors.T @ np.stack([track for track in tracks if len(track) == n], axis=1)  # [sample, track]
        ones = vectors.T @ np.ones(n)
        variance = np.add.outer(_SIGMAS_M[:, None] ** 2 * np.maximum(values, 0.0), _WHITES_M**2)
        variance = variance.swapaxes(1, 2).reshape(-1, n)  # [sigma and white, sample]
        # Not by @: threads of a linear algebra library gain nothing here, and stall where cores are shared.
        sums = np.einsum("vn,nt->vt", 1.0 / variance, np.column_stack([ones**2, y**2, ones[:, None] * y]))
        weight, squares, means = sums[:, 0], sums[:, 1 : y.shape[1] + 1], sums[:, y.shape[1] + 1 :]
        misfit = squares - means**2 / weight[:, None]
        total -= 0.5 * (y.shape[1] * (np.log(variance).sum(1) + np.log(weight)) + misfit.sum(1))
    return total.reshape(len(_SIGMAS_M), len(_WHITES_M))


def _profile(name: str, unit: str, grid: Floats, likelihood: Floats, n: int, confidence: float) -> Figure:
    """The likeliest value and all that a likelihood-ratio test does not refuse; unbounded where the grid ends."""
    from scipy.stats import chi2

    kept = np.flatnonzero(likelihood >= likelihood.max() - 0.5 * float(chi2.ppf(confidence, 1)))
    low = float(grid[kept[0] - 1]) if kept[0] > 0 else 0.0
    high = float(grid[kept[-1] + 1]) if kept[-1] + 1 < len(grid) else math.inf
    return Figure(name, float(grid[likelihood.argmax()]), low, high, n, unit)
