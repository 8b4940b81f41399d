"""How long a decision takes in each format on one core of this machine, and whether that is within bounds."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation
from roadsense.errors import RoadsenseError
from roadsense.export.formats import FORMATS, open_format
from roadsense.export.sets import crowd
from roadsense.manifest import file_digest
from roadsense.policies.onnx_file import OnnxPolicy, session_of
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import OPSET, Signature, read_signature
from roadsense.runs import environment

LATENCY_NAME = "latency.json"
PEERS = (0, 5, 20)
"""Peers heard by one timed decision."""
BATCH, BATCH_PEERS = 1024, 5
"""Worlds, and peers of each, that are decided on at once."""
TIMES_EMPTY = 2.0
"""Most that the median of a decision by ``model.onnx`` may take, in units of a graph of one node by the same call."""
TIMES_MEDIAN = 5.0
"""Most that its 99th percentile may take, in units of its own median."""
_ROUNDS = 20
"""Formats take turns, so that a busy moment of the machine meets all of them."""
_EMPTY = "one node"


def measure_latency(run_dir: str | Path, observations: Observation, decisions: int = 4000) -> dict[str, Any]:
    """Times every format that a run has.

    One decision alone as a car would make it, by :meth:`roadsense.policies.runtime.Policy.act` (microseconds: median,
    95th and 99th percentile, maximum), and many worlds at once (decisions a second).

    Args:
        run_dir: the run folder.
        observations: recorded ones, whose rows are shown.
        decisions: so many are timed for each number of peers.

    Returns:
        The content of ``latency.json``; its ``bounds`` have what must hold: (what, value, at_most, passed).

    Raises:
        RoadsenseError: there is no observation; or the run's policy cannot be read.
    """
    run_dir = Path(run_dir)
    if len(observations.ego) == 0:
        raise RoadsenseError(f"{run_dir}: there is no observation to decide on; record at least one episode.")
    signature = read_signature(run_dir)
    found: dict[str, Any] = {}
    policies: dict[str, Policy] = {_EMPTY: _one_node(signature)}
    for name, form in FORMATS.items():
        path = form.path(run_dir)
        why = form.why_not(signature) or ("" if path is not None else "the run does not have it")
        found[name] = {"measured": not why, **({"why": why} if why else {})}
        if path is None or why:
            continue
        try:
            policies[name] = open_format(run_dir, name)
            found[name] |= {"file": path.relative_to(run_dir).as_posix(), "digest": file_digest(path)}
        except RoadsenseError as error:
            found[name] = {"measured": False, "why": str(error).rstrip(".")}
    with _one_core() as core:
        timed = _time(policies, observations, decisions)
    empty = timed.pop(_EMPTY)
    for name, facts in timed.items():
        found[name] |= facts
    return {
        "schema_version": 2, "unit": "microseconds", "decisions": decisions, "device": _processor(), "core": core,
        "threads": 1, "environment": environment(), "formats": found, "one_node_graph": empty,
        "bounds": _bounds(timed, empty),
    }  # fmt: skip


def outside(document: Mapping[str, Any]) -> list[str]:
    """A sentence for each bound that is not kept."""
    return [
        f"{one['what']} is {one['value']:.3g}, at most {one['at_most']:g} is allowed"
        for one in document["bounds"]
        if not one["passed"]
    ]


def _bounds(timed: Mapping[str, Any], empty: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What must hold of what was measured; what was not measured holds nothing."""
    found = []
    for peers in map(str, PEERS):
        alone = {name: facts["alone_by_peers"][peers] for name, facts in timed.items()}
        if "onnx" not in alone:
            continue
        own, node = alone["onnx"], empty["alone_by_peers"][peers]
        found.append((f"onnx p50 / that of one node, {peers} peers", own["p50"] / node["p50"], TIMES_EMPTY))
        found.append((f"onnx p99 / p50, {peers} peers", own["p99"] / own["p50"], TIMES_MEDIAN))
        if "c" in alone:
            found.append((f"c p50 / onnx p50, {peers} peers", alone["c"]["p50"] / own["p50"], 1.0))
    return [
        {"what": what, "value": round(value, 3), "at_most": at_most, "passed": value <= at_most}
        for what, value, at_most in found
    ]


def _time(policies: Mapping[str, Policy], observations: Observation, decisions: int) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, Any]] = {name: {"alone_by_peers": {}} for name in policies}
    for peers in PEERS:
        shown = crowd(observations, peers, rng, 100)
        ones = [{name: array[k] for name, array in shown._asdict().items()} for k in range(100)]
        for name, taken in _alone(policies, ones, decisions).items():
            found[name]["alone_by_peers"][str(peers)] = _percentiles(taken)
    worlds = crowd(observations, BATCH_PEERS, rng, BATCH)
    for name, seconds in _together(policies, worlds).items():
        a_second = round(BATCH / float(np.median(seconds)))
        found[name]["batched"] = {"worlds": BATCH, "peers": BATCH_PEERS, "decisions_per_second": a_second}
    return found


def _alone(
    policies: Mapping[str, Policy], ones: list[dict[str, Any]], decisions: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of every decision; the first quarter of each turn is not counted."""
    each = max(1, decisions // _ROUNDS)
    warm = each // 3 + 1
    taken: dict[str, list[NDArray[np.float64]]] = {name: [] for name in policies}
    for _ in range(_ROUNDS):
        for name, policy in policies.items():
            policy.begin()
            seconds = np.empty(warm + each)
            for turn in range(warm + each):
                one = ones[turn % len(ones)]
                begun = time.perf_counter()
                policy.act(one)
                seconds[turn] = time.perf_counter() - begun
            taken[name].append(seconds[warm:])
    return {name: np.concatenate(parts) for name, parts in taken.items()}


def _together(policies: Mapping[str, Policy], worlds: Observation) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in policies}
    for turn in range(_ROUNDS + 1):
        for name, policy in policies.items():
            begun = time.perf_counter()
            policy.act_many(worlds, None)
            if turn:
                taken[name].append(time.perf_counter() - begun)
    return taken


def _one_node(signature: Signature) -> Policy:
    """A graph that only picks a number of the ego's: what a call costs by itself."""
    place = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in
             (("begin", 0), ("end", 1), ("axis", 1))]  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("ego", TensorProto.FLOAT, ["batch", NUM_EGO]),
        helper.make_tensor_value_info("peers", TensorProto.FLOAT, ["batch", "rows", NUM_PEER]),
        helper.make_tensor_value_info("peer_mask", TensorProto.FLOAT, ["batch", "rows"]),
    ]
    action = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", 1])
    node = helper.make_node("Slice", ["ego", "begin", "end", "axis"], ["action"])
    graph = helper.make_graph([node], "one_node", inputs, [action], place)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    without_memory = Signature(**{**vars(signature), "widths": type(signature.widths)()})
    return OnnxPolicy(_EMPTY, without_memory, session_of(onnxruntime, model.SerializeToString()), {})


@contextlib.contextmanager
def _one_core() -> Iterator[int | None]:
    """Keeps this thread on one core, where the system lets it; gives its number."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def _percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    found = 1e6 * np.percentile(seconds, (50, 95, 99, 100))
    return {name: round(float(one), 2) for name, one in zip(("p50", "p95", "p99", "max"), found, strict=True)}


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
