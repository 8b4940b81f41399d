"""The one button does the same on a cluster of three raylets, through the job server, as here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadsense.runs import REJECTED

REPO = Path(__file__).resolve().parents[2]
CLUSTER = """
import socket, sys
from ray.cluster_utils import Cluster
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port,
        "object_store_memory": 80 * 2**20, "temp_dir": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range(2):
    cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
cluster.wait_for_nodes()
print(f"http://127.0.0.1:{port}", flush=True)
sys.stdin.read()  # to its end: then this cluster goes, and no other
cluster.shutdown()
"""
"""A head without CPUs and two raylets beside it, as in cluster/aws.yaml."""
ELSEWHERE = {"seconds", "environment", "made_with", "trained_with", "dataset_dir", "path"}
PIPELINE = ("pipeline", "--seed", "7", "--preset", "quick", "--run-id", "s7")

pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("require_ray")]


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of its job server, and the environment in which its token is known."""
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short, for the paths of sockets are
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "PYTHONPATH": str(REPO), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex,
    }  # fmt: skip
    head = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, place], env=env, cwd=place, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert head.stdin is not None and head.stdout is not None
    try:
        yield next((line.strip() for line in head.stdout if line.startswith("http")), ""), env
    finally:
        head.stdin.close()
        try:
            head.wait(60)
        finally:
            head.kill()
            head.stdout.close()
            shutil.rmtree(place, ignore_errors=True)


def outcome(run: Path) -> dict[str, Any]:
    """What a run found out, without how long anything took, where, and by which code."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    gates = json.loads((run / "gates.json").read_text(encoding="utf-8"))

    def lasting(value: Any) -> Any:
        if isinstance(value, dict):
            own = {*ELSEWHERE, "value"} if value.get("figure") == "latency" else ELSEWHERE
            return {key: lasting(one) for key, one in value.items() if key not in own}
        return [lasting(one) for one in value] if isinstance(value, list) else value

    return {"metrics": lasting(metrics), "gates": lasting(gates), "episodes": (run / "episodes.csv").read_bytes()}


def test_equal_seeds_give_equal_metrics_in_process_and_through_the_job_server(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, env = cluster
    runs = {}
    for where, before in (("here", []), ("there", ["job", "submit", "--address", address, "--cpus", "1"])):
        places = ["--runs-dir", str(tmp_path / where / "runs"), "--datasets-dir", str(tmp_path / where / "datasets")]
        command = [sys.executable, "-m", "roadsense", *before, *PIPELINE, *places]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1500)
        assert done.returncode == 0, (where, done.stdout[-2000:], done.stderr[-2000:])
        runs[where] = tmp_path / where / "runs" / "s7"
        assert (runs[where] / "STATUS").read_text(encoding="utf-8").strip() == REJECTED
    here, there = (outcome(run) for run in runs.values())
    assert here["metrics"]["training"]["weights_digest"] == there["metrics"]["training"]["weights_digest"]
    assert here == there
    for name in ("policy.safetensors", "model.onnx", "model.c"):
        assert (runs["here"] / name).read_bytes() == (runs["there"] / name).read_bytes(), name
