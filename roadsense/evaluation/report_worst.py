"""The worst episodes of a run, each played again as a page of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from roadsense.errors import RoadsenseError
from roadsense.evaluation.evaluate import ListConfig
from roadsense.evaluation.journal import Row
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.promotion import REPLAYS_NAME
from roadsense.evaluation.replay import replay
from roadsense.evaluation.report_run import RunRecord, SuiteResult
from roadsense.evaluation.report_text import Markup, missing, note, number, table, text

SILENT = "off"
"""A radio that tells nothing: what happens under it is no fault of the policy."""


class Worst(NamedTuple):
    """One of the worst episodes."""

    suite: SuiteResult
    row: Row

    @property
    def page(self) -> str:
        """Its page, from the run's folder."""
        return f"{REPLAYS_NAME}/{self.suite.stem}-{self.row.episode}.html"


def worst_episodes(run: RunRecord, count: int) -> list[Worst]:
    """Collisions first, the hardest impact first; then the least time to collision.

    Of one episode under several radios only the worst counts.
    """
    found = [
        Worst(suite, row) for suite in run.suites.values() for row in suite.rows
        if row.metrics.valid and row.radio != SILENT
    ]  # fmt: skip
    once: dict[tuple[str, str, int], Worst] = {}
    for one in sorted(found, key=_badness):
        once.setdefault((one.suite.stem, one.row.metrics.scenario_id, one.row.metrics.seed), one)
    return list(once.values())[:count]


def _badness(one: Worst) -> tuple[int, float, float, str, int]:
    metrics = one.row.metrics
    impact = 0.0 if math.isnan(metrics.impact_speed_mps) else metrics.impact_speed_mps
    ttc = math.inf if math.isnan(metrics.min_ttc_s) else metrics.min_ttc_s
    return (0 if metrics.crashed else 1, -impact if metrics.crashed else 0.0, ttc, one.suite.stem, one.row.episode)


def write_replays(run: RunRecord, episodes: Sequence[Worst]) -> dict[str, str]:
    """Writes the pages; by page what is wrong with it, empty where nothing is."""
    folder = run.path / REPLAYS_NAME
    for file in folder.glob("*.html"):
        file.unlink()
    return {one.page: _replay(run.path, one) for one in episodes}


def _replay(run: Path, one: Worst) -> str:
    stated = one.suite.document.get("config") or {}
    try:
        config = ListConfig(
            suite=stated["suite"], engine=one.suite.document["engine"], max_peers=stated["max_peers"],
            episodes_per_bucket=stated.get("episodes_per_bucket"),
        )  # fmt: skip
        trace = replay(f"{run}:{one.row.episode}", config, run / one.page)
    except RoadsenseError as error:
        return f"cannot be played again: {error}"
    if one.row._replace(metrics=measure(trace)).same_as(one.row):
        return ""
    return "played again it comes out otherwise: this is not the policy or the code that was judged"


def worst_table(episodes: Sequence[Worst], problems: dict[str, str] | None) -> Markup:
    """The episodes with links to their pages; without pages where ``problems`` is None."""
    if not episodes:
        return missing("There are no episodes of the judged policy; run `roadsense gate`.")
    rows = []
    for place, one in enumerate(episodes, 1):
        metrics, row = one.row.metrics, one.row
        problem = "" if problems is None else problems[one.page]
        link = Markup(f'<a href="{text(quote(one.page))}">replay</a>')
        shown = "–" if problems is None else problem if problem.startswith("cannot") else link
        if problem and shown is link:
            shown = Markup(link + text(f" ({problem})"))
        end = "failed" if metrics.failure else metrics.end_reason.replace("_", " ")
        bucket = row.bucket.replace(f"radio={row.radio}", "")
        rows.append((
            place, shown, end, number(metrics.impact_speed_mps), number(metrics.min_ttc_s), row.radio,
            f"{one.suite.stem} {row.episode}", bucket, f"{metrics.scenario_id}, seed {metrics.seed}",
        ))  # fmt: skip
    heads = ("", "see it", "end", "impact m/s", "min TTC s", "radio", "episode", "bucket", "scenario")
    return Markup(table(heads, rows) + note(
        "Of all suites; the hardest collisions, then the closest calls. Of one episode under several radios only the"
        f" worst stands here. Episodes without any radio ({SILENT}) are left out: nothing could have told the policy. A"
        " replay is played anew and compared with the recorded episode."
    ))  # fmt: skip
