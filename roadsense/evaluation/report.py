"""``report.html``: one page by which a reviewer believes a policy, or rejects it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.evaluation import report_figures as figures
from roadsense.evaluation.promotion import REPLAYS_NAME, REPORT_NAME
from roadsense.evaluation.report_against import Change, compare, other_suites
from roadsense.evaluation.report_provenance import provenance
from roadsense.evaluation.report_run import RunRecord, SuiteResult, read_run
from roadsense.evaluation.report_tables import (
    POLICY_NOTE,
    baselines,
    gain_table,
    gates_table,
    policies_table,
    reaction_table,
)
from roadsense.evaluation.report_text import Markup, element, missing, note, number
from roadsense.evaluation.report_verdict import verdict
from roadsense.evaluation.report_worst import worst_episodes, worst_table, write_replays
from roadsense.files import refuse_unwritable, write_text
from roadsense.runs import CHECKSUMS, RunFolder

_TEMPLATE = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a report shows beside the run."""

    against: Path | None = None
    """Another run that was judged: its figures stand beside, and what got worse is named."""
    replays: int = 10
    """So many of the worst episodes are played again, each a page in ``replays/``; 0: none."""

    def __post_init__(self) -> None:
        if self.replays < 0:
            raise UsageError(f"replays is {self.replays}; it must be at least 0.")


def write_report(run: Path, config: ReportConfig) -> Path:
    """Writes ``report.html`` and its replays into a run, and rewrites the checksums if it had some; returns its path.

    What a run does not have is said in its place. A run whose files are not those that were packaged is said to be so,
    and keeps its checksums.

    Raises:
        UsageError: one of the two is no folder.
        RoadsenseError: another process is at work in the run, or something cannot be written.
    """
    for path in (run, config.against):
        if path is not None and not path.is_dir():
            raise UsageError(f"{path}: is no run folder; give one, as in runs/s7-standard-0a1b2c3d4e.")
    run = run.resolve()  # so that "." has a name
    folder, target = RunFolder(run), run / REPORT_NAME
    refuse_unwritable(target)
    with folder.locked():
        changed = _changed(folder)
        make_report(folder, config, changed)
        if changed:
            print(f"roadsense: {changed} The checksums were left as they are.", file=sys.stderr)
        elif (run / CHECKSUMS).is_file():
            folder.write_checksums()
    return target


def make_report(folder: RunFolder, config: ReportConfig, changed: str = "") -> None:
    """Writes the page and its replays into a run that nobody else works in.

    Args:
        folder: of the run.
        config: what is shown beside it.
        changed: which file is not as it was packaged; empty: none.
    """
    found = read_run(folder.path)
    earlier = read_run(config.against.resolve()) if config.against is not None else None
    if changed:
        found.problems.insert(0, f"Do not trust this run: {changed}")
    worst = worst_episodes(found, config.replays or 10)
    problems = write_replays(found, worst) if config.replays else None
    write_text(folder.path / REPORT_NAME, page(found, earlier, worst_table(worst, problems)))


def _changed(folder: RunFolder) -> str:
    """Which file is not as it was packaged, but for those that a report writes; empty where none."""
    if not (folder.path / CHECKSUMS).is_file():
        return ""
    try:
        folder.verify(but=[REPORT_NAME, f"{REPLAYS_NAME}/"])
    except InputMismatchError as error:
        return str(error)
    except RoadsenseError as error:
        return str(error)
    return ""


def page(run: RunRecord, earlier: RunRecord | None, worst: Markup) -> str:
    """The HTML file: it holds everything and asks no network for anything.

    Args:
        run: what it is about.
        earlier: another run to compare with.
        worst: the table of the worst episodes.
    """
    changes: dict[tuple[str, str], Change] | None = None
    against: list[str] = []
    if earlier is not None:
        changes, against = _against(run, earlier)
    suites = run.suites
    sections: dict[str, tuple[str, Callable[[], Markup]]] = {
        "radio": ("What the radio is worth", lambda: _of(suites, "radio_worth", _radio_worth)),
        "gates": ("Gates", lambda: _gates(run, changes)),
        "baselines": ("Beside the baselines", lambda: _baselines(run)),
        "loss": ("Loss, bursts and GPS error", lambda: _of(suites, "loss_sweep", _loss)),
        "reaction": ("How fast it reacts", lambda: _of(suites, "matrix", _reactions)),
        "false-brakes": ("False brakes", lambda: _false_brakes(suites)),
        "string": ("String stability", lambda: _of(suites, "string", _string)),
        "generalisation": ("What training never showed", lambda: _of(suites, "generalisation", _generalisation)),
        "learning": ("Learning", lambda: _learning(run)),
        "worst": ("The worst episodes", lambda: worst),
        "provenance": ("Where this comes from", lambda: provenance(run)),
    }
    links = [Markup(f'<a href="#{name}">{escape(title)}</a>') for name, (title, _) in sections.items()]
    cards = [
        Markup(f'<section class="card {name}" id="{name}">{element("h2", title)}{_guarded(make)}</section>')
        for name, (title, make) in sections.items()
    ]
    top = _guarded(lambda: verdict(run, earlier, changes, against))
    body = "\n".join([top, element("nav", *links), *cards])
    template = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    inside = {"TITLE": escape(f"{run.path.name}: report"), "BODY": body}
    return re.sub("%(TITLE|BODY)%", lambda found: inside[found[1]], template)


def _guarded(make: Callable[[], Markup]) -> Markup:
    """A section; one line instead where a file does not hold what it should."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, StopIteration) as error:
        return missing(f"Cannot be shown: a file of the run does not hold what is expected here ({error!r}).")


def _against(run: RunRecord, earlier: RunRecord) -> tuple[dict[tuple[str, str], Change], list[str]]:
    """What changed by gate, and what has to be said about the comparison."""
    try:
        changes = compare(run.gates, earlier.gates) if run.gates and earlier.gates else {}
        other = other_suites(run.gates, earlier.gates)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {}, [f"The two runs cannot be compared: gates.json does not hold what is expected ({error!r})."]
    said = []
    if other:
        said.append(
            f"Not the same episodes for both: {', '.join(other)}. Figures of these suites must not be compared."
        )
    if not earlier.gates:
        said.append(f"{earlier.path.name} was not judged, so there is nothing to compare with; run `roadsense gate`.")
    return changes, said


def _of(suites: Mapping[str, SuiteResult], name: str, make: Callable[[SuiteResult], Markup]) -> Markup:
    if name not in suites:
        return missing(f"The suite {name} was not played; `roadsense gate` plays it.")
    return make(suites[name])


def _radio_worth(suite: SuiteResult) -> Markup:
    return Markup(figures.radio_worth(suite) + note(
        "Collisions in hazards by radio, k/n with exact 95 % intervals; the same episodes under each. A policy that"
        " listens crashes less with a radio than with none (off); shuffled is the same policy, told things at the wrong"
        " time."
    ))  # fmt: skip


def _gates(run: RunRecord, changes: Mapping[tuple[str, str], Change] | None) -> Markup:
    if not run.gates:
        return missing("The run was not judged yet; run `roadsense gate` on it.")
    return Markup(gates_table(run, changes) + note("Brackets are 95 % intervals, n the episodes a figure rests on."))


def _baselines(run: RunRecord) -> Markup:
    found = run.records["metrics.json"]
    parts = [_of(run.suites, "matrix", lambda suite: _guarded(lambda: baselines(suite)))]
    if found:
        parts.append(element("h3", "On the split eval of its own dataset (metrics.json)"))
        parts.append(_guarded(lambda: policies_table(found["evaluation"]["policies"], found["policy"])))
    return Markup("".join([*parts, note(POLICY_NOTE)]))


def _loss(suite: SuiteResult) -> Markup:
    return Markup(figures.loss_maps(suite) + note(
        "Collisions: rate, k/n and exact 95 % interval. Longer bursts at the same loss are longer silences. A dash:"
        " there is no such radio of its own, because independent losses already come in such bursts; it is that of the"
        " field to its left."
    ))  # fmt: skip


def _reactions(suite: SuiteResult) -> Markup:
    return Markup(figures.reactions(suite) + reaction_table(suite) + note(
        "Share [%] of the hazards that called for an answer to which the policy began to brake within that time; for"
        " the rest it braked already or never answered. Bands: 95 %, Dvoretzky–Kiefer–Wolfowitz, as if episodes were"
        f" independent. Times beyond {number(figures.MOST_S)} s are not drawn."
    ))  # fmt: skip


def _false_brakes(suites: Mapping[str, SuiteResult]) -> Markup:
    here = [suites[name] for name in ("calm", "matrix") if name in suites]
    absent = [missing(f"The suite {name} was not played.") for name in ("calm", "matrix") if name not in suites]
    return Markup("".join([figures.false_brakes(here) if here else "", *absent, note(
        "Times the demand rises above 0.15 g while nothing calls for braking, per km driven so, with bootstrap"
        " intervals by scenario; calm has no hazards at all."
    )]))  # fmt: skip


def _string(suite: SuiteResult) -> Markup:
    return Markup(figures.gains(suite) + gain_table(suite) + note(
        "Standard deviation of V001's speed over that of the first car's, which swings; above 1 it amplifies. The bars"
        " here are the spread of episodes, not intervals of a mean."
    ))  # fmt: skip


def _generalisation(suite: SuiteResult) -> Markup:
    return Markup(figures.by_axes(suite, ("peers", "road", "radio")) + note(
        "Collisions of all episodes, k/n with exact 95 % intervals, by number of peers, road and radio. Scenarios are"
        " generated for training with up to 8 peers, and without the road coast."
    ))  # fmt: skip


def _learning(run: RunRecord) -> Markup:
    if not run.training:
        return missing("There is no training.csv with figures in the run.")
    best = run.records["training.json"].get("best")
    figures_of_best = best.items() if isinstance(best, dict) else ()
    told = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in figures_of_best)
    said = f" Best on validation: {told}." if told else ""
    return Markup(figures.learning(run.training) + note(f"One training, so no interval; n are its updates.{said}"))
