"""The top of a report: accepted or rejected, and why, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roadsense.evaluation.gates import shipped_gates
from roadsense.evaluation.report_against import Change
from roadsense.evaluation.report_run import RunRecord
from roadsense.evaluation.report_text import Markup, bounded, counted, element, missing, plain, proportion


def verdict(
    run: RunRecord,
    earlier: RunRecord | None,
    changes: Mapping[tuple[str, str], Change] | None,
    against: Sequence[str],
) -> Markup:
    """The first card of the page."""
    kind, word = _word(run.gates)
    parts = [element("h1", element("b", word), f": {run.path.name}")]
    parts += [element("p", problem, kind="alarm") for problem in [*run.problems, *_doubts(run)]]
    if run.gates and not shipped_gates(run.gates.get("gates") or {}):
        parts.append(element("p", "Judged by gates that are not those that are shipped.", kind="alarm"))
    parts += [element("p", one) for one in _story(run)]
    if not run.gates:
        parts.append(missing("The run was not judged yet; run `roadsense gate` on it."))
    else:
        parts += _failures(run.gates)
    if earlier is not None and changes is not None:
        parts += _worse(earlier, changes, against)
    return Markup(f'<section class="card verdict {kind}" id="verdict">{"".join(parts)}</section>')


def _word(gates: Mapping[str, Any]) -> tuple[str, str]:
    if not gates:
        return "", "not judged"
    accepted = gates["accepted"] is True and all(one["passed"] is True for one in gates["verdicts"])
    return ("accepted", "accepted") if accepted else ("rejected", "rejected")


def _doubts(run: RunRecord) -> list[str]:
    """Suites in the folder that are not those of the verdict, and weights that are not the same throughout."""
    said = []
    judged = {Path(name).stem: one.get("digest") for name, one in (run.gates.get("suites") or {}).items()}
    for name, suite in run.suites.items():
        if run.gates and judged.get(name) != (suite.document.get("suite") or {}).get("digest"):
            said.append(f"suites/{name}.json is not what the verdict rests on; judge the run again.")
    weights = {str(suite.policies[suite.judged].get("weights_digest")) for suite in run.suites.values()}
    if len(weights) > 1:
        said.append("The suites were not all played by the same weights; judge the run again.")
    return said


def _failures(gates: Mapping[str, Any]) -> list[Markup]:
    verdicts = gates["verdicts"]
    failed = [one for one in verdicts if not one["passed"]]
    if not failed:
        return [element("p", f"All {counted(len(verdicts), 'gate')} passed.")]
    items = [
        element("li", element("b", f"{one['group']}: {one['name']}"), f" — {plain(one['why']) or 'failed'}")
        for one in failed
    ]
    head = f"{len(failed)} of {counted(len(verdicts), 'gate')} failed:"
    return [element("p", head), element("ul", *items)]


def _story(run: RunRecord) -> list[str]:
    """What the policy did, in sentences."""
    said = []
    matrix, worth, calm = (run.suites.get(name) for name in ("matrix", "radio_worth", "calm"))
    if matrix is not None:
        found = matrix.policies[matrix.judged]["radios"]
        of = "; ".join(f"{proportion(one['collisions_in_hazards'])} under {radio}" for radio, one in found.items())
        said.append(f"In hazards while the driver looks away it collided in {of}.")
    if worth is not None and {"convoy", "off"} <= set(worth.radios):
        radios = worth.policies[worth.judged]["radios"]
        said.append(
            f"On the same episodes it collided in {proportion(radios['convoy']['collisions_in_hazards'])} with the"
            f" radio (convoy) and in {proportion(radios['off']['collisions_in_hazards'])} without."
        )
    if calm is not None:
        found = calm.policies[calm.judged]["radios"]
        of = "; ".join(
            f"{bounded(one['false_brakes_per_calm_km'])} a calm km under {radio} (n {one['episodes']})"
            for radio, one in found.items()
        )
        said.append(f"Without a hazard it braked for nothing {of}.")
    return said


def _worse(earlier: RunRecord, changes: Mapping[tuple[str, str], Change], against: Sequence[str]) -> list[Markup]:
    parts = [element("h3", f"Against {earlier.path.name}")]
    parts += [element("p", one, kind="alarm") for one in against]
    parts += [element("p", f"{earlier.path.name}: {problem}", kind="alarm") for problem in earlier.problems]
    worse = [one for one in changes.values() if one.worse]
    if worse:
        items = [element("li", element("b", one.gate), f" — {one.told}") for one in worse]
        head = f"{counted(len(worse), 'figure')} got worse, beyond both intervals or to a failure:"
        parts += [element("p", head, kind="alarm"), element("ul", *items)]
    elif changes:
        said = f"Of {counted(len(changes), 'gate')} that both answered, none got worse beyond both intervals."
        parts.append(element("p", said))
    doubtful = [f"{one.gate}, {one.told}" for one in changes.values() if one.doubtful]
    if doubtful:
        parts.append(element("p", f"Worse, but without intervals to judge by: {'; '.join(doubtful)}.", kind="note"))
    return parts
