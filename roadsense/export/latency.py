"""How long a decision takes in each format on this machine: reported, and no proof of another machine."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.errors import RoadsenseError
from roadsense.export.formats import FORMATS
from roadsense.export.parity import crowd
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.base import Policy
from roadsense.policies.runtime import load_policy
from roadsense.runs import environment

LATENCY_NAME = "latency.json"
PEERS = (0, 5, 20)
"""Peers heard by one timed decision."""
BATCH, BATCH_PEERS = 1024, 5
"""Worlds, and peers of each, that are decided on at once."""
_BATCHES = 20


def write_latency(run_dir: str | Path, observations: Observation, decisions: int = 2000) -> Path:
    """Times the runtime and every format whose file a run has, and writes ``latency.json``; returns its path.

    One decision alone as a car would make it (microseconds: median, 95th and 99th percentile, maximum; the first tenth
    is not counted), and many worlds at once (decisions a second).

    Args:
        run_dir: the run folder.
        observations: recorded ones, whose rows are shown.
        decisions: so many are timed for each number of peers.

    Raises:
        RoadsenseError: there is no observation; or a file cannot be read or written.
    """
    run_dir = Path(run_dir)
    if len(observations.ego) == 0:
        raise RoadsenseError(f"{run_dir}: there is no observation to decide on; record at least one episode.")
    found: dict[str, Any] = {"runtime": _time(load_policy(run_dir), observations, decisions)}
    for name, form in FORMATS.items():
        path = run_dir / form.file
        if path.is_file():
            timed = _time(load_policy(path), observations, decisions)
            found[name] = {"file": form.file, "digest": file_digest(path), **timed}
    write_json(run_dir / LATENCY_NAME, {
        "schema_version": 1, "unit": "microseconds", "decisions": decisions, "device": _processor(), "threads": 1,
        "environment": environment(), "formats": found,
    })  # fmt: skip
    return run_dir / LATENCY_NAME


def _time(policy: Policy, observations: Observation, decisions: int) -> dict[str, Any]:
    rng, alone = np.random.default_rng(0), {}
    for peers in PEERS:
        shown = crowd(observations, peers, rng, 100)
        ones = [Observation._make(np.ascontiguousarray(array[[k]]) for array in shown) for k in range(100)]
        alone[str(peers)] = _percentiles(_seconds(policy, ones, decisions))
    batch = _seconds(policy, [crowd(observations, BATCH_PEERS, rng, BATCH)], _BATCHES)
    return {
        "alone_by_peers": alone,
        "batched": {
            "worlds": BATCH, "peers": BATCH_PEERS, "decisions_per_second": round(BATCH / float(np.median(batch)))
        },
    }  # fmt: skip


def _seconds(policy: Policy, shown: list[Observation], count: int) -> NDArray[np.float64]:
    policy.reset(np.ones(len(shown[0].ego), np.bool_), np.zeros(len(shown[0].ego), np.uint64))
    warm = count // 10 + 1
    taken = np.empty(warm + count)
    for turn in range(warm + count):
        one = shown[turn % len(shown)]
        begun = time.perf_counter()
        policy.act(one, None)
        taken[turn] = time.perf_counter() - begun
    return taken[warm:]


def _percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    found = 1e6 * np.percentile(seconds, (50, 95, 99, 100))
    return {name: round(float(one), 1) for name, one in zip(("p50", "p95", "p99", "max"), found, strict=True)}


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
