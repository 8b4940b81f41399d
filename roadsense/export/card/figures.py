"""Sections of a card on what the policy did, and where that ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.espnow.profiles import OFF, SPOOFED
from roadsense.evaluation.promotion import SUITES_NAME
from roadsense.evaluation.report_figures import read_bucket
from roadsense.evaluation.report_run import SuiteResult
from roadsense.evaluation.report_text import counted
from roadsense.export.card.evidence import METRICS_NAME, Evidence, reading
from roadsense.export.card.text import bullets, code, figure, paragraph, ratio, section, share, times
from roadsense.export.card.training import most_peers, span
from roadsense.manifest import MANIFEST_NAME
from roadsense.markdown import table
from roadsense.statistics import clopper_pearson

BESIDE = {
    "v2v_tuned": "a rule on the same messages, tuned",
    "v2v_rule": "a plain rule on the same messages",
    "first_reception": "brakes fully from the first message that tells of the hazard, for it knows the truth",
    "oracle": "brakes as the truth asks for",
    "none": "the driver alone",
}
"""Policies that stand beside the judged one."""
MATRIX, GENERALISATION = "matrix", "generalisation"
_EVAL = "### On `eval/`, which neither trained nor chose it"
_MOST_RADIOS = 8
"""A suite of more is one row."""


# ---- what it did -----------------------------------------------------------------------------------------------------


def did(evidence: Evidence) -> str:
    """Figures on the dataset's ``eval/``, on the matrix, and on all suites."""
    note = paragraph(
        "Brackets are 95 % intervals, n are episodes. A hazard is a car that brakes hard or stands still. A calm"
        " kilometre is one in which nothing calls for braking. The reaction is the time from the beginning of a hazard"
        " to the first braking that begins after it, of those that did; who never reacted did not brake before it"
        " either."
    )
    played = bool(evidence.metrics or evidence.suites)
    beside = bullets([f"{code(name)}: {what}." for name, what in BESIDE.items()])
    return section(
        "What it did", *([note, "Beside it stand, on the same episodes:", beside] * played), *_eval(evidence),
        *_matrix(evidence), *_suites(evidence),
    )  # fmt: skip


def _eval(evidence: Evidence) -> list[str]:
    if not evidence.metrics:
        return [_EVAL, f"Not evaluated ({evidence.lacks(METRICS_NAME)})."]
    with reading(evidence.run / METRICS_NAME):
        played, judged = evidence.metrics["evaluation"], evidence.metrics["policy"]
        radios = ", ".join(map(code, played["radios"]))
        told = paragraph(
            f"{played['episodes']:,} episodes of {code(played['split'] + '/')} of {_which(evidence, played)}, radio"
            f" {radios}.",
            _confirmed(played["policies"][judged]),
        )
        return [_EVAL, told, _policies(played["policies"], judged)]


def _which(evidence: Evidence, played: Mapping[str, Any]) -> str:
    """The dataset of an evaluation."""
    if evidence.manifest and evidence.manifest.get("content_digest") == played["dataset_digest"]:
        return "that dataset"
    return f"a dataset of SHA-256 {code(played['dataset_digest'])}"


def _matrix(evidence: Evidence) -> list[str]:
    title = "### On the suite `matrix`"
    suite = evidence.suites.get(MATRIX)
    if suite is None:
        return [title, f"Not evaluated ({evidence.lacks(f'{SUITES_NAME}/{MATRIX}.json')})."]
    with reading(evidence.run / SUITES_NAME / f"{MATRIX}.json"):
        parts = [title, paragraph(
            f"{suite.document['episodes']:,} episodes, a hazard in each while the driver looks away to the end; the"
            " same for every policy and radio.",
            _confirmed(suite.policies[suite.judged]),
        )]  # fmt: skip
        for radio in suite.radios:
            by_name = {name: policy["radios"][radio] for name, policy in suite.policies.items()}
            parts += [f"Radio {code(radio)}:", _policies(by_name, suite.judged)]
        return parts


def _policies(summaries: Mapping[str, Mapping[str, Any]], judged: str) -> str:
    rows = []
    for name in [judged, *(name for name in BESIDE if name in summaries)]:
        one = summaries[name]
        rows.append((
            "**this policy**" if name == judged else code(name),
            share(one["collisions_in_hazards"]), figure(one["impact_speed_mps"]["max"]),
            ratio(one["false_brakes_per_calm_km"]),
            times(one["reaction_from_onset_s"]), share(one["never_reacted"]),
        ))  # fmt: skip
    heads = ("Policy", "Collisions in hazards", "Hardest impact [m/s]", "False brakes per calm km",
             "Reaction, median / p95 [s]", "Never reacted")  # fmt: skip
    return table(heads, rows)


def _confirmed(policy: Mapping[str, Any]) -> str:
    found = policy.get("confirmed") or {}
    said = []
    if found.get("episodes"):
        said.append(
            f"{len(found['episodes'])} were played again on SUMO; {len(found['differing'])} came out otherwise."
        )
    if policy["num_failed"] or policy["invalid_episodes"]:
        said.append(
            f"**It broke off {counted(policy['num_failed'], 'episode')}**, taken as collisions;"
            f" {counted(policy['invalid_episodes'], 'episode')} had other cars touch and are left out."
        )
    return " ".join(said)


def _suites(evidence: Evidence) -> list[str]:
    title, rows = "### On every suite", []
    for stem, suite in evidence.suites.items():
        with reading(evidence.run / SUITES_NAME / f"{stem}.json"):
            own = suite.policies[suite.judged]
            by_radio = (
                own["radios"] if len(own["radios"]) <= _MOST_RADIOS else {f"{len(own['radios'])} radios together": own}
            )
            for radio, one in by_radio.items():
                rows.append((
                    code(stem), code(radio) if one is not own else radio, share(one["collisions"]),
                    figure(one["impact_speed_mps"]["max"]), ratio(one["false_brakes_per_calm_km"]),
                ))  # fmt: skip
    if not rows:
        return [title, "Not evaluated (no suites of these weights)."]
    told = paragraph(
        "The policy alone; collisions of all episodes, with a hazard and without. Radios: `off` is silence,"
        f" {code(SPOOFED)} has a car that lies, `delayed:<ms>` is late, `lossy:<share>,<burst>` loses that share of the"
        " messages, so many in a row on average."
    )
    heads = ("Suite", "Radio", "Collisions", "Hardest impact [m/s]", "False brakes per calm km")
    return [title, told, table(heads, rows)]


# ---- where that ends -------------------------------------------------------------------------------------------------


def limits(evidence: Evidence) -> str:
    """What none of it shows."""
    seed = evidence.config.get("seed")
    return section("Limits", bullets([
        "All of it is simulation: cars follow each other as SUMO's do, and the radio is an emulator. Nothing on this"
        " page shows how it does in a car.",
        _radios(evidence),
        _larger_sets(evidence),
        _speeds(evidence),
        "Roads: a single lane that nobody changes, leaves or crosses.",
        f"One seed is one draw{'' if seed is None else f' (here {seed})'}: the same training with another seed gives"
        " another policy, of which these figures say nothing.",
        _under(evidence, OFF, "Silence: where nothing is heard"),
        _under(evidence, SPOOFED, "Lies: it believes every message; where a car lies"),
        "Intervals are of chance among episodes of these kinds, not of how unlike them the world is.",
    ]))  # fmt: skip


def _radios(evidence: Evidence) -> str:
    matrix = evidence.suites.get(MATRIX)
    if matrix is None:
        return "Radios: it was not evaluated on the suite `matrix`, so nothing is shown of any radio."
    return (
        f"Radios: the figures of the suite `matrix` hold for {' and '.join(map(code, matrix.radios))}. Of a radio that"
        " loses more, or is later, they say nothing."
    )


def _speeds(evidence: Evidence) -> str:
    with reading(evidence.run / MANIFEST_NAME):
        of = (evidence.manifest.get("ranges") or {}).get("speed_mps")
        if of is None:
            return "Speeds: which it saw in training is not recorded in the run."
        return f"Speeds: convoys of its dataset set out at {span(of)} m/s; beyond that it was not trained."


def _larger_sets(evidence: Evidence) -> str:
    most, suite = most_peers(evidence), evidence.suites.get(GENERALISATION)
    if most is None:
        return "Peers: how many it saw in training is not recorded in the run."
    if suite is None:
        return f"Peers: training had at most {most}; with more it was not evaluated."
    with reading(evidence.run / SUITES_NAME / f"{GENERALISATION}.json"):
        found = [f"{share(_pooled(suite, radio, most))} episodes under {code(radio)}" for radio in suite.radios]
        return (
            f"Peers: training had at most {most}. With more (suite {code(GENERALISATION)}) it collided in"
            f" {' and '.join(found)}."
        )


def _pooled(suite: SuiteResult, radio: str, most: int) -> dict[str, Any]:
    """Collisions in the buckets of a radio that have more peers than so many."""
    count = total = 0
    for bucket in suite.policies[suite.judged]["buckets"]:
        labels = read_bucket(bucket["bucket"])
        if labels.get("radio", radio) == radio and int(labels.get("peers", 0)) > most:
            count, total = count + bucket["collisions"], total + bucket["n"]
    low, high = clopper_pearson(count, total)
    return {"count": count, "n": total, "low": low, "high": high}


def _under(evidence: Evidence, radio: str, what: str) -> str:
    """What it does under a radio of its own, in the first suite that has it."""
    for stem, suite in evidence.suites.items():
        with reading(evidence.run / SUITES_NAME / f"{stem}.json"):
            if radio in suite.radios:
                one = suite.policies[suite.judged]["radios"][radio]
                return (
                    f"{what} (radio {code(radio)}, suite {code(stem)}), {share(one['collisions'])} episodes end in a"
                    f" collision, and false brakes per calm km are {ratio(one['false_brakes_per_calm_km'])}."
                )
    return f"{what} (radio {code(radio)}), it was not evaluated."
