"""Tables of a report: gates, and policies beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.evaluation.report_against import Change
from roadsense.evaluation.report_run import RunRecord, SuiteResult
from roadsense.evaluation.report_text import (
    Markup,
    bounded,
    element,
    plain,
    proportion,
    quantiles,
    table,
    text,
    verdict_figure,
)
from roadsense.statistics import clopper_pearson

_POLICY_HEADS = (
    "policy", "collisions in hazards k/n", "all collisions k/n", "impact m/s, median / max", "min TTC s, p05 / median",
    "false brakes per calm km", "reaction from onset s, median / p95", "from reception s, median / p95",
    "never reacted k/n", "braking already k/n", "TTC below 3 s [s]", "steps beyond comfortable jerk", "time gap s",
    "return", "rear contacts k/n", "invalid", "failed", "episodes",
)  # fmt: skip

POLICY_NOTE = (
    "Brackets are 95 % intervals: exact (Clopper–Pearson) for k of n, a bootstrap by scenario for means and ratios."
    " TTC: time to collision. A reaction is the first braking that begins after the hazard; n counts those who did. A"
    " calm km is one in which nothing calls for braking."
)


def gates_table(run: RunRecord, changes: Mapping[tuple[str, str], Change] | None) -> Markup:
    """Every gate with its figure; beside it that of another run, if there is one to compare with."""
    heads = ["verdict", "gate", "value [95 %]", "n", "bound", *(["earlier"] if changes is not None else [])]
    rows, kinds = [], []
    for one in run.gates["verdicts"]:
        said = [element("b", one["name"]), element("span", f"{one['group']} · {plain(one['figure'])}", kind="under")]
        if not one["passed"]:
            said.append(element("span", plain(one["why"]) or "failed", kind="under why"))
        row = ["passed" if one["passed"] else "FAILED", Markup("".join(said)), verdict_figure(one), _count(one["n"]),
               plain(one["bound"])]  # fmt: skip
        if changes is not None:
            change = changes.get((one["group"], one["name"]))
            row.append(
                Markup(text(change.earlier) + element("span", change.said, kind="under")) if change else "not asked"
            )
        rows.append(row)
        kinds.append("ok" if one["passed"] else "failed")
    return table(heads, rows, kinds)


def _count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def policies_table(by_name: Mapping[str, Mapping[str, Any]], judged: str) -> Markup:
    """Summaries of policies under one radio, the judged one marked."""
    rows = []
    for name, one in by_name.items():
        rows.append((
            name, proportion(one["collisions_in_hazards"]), proportion(one["collisions"]),
            quantiles(one["impact_speed_mps"], "p50", "max"), quantiles(one["min_ttc_s"], "p05", "p50"),
            bounded(one["false_brakes_per_calm_km"]), quantiles(one["reaction_from_onset_s"], "p50", "p95"),
            quantiles(one["reaction_from_reception_s"], "p50", "p95"), proportion(one["never_reacted"]),
            proportion(one["braking_at_onset"]), bounded(one["tet_s"]), bounded(one["jerk_share"]),
            bounded(one["mean_time_gap_s"]), bounded(one["average_reward"]), proportion(one["rear_contacts"]),
            one["invalid_episodes"], one["num_failed"], one["episodes"],
        ))  # fmt: skip
    return table(_POLICY_HEADS, rows, ["judged" if name == judged else "" for name in by_name])


def baselines(suite: SuiteResult) -> Markup:
    """Every policy of a suite, a table a radio."""
    parts = []
    for radio in suite.radios:
        parts.append(element("h3", f"Radio {radio}"))
        by_name = {name: policy["radios"][radio] for name, policy in suite.policies.items()}
        parts.append(policies_table(by_name, suite.judged))
    return Markup("".join(parts))


def reaction_table(suite: SuiteResult) -> Markup:
    """How soon and how often the judged policy answered, by radio."""
    rows = [
        (radio, quantiles(one["reaction_from_onset_s"], "p50", "p95"),
         quantiles(one["reaction_from_reception_s"], "p50", "p95"), proportion(one["braking_at_onset"]),
         proportion(one["never_reacted"]))
        for radio, one in suite.policies[suite.judged]["radios"].items()
    ]  # fmt: skip
    return table(("radio", *_POLICY_HEADS[6:8], "braking already k/n", "never reacted k/n"), rows)


def gain_table(suite: SuiteResult) -> Markup:
    """How often the judged policy amplifies, by radio."""
    rows = []
    for radio in suite.radios:
        known = [row.metrics.head_to_tail_gain for row in suite.rows if row.radio == radio and row.metrics.valid]
        known = [gain for gain in known if gain == gain]
        count = sum(gain > 1.0 for gain in known)
        low, high = clopper_pearson(count, len(known))
        rows.append((radio, proportion({"count": count, "n": len(known), "low": low, "high": high})))
    return table(("radio", f"episodes in which {suite.judged} amplifies, k/n"), rows)
