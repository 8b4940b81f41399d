"""One episode as a page to look at: played again, because episodes are deterministic, and written as one HTML file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import roadsense
from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.observation import PEER_FEATURES
from roadsense.convoy.picture import MAX_FRAMES
from roadsense.convoy.player import Player
from roadsense.convoy.trace import EpisodeTrace, hazard_happened
from roadsense.convoy.world import MAX_PEERS, NEVER, EndReason, HazardKind
from roadsense.errors import UsageError
from roadsense.evaluation.evaluate import find_policy
from roadsense.evaluation.metrics import time_to_collision
from roadsense.evaluation.rollout import EVALUATION_SEED, play
from roadsense.files import write_text
from roadsense.policies.base import Policy
from roadsense.traffic.base import STEP_S

SHOWN_TTC_S = 60.0
"""Longer times to collision are told as none [s]."""

_TEMPLATE = "replay.html"


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Which list of episodes the replayed one stands in; as in an evaluation."""

    dataset_dir: str | None = None
    """Root of a dataset; None: the built-in scenarios."""
    split: str = "eval"
    """Which of its lists is walked."""
    radio: str | None = None
    """Radio parameters instead of the dataset's."""
    engine: str = "sumo"
    """Who moves the cars: ``sumo`` (the reference), ``native``, ``auto`` or ``traci``."""
    max_peers: int = MAX_PEERS
    """Cars that a world has room for beside V001."""


def read_address(episode: str) -> tuple[str, int]:
    """Policy and number of an episode's address, ``<policy>:<number>``.

    Raises:
        UsageError: it is none.
    """
    policy, colon, number = episode.rpartition(":")
    if not colon or not policy or not (number.isascii() and number.isdigit()):
        raise UsageError(f"episode {episode!r} is no address; give <policy>:<number>, as in v2v_rule:17 or runs/s7:0.")
    return policy, int(number)


def open_player(policy: Policy, config: ReplayConfig) -> Player:
    """The world that a policy's episodes are played in, keeping what drawing needs."""
    return Player(
        1, dataset_dir=config.dataset_dir, split=config.split, radio=config.radio, engine=config.engine,
        control=policy.control, max_peers=config.max_peers, messages_per_peer=policy.messages_per_peer,
        max_frames=MAX_FRAMES,
    )  # fmt: skip


def replay(episode: str, config: ReplayConfig, html: Path) -> EpisodeTrace:
    """Plays an episode of an evaluation's list again and writes its page.

    Args:
        episode: its address, ``<policy>:<number>``; the policy as in ``roadsense evaluate``.
        config: which list.
        html: where to write the page.

    Raises:
        UsageError: the address is none, or the policy or the split is unknown.
        RoadsenseError: something cannot be played, or the page cannot be written.
    """
    name, number = read_address(episode)
    policy = find_policy(name)
    player = open_player(policy, config)
    try:
        (trace,) = play(policy, player, 1, first=number, picture=True)
        write_text(html, page(document(trace, policy, player, number, config)))
    finally:
        player.close()
    return trace


def document(
    trace: EpisodeTrace, policy: Policy, player: Player, number: int, config: ReplayConfig
) -> dict[str, Any]:  # fmt: skip
    """All that the page shows, as plain values; None where there is nothing. The same episode gives the same document.

    Args:
        trace: with its picture.
        policy, player: who decided, and what was played in.
        number: of the episode in its list.
        config: which list.
    """
    picture = trace.picture
    assert picture is not None, "the trace was recorded without"
    used = np.flatnonzero(trace.alive.any(axis=0))
    names = [picture.names[car] if car < len(picture.names) else f"car {car + 1}" for car in used]
    column = np.full(trace.alive.shape[1], -1)
    column[used] = np.arange(len(used))
    alive = trace.alive[:, used]
    origin = (float(picture.x_m[0, 0]), float(picture.y_m[0, 0]))
    return {
        "about": {
            "policy": policy.name, "privileged": policy.privileged, "control": policy.control, "number": number,
            "scenario": trace.scenario_id, "split": config.split, "dataset": config.dataset_dir,
            "dataset_digest": player.source.digest, "radio": player.params.name,
            "radio_digest": player.params.digest, "engine": player.engine, "root_seed": str(EVALUATION_SEED),
            "seed": str(trace.seed), "roadsense": roadsense.__version__, **dict(policy.origin),
        },
        "end": EndReason(trace.end_reason).name.lower(),
        "impact_speed_mps": _number(trace.impact_speed_mps, 2),
        "hazard": _hazard(trace, column),
        "step_s": STEP_S, "steps": trace.num_steps, "max_brake_mps2": MAX_BRAKE_MPS2,
        "names": names, "length_m": _column(trace.length_m[:, used].max(axis=0), 2),
        "road": [_column(picture.road[:, axis] - origin[axis], 2) for axis in (0, 1)],
        "cars": {
            "x": _by_car(picture.x_m[:, used] - origin[0], 2, alive),
            "y": _by_car(picture.y_m[:, used] - origin[1], 2, alive),
            "heading": _by_car(picture.heading_rad[:, used], 4, alive),
            "speed": _by_car(trace.speed_mps[:, used], 2, alive),
            "accel": _by_car(trace.accel_mps2[:, used], 2, alive),
            "silent": np.logical_not(picture.transmits[:, used].any(axis=0)).tolist(),
        },
        "own": {
            "x": _column(picture.own_x_m - origin[0], 2), "y": _column(picture.own_y_m - origin[1], 2),
            "heading": _column(picture.own_heading_rad, 4), "speed": _column(picture.own_speed_mps, 2),
        },
        "told": {
            "x": _by_car(picture.heard.x_m[:, used] - origin[0], 2),
            "y": _by_car(picture.heard.y_m[:, used] - origin[1], 2),
            "heading": _by_car(picture.heard.heading_rad[:, used], 4),
            "speed": _by_car(picture.heard.speed_mps[:, used], 2),
            "accel": _by_car(picture.heard.accel_mps2[:, used], 2),
            "age_ms": _by_car(1000.0 * picture.heard.age_s[:, used], 0),
            "hops": _by_car(picture.heard.hops[:, used], 0),
        },
        "gap_m": _column(trace.gap_m, 2), "closing_mps": _column(trace.closing_speed_mps, 2),
        "ttc_s": _column(_shown_ttc(trace), 2), "needed_mps2": _column(trace.required_decel_mps2, 2),
        "phase": trace.hazard_phase.tolist(),
        "leader": [int(column[leader]) if leader >= 0 else None for leader in trace.leader],
        "action": _column(trace.action, 3), "demand_mps2": _column(trace.demand_mps2, 2),
        "driver_mps2": _column(trace.driver_accel_mps2, 2), "reward": _column(trace.reward, 3),
        "frames": _frames(picture.frames, column), "frames_left_out": picture.frames_left_out,
        "stale_after_ms": player.params.stale_after_ms,
        "sees_m": PEER_FEATURES[0].high * PEER_FEATURES[0].scale,
    }  # fmt: skip


def _hazard(trace: EpisodeTrace, column: NDArray[np.int64]) -> dict[str, Any] | None:
    if trace.hazard_kind == HazardKind.NONE:
        return None
    over = min(trace.over_step, trace.num_steps) if trace.over_step < NEVER else None
    return {
        "kind": HazardKind(trace.hazard_kind).name.lower(), "rank": trace.hazard_rank,
        "target": int(column[trace.hazard_target]), "decel_mps2": _number(trace.hazard_decel_mps2, 2),
        "onset": trace.onset_step, "over": over, "happened": hazard_happened(trace),
        "inattentive_from": trace.inattentive_from if trace.inattentive_from < NEVER else None,
        "attentive_from": trace.attentive_from if trace.attentive_from < NEVER else None,
    }  # fmt: skip


def _shown_ttc(trace: EpisodeTrace) -> NDArray[np.float64]:
    ttc = time_to_collision(trace.gap_m, trace.closing_speed_mps)
    return np.where(ttc <= SHOWN_TTC_S, ttc, np.nan)


def _frames(frames: NDArray[np.void], column: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Frames as columns; ``sent`` and ``arrived`` in milliseconds, null: lost."""
    return {
        "sent": _column(1000.0 * frames["sent_s"], 1), "arrived": _column(1000.0 * frames["arrival_s"], 1),
        "from": column[frames["sender"]].tolist(), "to": column[frames["receiver"]].tolist(),
        "of": column[frames["source"]].tolist(), "hops": frames["hops"].tolist(),
        "collided": frames["collided"].astype(int).tolist(),
    }  # fmt: skip


def _number(value: float, digits: int) -> float | None:
    """A number that JSON can hold, None for all others."""
    if not math.isfinite(value):
        return None
    return round(value, digits) if digits else round(value)


def _column(values: ArrayLike, digits: int) -> list[float | None]:
    return [_number(value, digits) for value in np.asarray(values, np.float64).tolist()]


def _by_car(values: NDArray[np.float64], digits: int, here: NDArray[np.bool_] | None = None) -> list[Any]:
    """One list over time a car; None where it is not here."""
    if here is not None:
        values = np.where(here, values, np.nan)
    return [_column(values[:, car], digits) for car in range(values.shape[1])]


def page(shown: dict[str, Any]) -> str:
    """The HTML file of a document: it holds everything and asks no network for anything."""
    template = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    about = shown["about"]
    title = escape(f"{about['policy']}, episode {about['number']}")
    data = json.dumps(shown, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # no text of it may end the element that holds it
    return template.replace("%TITLE%", title).replace("%DATA%", data)
