"""The report beside a params file: one HTML page with figures, findings and plots, the same for the same logs."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from html import escape
from importlib.util import find_spec
from pathlib import Path

from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.losses import loss_by_distance
from roadsense.espnow.calibration.measure import Measured
from roadsense.espnow.params import RadioParams
from roadsense.extras import missing
from roadsense.files import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .6rem; text-align: left; }
tr { border-bottom: 1px solid #e3e6ea; } td.n { text-align: right; white-space: nowrap; } td.note { color: #5a6572; }
td { vertical-align: top; }
th:nth-child(n+2):nth-child(-n+3) { text-align: right; }
code { background: #f2f4f6; padding: 0 .25rem; } img { max-width: 100%; } figure { margin: 1rem 0; }
figcaption { color: #5a6572; }
"""

_WORDS = """
<p>n counts the observations that a figure rests on: of a loss, frames that had the medium to themselves (those near
another board's are in neither loss nor latency); of a burst, lost frames whose next one is known to have arrived or
not; of a clock, messages of both directions. Stretch a/b of a pair of clocks lies between two resets: it is the a-th
of the first board's log and the b-th of the second's. In an interval, ∞ is a side without end and ? one of which
nothing is known.</p>
"""


def write_report(path: Path, measured: Measured, params: RadioParams, findings: Findings, asked: Asked) -> None:
    """Writes the page.

    Raises:
        RoadsenseError: it cannot be written.
    """
    parts = [
        f"<h1>Calibration of {escape(params.name)}</h1>",
        f"<p>From {escape(params.provenance['source'])}. Brackets are intervals, each at {asked.confidence:.4g} by "
        "itself; a range without them rests on an assumption, which its note states.</p>",
        "<h2>Findings</h2>", _findings(findings),
        *_plots(measured, params, asked),
        "<h2>Figures</h2>", _WORDS, _table(measured.figures()),
        "<h2>Parameters</h2>", _provenance(params),
    ]  # fmt: skip
    title = f"<title>Calibration of {escape(params.name)}</title>"
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{title}<style>{_STYLE}</style></head>'
    write_text(path, "\n".join([head, "<body>", *parts, "</body></html>\n"]))


def _findings(findings: Findings) -> str:
    rows = [
        f"<li><b>{escape(one.where)}</b>: {escape(one.text)} <code>{escape(one.code)}</code></li>" for one in findings
    ]
    return f"<ul>{''.join(rows)}</ul>" if rows else "<p>None: the logs are whole.</p>"


def _plots(measured: Measured, params: RadioParams, asked: Asked) -> Iterable[str]:
    if not measured.links:
        why = "all links are left out" if measured.bad_links else "the logs hold no links between boards"
        return [f"<p>There is nothing to draw: {why}.</p>"]
    if find_spec("matplotlib") is None:
        text = f"the report has no plots: {missing('matplotlib')}"
        print(text, file=sys.stderr)
        return [f"<p>{escape(text[0].upper() + text[1:])}</p>"]
    from roadsense.espnow.calibration.plots import burst_plot, delivery_plot, latency_plot
    from roadsense.espnow.calibration.resimulate import SEEDS, resimulate

    played = resimulate(measured, params)
    bad = {link.name for link in measured.bad_links}
    played = [link for link in played if link.name not in bad]
    steps = loss_by_distance(played, asked.edges_m, asked.confidence) if played else []
    how = f"re-simulated: the logged drive played {len(SEEDS)} times with the fitted parameters"
    return [
        _image("Delivery by distance", delivery_plot(measured, steps), f"Frames that arrived, healthy links; {how}."),
        _image("Bursts", burst_plot(measured.links, played, asked.confidence),
               "How long losses last, healthy links, all distances."),
        _image("Latency", latency_plot(measured, played, asked.confidence),
               "From the stamp in a message to its arrival, as clocks of the logs' resolution show it."),
    ]  # fmt: skip


def _image(title: str, png: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img alt="{escape(title)}" src="{source}">'
    return f"<h2>{escape(title)}</h2><figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(figures: Iterable[Figure]) -> str:
    rows = [
        f'<tr><td>{escape(one.name)}</td><td class="n">{escape(one.text())}</td><td class="n">{one.n}</td>'
        f'<td class="note">{escape(one.note)}</td></tr>'
        for one in figures
    ]
    head = "<tr><th>figure</th><th>value [interval]</th><th>n</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _provenance(params: RadioParams) -> str:
    rows = []
    for topic, text in params.provenance.items():
        lines = "<br>".join(escape(line) for line in text.split("; "))
        rows.append(f"<tr><td>{escape(topic)}</td><td>{lines}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
