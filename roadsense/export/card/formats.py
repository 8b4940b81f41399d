"""Sections of a card on the formats: how far each is from the network, how fast, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.evaluation.report_text import counted
from roadsense.export.card.evidence import Evidence, FormatState, reading
from roadsense.export.card.text import block, bullets, code, figure, interval, paragraph, plain, section
from roadsense.export.formats import PARITY_NAME
from roadsense.export.latency import LATENCY_NAME
from roadsense.markdown import table
from roadsense.policies.c_source import HEADER_NAME, SOURCE_NAME
from roadsense.policies.signature import WEIGHTS_NAME, Signature

NETWORK_FORMAT, C_FORMAT, GPU_FORMAT = "safetensors", "c", "tensorrt"
PEERS = 5
"""Heard by the decision whose time is shown."""
_NEEDS = {
    NETWORK_FORMAT: f": {WEIGHTS_NAME} of this folder",
    C_FORMAT: ": compiled on the spot",
    GPU_FORMAT: ": on the GPU it was built on",
}
_SHORT = 12


def formats(evidence: Evidence) -> str:
    """What there is, and what there is not and why."""
    there, parts = [one for one in evidence.formats if not one.why], []
    if there:
        with reading(evidence.run / PARITY_NAME):
            parts += [_compared(evidence, there), _machine(evidence, there), *_played(there)]
    missing = [f"{code(one.name)}: {plain(one.why)}." for one in evidence.formats if one.why]
    if missing:
        parts += ["Not to be loaded, or not there:", bullets(missing)]
    return section("Formats", *parts)


def _compared(evidence: Evidence, there: list[FormatState]) -> str:
    note = paragraph(
        "Each was compared with the network on n recorded decisions; the largest difference of an action is also over"
        " made-up sets of every size and values at their bounds. Times are of one decision alone."
    )
    heads = ("Format", "File", "SHA-256", "Largest difference", "Bound", "n", "Same side of the dead band",
             "Drives as the network", f"p50 / p99 [µs], {PEERS} peers")  # fmt: skip
    return f"{note}\n\n{table(heads, [_row(evidence, one) for one in there])}"


def _row(evidence: Evidence, one: FormatState) -> tuple[object, ...]:
    facts = one.facts
    least = f" (at least {100.0 * facts['least_agreement']:g} %)" if facts.get("least_agreement") else ""
    return (
        code(one.name), code(facts["file"]), code(facts["digest"][:_SHORT]), figure(facts["largest"]),
        figure(facts["bound"]), f"{facts['observations']:,}", f"{100.0 * facts['brake_agreement']:.6g} %{least}",
        _drives(one), _time(evidence, one),
    )  # fmt: skip


def _drives(one: FormatState) -> str:
    found = one.facts.get("closed_loop") or {}
    if "passed" not in found:
        return "not played"
    return "yes" if found["passed"] is True else "**no**"


def _time(evidence: Evidence, one: FormatState) -> str:
    """Only of the very file."""
    with reading(evidence.run / LATENCY_NAME):
        found: Mapping[str, Any] = (evidence.latency.get("formats") or {}).get(one.name) or {}
        if not found.get("measured") or found.get("digest") != one.facts["digest"]:
            return "not measured"
        taken = found["alone_by_peers"][str(PEERS)]
        return f"{figure(taken['p50'])} / {figure(taken['p99'])}"


def _machine(evidence: Evidence, there: list[FormatState]) -> str:
    if not evidence.latency:
        return f"How long a decision takes was not measured (no {LATENCY_NAME})."
    with reading(evidence.run / LATENCY_NAME):
        found = evidence.latency
        gpu = " A GPU decides for TensorRT; its folder is named for it." if any(
            one.name == GPU_FORMAT for one in there
        ) else ""  # fmt: skip
        core = "" if found.get("core") is None else f" {counted(found['threads'], 'thread')} on one core of"
        return paragraph(
            f"Times: {found['decisions']:,} decisions each,{core} {plain(found['device'])}"
            f" ({plain(found['environment']['platform'])}).{gpu} On another machine, above all on a board, they are"
            " others."
        )


def _played(there: list[FormatState]) -> list[str]:
    """What every format did on the same episodes as the network."""
    rows, said = [], []
    for one in there:
        found = one.facts.get("closed_loop") or {}
        if found.get("why"):
            said.append(f"{code(one.name)}: {plain(found['why'])}.")
        for radio, of in (found.get("radios") or {}).items():
            hits, brakes = of["collisions_in_hazards"], of["false_brakes_per_calm_km"]
            rows.append((
                code(one.name), code(radio), f"{hits['format']:,} / {hits['network']:,} of {hits['n']:,}",
                interval(hits, " %", 100.0), f"{figure(brakes['format'])} / {figure(brakes['network'])}",
                interval(brakes), f"{found['gates']['passed']} / {found['gates']['passed_by_network']}"
                f" of {found['gates']['asked']}",
            ))  # fmt: skip
    heads = ("Format", "Radio", "Collisions in hazards", "Difference", "False brakes per calm km", "Difference",
             "Gates passed")  # fmt: skip
    suites = dict.fromkeys(one.facts["closed_loop"]["suite"]["name"] for one in there if _drives(one) != "not played")
    note = paragraph(
        f"Played on the episodes of the suite {' and '.join(map(code, suites))}, format / network; of the difference"
        " between the two the 95 % interval is shown:"
    )
    return [*([note, table(heads, rows)] if rows else []), *([bullets(said)] if said else [])]


# ---- how it is loaded ------------------------------------------------------------------------------------------------


def loading(evidence: Evidence) -> str:
    """Code for every format that the run has."""
    signature = evidence.signature
    proven = {one.name: str(one.facts["file"]) for one in evidence.formats if not one.why}
    files = {NETWORK_FORMAT: ".", **{name: file for name, file in proven.items() if name != NETWORK_FORMAT}}
    parts = [
        paragraph("Paths are from the folder of this page. One observation, as an example that nobody is heard in:"),
        block("python", _observation(signature)),
        paragraph("With this library, one of these lines (none needs torch):"),
        block("python", "\n".join(
            ["from roadsense.policies.runtime import Policy", "", *(_load(name, file) for name, file in files.items())]
        )),
        paragraph("and then, for every observation:"),
        block("python", _decide(signature)),
    ]  # fmt: skip
    models = [file for file in proven.values() if file.endswith(".onnx")]
    if models:
        parts += _plain_onnx(signature, evidence.fallback, models)
    if C_FORMAT in proven:
        parts += _c(evidence.fallback)
    return section("How to load it", *parts)


def _observation(signature: Signature) -> str:
    arrays = [one for one in signature.document()["inputs"] if one["name"] in ("ego", "peers", "peer_mask")]
    lines = []
    for one in arrays:
        shape = ", ".join("16" if size == "rows" else str(size) for size in one["shape"][1:])
        comma = "," if len(one["shape"]) == 2 else ""
        kind = "np.int8" if one["name"] == "peer_mask" else "np.float32"
        lines.append(f'    "{one["name"]}": np.zeros(({shape}{comma}), {kind}),')
    return "\n".join(["import numpy as np", "", "observation = {", *lines, "}"])


def _load(name: str, file: str) -> str:
    return f'policy = Policy.load("{file}")  # {name}{_NEEDS.get(name, "")}'


def _decide(signature: Signature) -> str:
    begin = ["policy.begin()  # once a drive"] if signature.widths.lstm else []
    return "\n".join([
        "from roadsense.errors import ObservationError", "", *begin, "try:", "    action = policy.act(observation)",
        "except ObservationError:  # something is no number", "    action = np.array([policy.fallback], np.float32)",
    ])  # fmt: skip


def _plain_onnx(signature: Signature, fallback: float, models: list[str]) -> list[str]:
    """Without this library; names and shapes are the signature's."""
    states = [one for one in signature.document()["inputs"] if one["name"] in ("hidden", "cell")]
    outputs = [one["name"] for one in signature.document()["outputs"]]
    lines = [
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{models[0]}", providers=["CPUExecutionProvider"])',
    ]
    lines.append("inputs = {  # a batch of one, in raw values: scales undone, the graph divides and clips by itself")
    for one in signature.document()["inputs"]:
        if features := one.get("features"):
            scales = [feature["scale"] for feature in features]
            lines.append(f'    "{one["name"]}": observation["{one["name"]}"][None] * np.array({scales}, np.float32),')
    lines += ['    "peer_mask": observation["peer_mask"][None].astype(np.float32),', "}"]
    for one in states:
        lines.append(
            f'inputs["{one["name"]}"] = np.zeros((1, {one["shape"][-1]}), np.float32)  # then next_{one["name"]}'
        )
    lines += [
        f"action, *memory = session.run({outputs}, inputs)".replace("'", '"'),
        "if not all(np.isfinite(array).all() for array in inputs.values()):",
        f"    action[:] = {fallback:g}  # there is no decision",
    ]
    others = f" (or {', '.join(map(code, models[1:]))}, with the same inputs and outputs)" if models[1:] else ""
    return [
        paragraph(f"With ONNX Runtime alone, {code(models[0])}{others}; unused rows must hold zeros:"),
        block("python", "\n".join(lines)),
    ]


def _c(fallback: float) -> list[str]:
    return [
        paragraph(f"In C99, {code(HEADER_NAME)} and {code(SOURCE_NAME)}, which need nothing but a compiler:"),
        block("c", f"""
            #include "{HEADER_NAME}"

            float decide(const float ego[ROADSENSE_NUM_EGO], const float *peers, const signed char *mask, int rows)
            {{
                float action = roadsense_act(ego, peers, mask, rows);
                return action == ROADSENSE_REFUSED ? {fallback:.1f}f : action;
            }}
        """),
        paragraph(
            "For an ESP32, `examples/esp32` of this library has the rest: it reads the messages, keeps the table of"
            " peers, builds the observation and calls this. It is for policies that brake beside a driver; its README"
            " says what of it is proven and what is not."
        ),
    ]  # fmt: skip
