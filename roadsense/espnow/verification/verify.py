"""The closed loop: plays what parameters say, estimates them again, and judges all figures as one family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.params import RadioParams
from roadsense.espnow.play import Motion, Played, play
from roadsense.espnow.sections import Relays
from roadsense.espnow.verification.comparison import Comparison
from roadsense.espnow.verification.expected import Floats
from roadsense.espnow.verification.links import by_link
from roadsense.espnow.verification.of_boards import of_boards, of_ends
from roadsense.espnow.verification.of_links import of_distance, of_latency, of_links
from roadsense.espnow.verification.of_medium import of_medium, of_relays, of_table
from roadsense.progress import progress_bar

SEED = 20_261_121
"""Of the first drive; the others follow. It was written down before the first run and is not changed to pass."""

CAR_COUNTS = (2, 3, 4, 6, 8)
MIN_BEACONS = 100_000
"""Sent by peers, for every number of cars, with and without relays."""

FAMILY_ERROR = 0.001
"""With m figures, one that lies outside its 1 − 0.001/m interval fails the family: right ones do so once in 1000."""

_STEPS = 200
_SPACING_M, _SPEED_MPS = 4.0, 20.0
_PARTING = 200  # worlds of two cars that part


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All figures, and whether they agree with the parameters."""

    params: RadioParams
    figures: tuple[Comparison, ...]

    @property
    def judged(self) -> tuple[Comparison, ...]:
        return tuple(figure for figure in self.figures if figure.chance is not None)

    @property
    def outside(self) -> tuple[Comparison, ...]:
        """Figures outside of their 1 − 0.001/m interval."""
        bound = FAMILY_ERROR / max(1, len(self.judged))
        return tuple(one for one in self.judged if one.chance is not None and one.chance < bound)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "params": self.params.name, "digest": self.params.digest, "seed": SEED, "family_error": FAMILY_ERROR,
            "judged": len(self.judged), "agrees": not self.outside,
            "outside": [dataclasses.asdict(one) for one in self.outside],
            "figures": [dataclasses.asdict(one) for one in self.figures],
        }  # fmt: skip


def verify(
    params: RadioParams,
    car_counts: tuple[int, ...] = CAR_COUNTS,
    beacons: int = MIN_BEACONS,
    *,
    progress: bool = False,
) -> Verdict:
    """Plays every number of cars, with and without relays, and compares.

    Physics of propagation and false alarms are left out: what they do has no closed form, or is no figure of a radio.

    Args:
        params: to verify; relays are in force once and out of force once, whatever they say.
        car_counts: numbers of cars.
        beacons: least number that peers send in each.
        progress: whether to show a bar on stderr.
    """
    links = params.model_copy(update={"propagation": None, "alarms": None})
    per_world = (_STEPS - 2) * 100.0 / params.beacon.interval_ms  # the first and the last may be cut
    seed, found, boards = SEED, list[Comparison](), list[NDArray[np.void]]()
    drives = [(cars, relays) for cars in car_counts for relays in (None, params.relays or Relays())]
    with progress_bar(len(drives) + 1, "drive", visible=progress) as bar:
        for cars, relays in drives:
            worlds = math.ceil(beacons / (per_world * (cars - 1)))
            ahead_m = _line_ups(params, cars, worlds)
            played = play(
                links.model_copy(update={"relays": relays}), range(seed, seed + worlds),
                Motion.straight(ahead_m, _SPEED_MPS, _STEPS),
            )  # fmt: skip
            found += [
                dataclasses.replace(figure, cars=cars, relays=relays is not None)
                for figure in _of_drive(params, played, relays, ahead_m)
            ]
            boards.append(played.cars)
            seed += worlds
            bar.update()
        parting = play(links.model_copy(update={"relays": None}), range(seed, seed + _PARTING), _parting(params))
        found += of_distance(params, parting)
        bar.update()
    found += of_boards(params, boards)
    return Verdict(params=params, figures=tuple(found))


def _of_drive(params: RadioParams, played: Played, relays: Relays | None, ahead_m: Floats) -> Iterator[Comparison]:
    rows = by_link(played, params)
    yield from of_links(params, rows)
    yield from of_ends(params, played, rows)
    yield from of_latency(params, rows, rows.own, "latency")
    yield from of_medium(params, rows)
    if relays is not None:
        yield from of_relays(params, relays, rows, ahead_m)
    yield from of_table(played)


def _line_ups(params: RadioParams, cars: int, worlds: int) -> Floats:
    """Peers close together, in turn within every step of the loss table, ahead of the ego; [world, car]."""
    edges = np.array([*params.loss.from_m, params.loss.range_m])
    room = np.diff(edges)
    length = _SPACING_M * (cars - 2)
    starts = edges[:-1] + np.where(room > length, np.minimum(0.5 * (room - length), 30.0), 0.25 * room)
    ahead_m = np.zeros((worlds, cars))
    ahead_m[:, 1:] = starts[np.arange(worlds) % len(starts), None] + _SPACING_M * np.arange(cars - 1)
    return ahead_m


def _parting(params: RadioParams) -> Motion:
    """Two cars that part until they are out of range."""
    still = Motion.straight(np.zeros((_PARTING, 2)), 0.0, _STEPS)
    x_m = still.x_m.copy()
    x_m[:, :, 1] = (1.1 * params.loss.range_m * np.arange(_STEPS) / _STEPS)[:, None]
    return dataclasses.replace(still, x_m=x_m)


def table(verdict: Verdict) -> str:
    """All figures as lines of text, and the verdict as the last."""
    rows = [("cars", "relays", "figure", "expected", "estimate", "95 % interval", "n", "")]
    outside = set(map(id, verdict.outside))
    for one in verdict.figures:
        rows.append((
            str(one.cars or "all"), "yes" if one.relays else "no" if one.cars else "", one.name,
            "" if one.expected is None else f"{one.expected:.5g}", f"{one.estimate:.5g}",
            f"[{one.low:.5g}, {one.high:.5g}]", f"{one.n:,}", "OUTSIDE" if id(one) in outside else "",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    wrong, judged = len(verdict.outside), len(verdict.judged)
    told = f"{wrong} of {judged} figures lie outside of" if wrong else f"all {judged} figures lie within"
    last = f"{verdict.params.name}: {told} their 1 − {FAMILY_ERROR:g}/{judged} intervals (seed {SEED})"
    return "\n".join([*lines, "", last])
