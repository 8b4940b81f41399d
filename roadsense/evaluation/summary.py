"""From episodes to one row a policy: every figure with its n and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from roadsense.evaluation.metrics import EVENTS_VERSION, EpisodeMetrics
from roadsense.evaluation.surrogates import TTC_LEVELS_S
from roadsense.files import json_number
from roadsense.statistics import CONFIDENCE, clopper_pearson, cluster_bootstrap, highest_rate_without_events


def _proportion(flags: Sequence[bool]) -> dict[str, Any]:
    count, total = sum(flags), len(flags)
    low, high = clopper_pearson(count, total)
    return {"count": count, "n": total, "rate": count / total if total else None, "low": low, "high": high}


def _ratio(
    episodes: Sequence[EpisodeMetrics], top: Sequence[float], bottom: Sequence[float], *, events: bool = False
) -> dict[str, Any]:
    """A ratio of sums; with ``events`` a count over kilometres, which has exact bounds where nothing was counted.

    ``n`` are the episodes that add to the denominator.
    """
    total = sum(bottom)
    if events and not any(top):
        low, high = (0.0, highest_rate_without_events(total)) if total else (math.nan, math.nan)
    else:
        low, high = cluster_bootstrap(top, bottom, [episode.scenario_id for episode in episodes], expanded=True)
    counted = sum(one > 0.0 for one in bottom)
    value = sum(top) / total if total else math.nan
    return {"n": counted, "value": json_number(value), "low": json_number(low), "high": json_number(high)}


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
    return {"n": len(known), **{name: json_number(float(q)) for name, q in zip(names, [*low, *high], strict=True)}}


def summarise(policy: str, episodes: Sequence[EpisodeMetrics], radio: str = "") -> dict[str, Any]:
    """Aggregates the episodes of one policy, under one radio or all.

    Proportions carry exact Clopper–Pearson bounds, ratios a bootstrap interval by scenario, rates of which no event was
    seen exact Poisson bounds, all at 95 %. Invalid episodes (peers touched) are counted and left out of everything
    else. Failed ones (broken off by the policy) are counted, named by their seeds, taken as collisions, and left out of
    the mean reward. A crash before the hazard could happen is one in a hazard.
    """
    valid = [episode for episode in episodes if episode.valid]
    whole = [episode for episode in valid if not episode.failure]
    failed = [episode for episode in valid if episode.failure]
    hazards = [episode for episode in valid if episode.tested]
    planned = [episode for episode in valid if episode.hazard_kind != "none"]
    called = [episode for episode in valid if episode.hazard_happened and episode.hazard_called]
    free = [episode for episode in valid if episode.hazard_kind == "none"]
    return {
        "policy": policy,
        "radio": radio,
        "events_version": EVENTS_VERSION,
        "confidence": CONFIDENCE,
        "episodes": len(valid),
        "invalid_episodes": len(episodes) - len(valid),
        "failed_episodes": [f"{episode.scenario_id} seed {episode.seed}: {episode.failure}" for episode in failed],
        "average_reward": _mean(whole, "total_reward"),
        "collisions": _proportion([episode.crashed for episode in valid]),
        "collisions_in_hazards": _proportion([episode.crashed for episode in hazards]),
        "collisions_without_hazard": _proportion([episode.crashed for episode in free]),
        "rear_contacts": _proportion([episode.rear_contact for episode in valid]),
        "truncations": _proportion([episode.truncated for episode in valid]),
        "impact_speed_mps": _spread([episode.impact_speed_mps for episode in valid]),
        "min_ttc_s": _spread([episode.min_ttc_s for episode in valid]),
        "ttc_below": {
            f"{level:g} s": _proportion([episode.min_ttc_s < level for episode in valid]) for level in TTC_LEVELS_S
        },
        "tet_s": _mean(valid, "tet_s"),
        "tit_s2": _mean(valid, "tit_s2"),
        "max_drac_mps2": _spread([episode.max_drac_mps2 for episode in valid]),
        "drac_share": _mean(valid, "drac_share"),
        "max_mdrac_mps2": _spread([episode.max_mdrac_mps2 for episode in valid]),
        "mdrac_share": _mean(valid, "mdrac_share"),
        "rss_deficit_share": _mean(valid, "rss_deficit_share"),
        "max_rss_deficit_m": _spread([episode.max_rss_deficit_m for episode in valid]),
        "min_time_gap_s": _spread([episode.min_time_gap_s for episode in valid]),
        "hard_brakes_3_per_km": _per_km(valid, "hard_brakes_3"),
        "hard_brakes_4_5_per_km": _per_km(valid, "hard_brakes_4_5"),
        "num_failed": len(failed),
        "hazards_planned": len(planned),
        "hazards_happened": sum(episode.hazard_happened for episode in valid),
        "false_brakes_per_calm_km": _ratio(
            valid,
            [episode.false_brakes for episode in valid],
            [episode.calm_distance_km for episode in valid],
            events=True,
        ),
        "false_brakes_per_calm_km_without_hazard": _ratio(
            free,
            [episode.false_brakes for episode in free],
            [episode.calm_distance_km for episode in free],
            events=True,
        ),
        "calm_braking_share": _ratio(
            valid, [episode.calm_braking_steps for episode in valid], [episode.calm_steps for episode in valid]
        ),
        "peak_added_decel_mps2_without_hazard": _spread([episode.peak_added_decel_mps2 for episode in free]),
        "distance_km": sum(episode.distance_km for episode in valid),
        "calm_distance_km": sum(episode.calm_distance_km for episode in valid),
        "reaction_from_onset_s": _spread([episode.reaction_from_onset_s for episode in called]),
        "reaction_from_reception_s": _spread([episode.reaction_from_reception_s for episode in called]),
        "braking_at_onset": _proportion([episode.braking_at_onset for episode in called]),
        "never_reacted": _proportion([not (episode.reacted or episode.braking_at_onset) for episode in called]),
        "jerk_p95_mps3": _spread([episode.jerk_p95_mps3 for episode in valid]),
        "jerk_share": _mean(valid, "jerk_share"),
        "head_to_tail_gain": _spread([episode.head_to_tail_gain for episode in valid]),
        "time_gap_s": _spread([episode.mean_time_gap_s for episode in valid]),
        "mean_time_gap_s": _mean(valid, "mean_time_gap_s"),
        "delivery_ratio": _spread([episode.delivery_ratio for episode in valid]),
        "age_p95_s": _spread([episode.age_p95_s for episode in valid]),
    }


def tally(bucket: str, episodes: Sequence[EpisodeMetrics]) -> dict[str, Any]:
    """What happened in a bucket of so many ``episodes``.

    ``n`` are the valid ones whose hazard, where one was planned, really happened, or that crashed before it could.
    """
    counted = [one for one in episodes if one.valid and (one.tested or one.hazard_kind == "none")]
    return {"bucket": bucket, "episodes": len(episodes), "n": len(counted),
            "collisions": sum(one.crashed for one in counted)}  # fmt: skip


def _mean(episodes: Sequence[EpisodeMetrics], name: str) -> dict[str, Any]:
    """Mean over the episodes that show the quantity."""
    known = [episode for episode in episodes if not math.isnan(getattr(episode, name))]
    return _ratio(known, [getattr(episode, name) for episode in known], [1.0] * len(known))


def _per_km(episodes: Sequence[EpisodeMetrics], name: str) -> dict[str, Any]:
    return _ratio(
        episodes, [getattr(episode, name) for episode in episodes], [episode.distance_km for episode in episodes],
        events=True,
    )  # fmt: skip


def _interval(figure: dict[str, Any], key: str, digits: int) -> str:
    if figure[key] is None:
        return "–"
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return f"{figure[key]:.{digits}f} [–]"
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
    radios = len({one["radio"] for one in summaries}) > 1
    heads = ("policy", "radio", "reward", "collisions in hazards k/n [%]", "all k/n", "impact m/s", "min TTC s",
             "false brakes /calm km", "reaction s", "already", "never", "rear", "invalid", "failed")  # fmt: skip
    rows: list[tuple[str, ...]] = [heads]
    for one in summaries:
        hit, every, rear = one["collisions_in_hazards"], one["collisions"], one["rear_contacts"]
        already, never = one["braking_at_onset"], one["never_reacted"]
        bounds = f" [{100 * hit['low']:.1f}, {100 * hit['high']:.1f}]" if hit["n"] else ""
        rows.append((
            one["policy"],
            one["radio"],
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
            str(len(one["failed_episodes"])),
        ))  # fmt: skip
    if not radios:
        rows = [(row[0], *row[2:]) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_NOTES])
