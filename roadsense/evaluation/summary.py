"""From episodes to one row a policy: every figure with its n and its interval."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from roadsense.evaluation.metrics import COLUMNS, EVENTS_VERSION, EpisodeMetrics
from roadsense.files import write_text
from roadsense.statistics import CONFIDENCE, clopper_pearson, cluster_bootstrap


def _proportion(flags: Sequence[bool]) -> dict[str, Any]:
    count, total = sum(flags), len(flags)
    low, high = clopper_pearson(count, total)
    return {"count": count, "n": total, "rate": count / total if total else None, "low": low, "high": high}


def _ratio(episodes: Sequence[EpisodeMetrics], top: Sequence[float], bottom: Sequence[float]) -> dict[str, Any]:
    low, high = cluster_bootstrap(top, bottom, [episode.scenario_id for episode in episodes])
    total = sum(bottom)
    return {"n": len(episodes), "value": _number(sum(top) / total if total else math.nan), "low": _number(low),
            "high": _number(high)}  # fmt: skip


def _number(value: float) -> float | None:
    """JSON knows no NaN or infinity."""
    return float(value) if math.isfinite(value) else None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Quantiles of the values that are numbers and how many there are; infinity counts as the largest.

    Each is a value that occurred: the next lower one below the median, the next higher one from it on.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) == 0:
        return {"n": 0, "min": None, "p05": None, "p50": None, "p95": None, "max": None}
    low = np.percentile(known, [0, 5], method="lower")
    high = np.percentile(known, [50, 95, 100], method="higher")
    names = ("min", "p05", "p50", "p95", "max")
    return {"n": len(known), **{name: _number(float(q)) for name, q in zip(names, [*low, *high], strict=True)}}


def summarise(policy: str, episodes: Sequence[EpisodeMetrics]) -> dict[str, Any]:
    """Aggregates the episodes of one policy.

    Proportions carry exact Clopper–Pearson bounds, ratios a bootstrap interval by scenario, both at 95 %. Invalid
    episodes (peers touched) are counted and left out of everything else.
    """
    valid = [episode for episode in episodes if episode.valid]
    hazards = [episode for episode in valid if episode.hazard_happened]
    planned = [episode for episode in valid if episode.hazard_kind != "none"]
    called = [episode for episode in hazards if episode.hazard_called]
    free = [episode for episode in valid if episode.hazard_kind == "none"]
    ones = [1.0] * len(valid)
    return {
        "policy": policy,
        "events_version": EVENTS_VERSION,
        "confidence": CONFIDENCE,
        "episodes": len(valid),
        "invalid_episodes": len(episodes) - len(valid),
        "average_reward": _ratio(valid, [episode.total_reward for episode in valid], ones),
        "collisions": _proportion([episode.collision for episode in valid]),
        "collisions_in_hazards": _proportion([episode.collision for episode in hazards]),
        "collisions_without_hazard": _proportion([episode.collision for episode in free]),
        "rear_contacts": _proportion([episode.rear_contact for episode in valid]),
        "truncations": _proportion([episode.truncated for episode in valid]),
        "impact_speed_mps": _spread([episode.impact_speed_mps for episode in valid]),
        "min_ttc_s": _spread([episode.min_ttc_s for episode in valid]),
        "hazards_planned": len(planned),
        "hazards_happened": len(hazards),
        "false_brakes_per_calm_km": _ratio(
            valid, [episode.false_brakes for episode in valid], [episode.calm_distance_km for episode in valid]
        ),
        "false_brakes_per_calm_km_without_hazard": _ratio(
            free, [episode.false_brakes for episode in free], [episode.calm_distance_km for episode in free]
        ),
        "calm_braking_share": _ratio(
            valid, [episode.calm_braking_steps for episode in valid], [episode.calm_steps for episode in valid]
        ),
        "distance_km": sum(episode.distance_km for episode in valid),
        "calm_distance_km": sum(episode.calm_distance_km for episode in valid),
        "reaction_from_onset_s": _spread([episode.reaction_from_onset_s for episode in called]),
        "reaction_from_reception_s": _spread([episode.reaction_from_reception_s for episode in called]),
        "braking_at_onset": _proportion([episode.braking_at_onset for episode in called]),
        "never_reacted": _proportion([not (episode.reacted or episode.braking_at_onset) for episode in called]),
        "jerk_p95_mps3": _spread([episode.jerk_p95_mps3 for episode in valid]),
        "time_gap_s": _spread([episode.mean_time_gap_s for episode in valid]),
        "delivery_ratio": _spread([episode.delivery_ratio for episode in valid]),
        "age_p95_s": _spread([episode.age_p95_s for episode in valid]),
    }


def _interval(figure: dict[str, Any], key: str, digits: int) -> str:
    if figure[key] is None:
        return "–"
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return f"{figure[key]:.{digits}f}"
    return f"{figure[key]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _median(figure: dict[str, Any], key: str = "p50") -> str:
    return "–" if figure[key] is None else f"{figure[key]:.1f}"


_NOTES = (
    "brackets: 95 % interval; impact, reaction: median (reaction also p95), min TTC: 5th percentile of episodes",
    "reaction: from the beginning of a hazard to the first braking that begins after it; already: braked when it began;"
    " never: did neither",
    "calm km: driven while nothing called for braking; rear: the car behind ran into V001",
)


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """The summaries as text, one policy a line, with n and 95 % intervals."""
    heads = ("policy", "reward", "collisions in hazards k/n [%]", "all k/n", "impact m/s", "min TTC s",
             "false brakes /calm km", "reaction s", "already", "never", "rear", "invalid")  # fmt: skip
    rows = [heads]
    for one in summaries:
        hit, every, rear = one["collisions_in_hazards"], one["collisions"], one["rear_contacts"]
        already, never = one["braking_at_onset"], one["never_reacted"]
        bounds = f" [{100 * hit['low']:.1f}, {100 * hit['high']:.1f}]" if hit["n"] else ""
        rows.append((
            one["policy"],
            _interval(one["average_reward"], "value", 1),
            f"{hit['count']}/{hit['n']}{bounds}",
            f"{every['count']}/{every['n']}",
            _median(one["impact_speed_mps"]),
            _median(one["min_ttc_s"], "p05"),
            _interval(one["false_brakes_per_calm_km"], "value", 2),
            f"{_median(one['reaction_from_onset_s'])} / {_median(one['reaction_from_onset_s'], 'p95')}",
            f"{already['count']}/{already['n']}",
            f"{never['count']}/{never['n']}",
            f"{rear['count']}/{rear['n']}",
            str(one["invalid_episodes"]),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_NOTES])


def write_episodes(path: Path, rows: Sequence[tuple[str, EpisodeMetrics]]) -> None:
    """Writes (policy, episode) rows as ``episodes.csv``, beside and renamed."""
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("policy", *COLUMNS))
    for policy, episode in rows:
        writer.writerow((policy, *dataclasses.astuple(episode)))
    write_text(path, text.getvalue())
