"""Sections of a card on what the policy was trained on, what it did, and where that ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.evaluation.promotion import SUITES_NAME
from roadsense.evaluation.report_figures import read_bucket
from roadsense.evaluation.report_run import SuiteResult
from roadsense.evaluation.report_text import quantiles
from roadsense.export.card_evidence import METRICS_NAME, TRAINING_NAME, Evidence, reading
from roadsense.export.card_text import bare, bullets, code, figure, paragraph, plain, ratio, section, share, table
from roadsense.manifest import MANIFEST_NAME, SPLITS
from roadsense.statistics import clopper_pearson

BESIDE = {
    "v2v_tuned": "a rule on the same messages, tuned",
    "v2v_rule": "a plain rule on the same messages",
    "first_reception": "full braking from the first message that tells of the hazard (knows the truth)",
    "oracle": "brakes as the truth asks for (knows the truth)",
    "none": "the driver alone",
}
"""Policies that stand beside the judged one."""
MATRIX, GENERALISATION, SPOOFED = "matrix", "generalisation", "spoofed"
_MOST_RADIOS = 8
"""A suite of more is one row."""


# ---- what it saw -----------------------------------------------------------------------------------------------------


def saw(evidence: Evidence) -> str:
    """Training and dataset."""
    return section("What it was trained on", _training(evidence), *_dataset(evidence))


def _training(evidence: Evidence) -> str:
    if not evidence.training:
        return f"How it was trained is not recorded in the run ({_lacks(evidence, TRAINING_NAME)})."
    with reading(evidence.run / TRAINING_NAME):
        found, config = evidence.training, evidence.config
        further, best = config.get("further_radios") or [], found.get("best") or {}
        own = config.get("emulator_params")
        radio = code(own) if own else "the dataset's" + (f" ({code(evidence.radio)})" if evidence.radio else "")
        rows = [
            ("algorithm", code(config["algorithm"])),
            ("seed", f"{config['seed']}; one seed is one draw, another would give another policy"),
            ("steps of 0.1 s", f"{found['timesteps']:,}" + ("" if found.get("finished") else ", **not finished**")),
            ("radio", radio),
            ("further radios", ", ".join(map(code, further)) or "none"),
        ]
        if "timesteps" in best:
            rows.append(("weights kept", f"those after {best['timesteps']:,} steps, chosen on `val/`"))
        rows.append(("dataset", f"SHA-256 {code(found['dataset_digest'])}"))
        return table(("Training", ""), rows)


def _dataset(evidence: Evidence) -> list[str]:
    manifest = evidence.manifest
    if not manifest:
        return [paragraph(f"Its scenarios are not described in the run ({_lacks(evidence, MANIFEST_NAME)}).")]
    with reading(evidence.run / MANIFEST_NAME):
        splits = {name: manifest["splits"][name] for name in SPLITS if manifest["splits"].get(name)}
        roads = list(dict.fromkeys(str(one.get("base", "unnamed")) for of in splits.values() for one in of))
        rows = []
        for name, of in splits.items():
            peers = [one["peer_count"] for one in of]
            on = [sum(str(one.get("base", "unnamed")) == road for one in of) for road in roads]
            rows.append((code(f"{name}/"), len(of), *on, f"{min(peers)} to {max(peers)}"))
        ranges = ", ".join(f"{code(name)} {_range(of)}" for name, of in (manifest.get("ranges") or {}).items())
        return [
            paragraph(
                f"Dataset {code(manifest['dataset_id'])}, SHA-256 {code(manifest['content_digest'])}, radio parameters"
                f" SHA-256 {code(manifest.get('emulator_params_hash', 'unknown'))}. Scenarios, by road:"
            ),
            table(("Split", "Scenarios", *map(code, roads), "Peers"), rows),
            paragraph(f"Ranges of all of them: {ranges}.") if ranges else "",
        ]


def _range(of: Any) -> str:
    return " to ".join(figure(one) for one in of) if isinstance(of, list) else plain(of)


def most_peers(evidence: Evidence) -> int | None:
    """Most peers of a scenario of training; None where nothing tells."""
    with reading(evidence.run / MANIFEST_NAME):
        of = (evidence.manifest.get("splits") or {}).get("train") or []
        return max((one["peer_count"] for one in of), default=None)


def _lacks(evidence: Evidence, name: str) -> str:
    return f"{name} is of other weights or another dataset" if name in evidence.others else f"no {name}"


# ---- what it did -----------------------------------------------------------------------------------------------------


def did(evidence: Evidence) -> str:
    """Figures on the dataset's ``eval/``, on the matrix, and on all suites."""
    note = paragraph(
        "Brackets are 95 % intervals, n are episodes. A hazard is a car that brakes hard or stands still. A calm"
        " kilometre is one in which nothing calls for braking. The reaction is the time from the beginning of a hazard to"
        " the first braking that begins after it, of those that did; who never reacted did not brake before it either."
    )
    return section("What it did", note, *_eval(evidence), *_matrix(evidence), *_suites(evidence))


def _eval(evidence: Evidence) -> list[str]:
    if not evidence.metrics:
        return ["### On `eval/` of its dataset", f"Not evaluated ({_lacks(evidence, METRICS_NAME)})."]
    with reading(evidence.run / METRICS_NAME):
        played, judged = evidence.metrics["evaluation"], evidence.metrics["policy"]
        radios = ", ".join(map(code, played["radios"]))
        told = paragraph(
            f"{played['episodes']:,} episodes of {code(played['split'] + '/')}, radio {radios}, dataset SHA-256"
            f" {code(played['dataset_digest'])}.",
            _confirmed(played["policies"][judged]),
        )
        return ["### On `eval/` of its dataset", told, _policies(played["policies"], judged)]


def _matrix(evidence: Evidence) -> list[str]:
    title = "### On the suite `matrix`"
    suite = evidence.suites.get(MATRIX)
    if suite is None:
        return [title, f"Not evaluated ({_lacks(evidence, f'{SUITES_NAME}/{MATRIX}.json')})."]
    with reading(evidence.run / SUITES_NAME / f"{MATRIX}.json"):
        parts = [title, paragraph(
            f"{suite.document['episodes']:,} episodes, a hazard in each while the driver looks away to the end; the same"
            " for every policy and radio.",
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
            "**this policy**" if name == judged else f"{code(name)}: {BESIDE[name]}",
            share(one["collisions_in_hazards"]), ratio(one["false_brakes_per_calm_km"]),
            bare(quantiles(one["reaction_from_onset_s"], "p50", "p95")), share(one["never_reacted"]),
        ))  # fmt: skip
    heads = (
        "Policy",
        "Collisions in hazards",
        "False brakes per calm km",
        "Reaction, median / p95 [s]",
        "Never reacted",
    )
    return table(heads, rows)


def _confirmed(policy: Mapping[str, Any]) -> str:
    found = policy.get("confirmed") or {}
    if not found.get("episodes"):
        return ""
    return f"{len(found['episodes'])} of them were played again on SUMO; {len(found['differing'])} came out otherwise."


def _suites(evidence: Evidence) -> list[str]:
    title, rows = "### On every suite", []
    for stem, suite in evidence.suites.items():
        with reading(evidence.run / SUITES_NAME / f"{stem}.json"):
            own = suite.policies[suite.judged]
            by_radio = own["radios"] if len(own["radios"]) <= _MOST_RADIOS else {f"{len(own['radios'])} radios": own}
            for radio, one in by_radio.items():
                rows.append((code(stem), code(radio) if one is not own else radio, share(one["collisions"]),
                             ratio(one["false_brakes_per_calm_km"])))  # fmt: skip
    if not rows:
        return [title, "Not evaluated (no suites of these weights)."]
    told = paragraph("The policy alone, under every radio; collisions of all episodes, with a hazard and without. On the"
                     f" radio `off` nothing is heard, on {code(SPOOFED)} one car lies.")  # fmt: skip
    return [title, told, table(("Suite", "Radio", "Collisions", "False brakes per calm km"), rows)]


# ---- where that ends -------------------------------------------------------------------------------------------------


def limits(evidence: Evidence) -> str:
    """What none of it shows."""
    matrix = evidence.suites.get(MATRIX)
    proven = ", ".join(map(code, matrix.radios)) if matrix else ""
    seed = evidence.config.get("seed")
    return section("Limits", bullets([
        "All of it is simulation: cars follow each other as SUMO's do, and the radio is an emulator. No car has driven"
        " with it, and no road is allowed to it by anything on this page.",
        f"Radios: the suite `matrix` was played under {proven}; what others do to it was"
        f" {'measured as far as the table above goes' if len(evidence.suites) > 1 else 'not evaluated'}. A radio that"
        " loses or delays more than those is beyond what was shown." if proven else
        "Radios: it was not evaluated on the suite `matrix`, so nothing is shown of any radio.",
        _larger_sets(evidence),
        "Roads: a single lane that nobody changes, leaves or crosses.",
        f"One seed is one draw{'' if seed is None else f' (here {seed})'}: the same training with another seed gives"
        " another policy, of which these figures say nothing.",
        _lies(evidence),
        "Intervals are of chance among episodes of this kind, not of how unlike them the world is.",
    ]))  # fmt: skip


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


def _lies(evidence: Evidence) -> str:
    told = "Lies: nothing tells a false message from a true one."
    for stem, suite in evidence.suites.items():
        with reading(evidence.run / SUITES_NAME / f"{stem}.json"):
            if SPOOFED in suite.radios:
                one = suite.policies[suite.judged]["radios"][SPOOFED]
                return (
                    f"{told} With a car that does (suite {code(stem)}, radio `{SPOOFED}`) it braked for nothing"
                    f" {ratio(one['false_brakes_per_calm_km'])} times per calm km."
                )
    return f"{told} With a car that lies it was not evaluated."
