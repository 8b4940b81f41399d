"""One episode as a page to look at: played again, because episodes are deterministic, and written as one HTML file."""

from __future__ import annotations

import dataclasses
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
from roadsense.convoy.trace import EpisodeTrace, hazard_happened
from roadsense.convoy.world import NEVER, EndReason, HazardKind
from roadsense.errors import UsageError
from roadsense.espnow.params import RadioParams
from roadsense.evaluation.evaluate import EpisodeList, EvaluationConfig, ListConfig, find_policy, open_worlds
from roadsense.evaluation.rollout import play_all
from roadsense.evaluation.surrogates import time_to_collision
from roadsense.files import write_text
from roadsense.policies.base import BatchPolicy
from roadsense.traffic.base import STEP_S
from roadsense.traffic.engines import choose_engine

SHOWN_TTC_S = 60.0
"""Longer times to collision are told as none [s]."""

_TEMPLATE = "replay.html"


def read_address(episode: str) -> tuple[str, int]:
    """Policy and number of an episode's address, ``<policy>:<number>``.

    Raises:
        UsageError: it is none.
    """
    policy, colon, number = episode.rpartition(":")
    if not colon or not policy or not (number.isascii() and number.isdigit()):
        raise UsageError(f"episode {episode!r} is no address; give <policy>:<number>, as in v2v_rule:17 or runs/s7:0.")
    return policy, int(number)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """An episode that was played again, and where it stands."""

    trace: EpisodeTrace
    """With its picture."""
    policy: BatchPolicy
    number: int
    listed: str
    """The list it stands in, in words."""
    identity: dict[str, Any]
    engine: str
    radio: RadioParams


def play_again(episode: str, config: ListConfig) -> Replayed:
    """Plays an episode of an evaluation's list.

    Args:
        episode: its address, ``<policy>:<number>``; the policy as in ``roadsense evaluate``.
        config: which list.

    Raises:
        UsageError: the address is none, or the policy, the list or the number is unknown.
        RoadsenseError: something cannot be played.
    """
    name, number = read_address(episode)
    policy = find_policy(name)
    stated = {one.name: getattr(config, one.name) for one in dataclasses.fields(config)}
    asked = EvaluationConfig(**stated, episodes=None if config.suite is not None else number + 1)
    listed = EpisodeList(asked)
    try:
        if number >= len(listed.episodes):
            raise UsageError(
                f"suite {config.suite} has {len(listed.episodes)} episodes from 0 on; there is no {number}."
            )
        chosen = listed.episodes[number]
        engine = choose_engine(config.engine, [chosen.scenario])
        worlds = open_worlds(policy, engine, 1, listed.max_peers, MAX_FRAMES)
        try:
            (trace,) = play_all(policy, worlds, [chosen], picture=True)
        finally:
            worlds.close()
    finally:
        listed.close()
    where = f"suite {config.suite}" if config.suite is not None else config.split
    bucket = next((bucket.name for bucket in listed.buckets if number in bucket.episodes), "")
    return Replayed(
        trace=trace, policy=policy, number=number, listed=f"{where}, {bucket}" if bucket else where,
        identity={**listed.identity, "dataset": config.dataset_dir}, engine=engine, radio=chosen.radio,
    )  # fmt: skip


def replay(episode: str, config: ListConfig, html: Path) -> EpisodeTrace:
    """Plays an episode of an evaluation's list again and writes its page.

    Args:
        episode: its address, ``<policy>:<number>``; the policy as in ``roadsense evaluate``.
        config: which list.
        html: where to write the page.

    Raises:
        as :func:`play_again`, and RoadsenseError where the page cannot be written.
    """
    again = play_again(episode, config)
    write_text(html, page(document(again)))
    return again.trace


def document(again: Replayed) -> dict[str, Any]:
    """All that the page shows, as plain values; None where there is nothing. An episode always gives the same one."""
    trace, policy, identity = again.trace, again.policy, again.identity
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
            "policy": policy.name, "privileged": policy.privileged, "control": policy.control, "number": again.number,
            "scenario": trace.scenario_id, "split": again.listed, "dataset": identity["dataset"],
            "suite_digest": (identity["suite"] or {}).get("digest"), "dataset_digest": identity["dataset_digest"],
            "radio": again.radio.name, "radio_digest": again.radio.digest, "engine": again.engine,
            "root_seed": str(identity["root_seed"]),
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
        "stale_after_ms": again.radio.stale_after_ms,
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
