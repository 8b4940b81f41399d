"""What is timed, and that it is told of the files that were timed."""

import json
import os
import shutil

import pytest

from roadsense.errors import RoadsenseError
from roadsense.export.formats import FORMATS
from roadsense.export.latency import measure_latency, outside
from roadsense.manifest import file_digest
from roadsense.policies.signature import Widths

from ..policies.networks import random_actor, random_observations, write_run
from .making import export, recorded


@pytest.fixture(scope="module", params=[0, 4], ids=["plain", "memory"])
def timed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, random_actor(Widths(phi=(8, 8), lstm=request.param, head=(8,))))
    seen = random_observations(300, 4)
    export(folder, ["onnx", "int8"], recorded(seen))
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    told = measure_latency(folder, seen, decisions=40)
    assert before is None or os.sched_getaffinity(0) == before  # the thread is given back its cores
    assert json.loads(json.dumps(told)) == told
    return folder, told


def test_every_format_that_the_run_has_is_timed_and_others_are_said_to_be_not(timed):
    folder, told = timed
    assert list(told["formats"]) == list(FORMATS)
    assert [name for name, facts in told["formats"].items() if facts["measured"]] == ["safetensors", "onnx", "int8"]
    assert told["formats"]["int8"]["digest"] == file_digest(folder / "model.int8.onnx")
    assert told["device"] and told["environment"]["versions"]["onnxruntime"] and told["decisions"] == 40
    for facts in [*told["formats"].values(), {"measured": True, **told["one_node_graph"]}]:
        if not facts["measured"]:
            assert facts["why"] and "alone_by_peers" not in facts
            continue
        assert list(facts["alone_by_peers"]) == ["0", "5", "20"]
        for found in facts["alone_by_peers"].values():
            assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
        assert facts["batched"]["decisions_per_second"] > 0


def test_bounds_are_judged_by_what_was_measured_alone(timed):
    _, told = timed
    bounds = {one["what"]: one for one in told["bounds"]}
    assert len(bounds) == 6 and not any("c p50" in what for what in bounds)  # there is no C to be judged
    own, node = told["formats"]["onnx"]["alone_by_peers"]["5"], told["one_node_graph"]["alone_by_peers"]["5"]
    ratio = bounds["onnx p50 / that of one node, 5 peers"]
    assert ratio["value"] == pytest.approx(own["p50"] / node["p50"], abs=1e-3) and ratio["at_most"] == 2.0
    assert bounds["onnx p99 / p50, 5 peers"]["at_most"] == 5.0
    for one in bounds.values():
        assert one["passed"] == (one["value"] <= one["at_most"])


def test_a_bound_that_is_not_kept_is_a_sentence():
    kept = {"what": "onnx p99 / p50, 0 peers", "value": 1.5, "at_most": 5.0, "passed": True}
    broken = {"what": "c p50 / onnx p50, 5 peers", "value": 1.25, "at_most": 1.0, "passed": False}
    assert outside({"bounds": [kept, broken]}) == ["c p50 / onnx p50, 5 peers is 1.25, at most 1 is allowed"]


def test_c_is_judged_where_it_is(tmp_path, require_compilers):
    write_run(tmp_path, random_actor())
    seen = random_observations(300, 4)
    export(tmp_path, ["onnx", "c"], recorded(seen))
    told = measure_latency(tmp_path, seen, decisions=40)
    assert sum("c p50 / onnx p50" in one["what"] for one in told["bounds"]) == 3


def test_a_format_that_cannot_be_opened_is_not_measured_and_the_others_are(timed, tmp_path):
    shutil.copytree(timed[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.int8.onnx").write_bytes(b"cut short")
    told = measure_latency(tmp_path, random_observations(300, 4), decisions=20)
    assert told["formats"]["onnx"]["measured"]
    spoilt = told["formats"]["int8"]
    assert not spoilt["measured"] and "model.int8.onnx: cannot be read" in spoilt["why"] and "digest" not in spoilt


def test_nothing_to_decide_on_is_refused(tmp_path):
    with pytest.raises(RoadsenseError, match="no observation to decide on"):
        measure_latency(tmp_path, random_observations(0, 4))
