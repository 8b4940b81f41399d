"""What is timed, and that it is told of the files that were timed."""

import json

import pytest

from roadsense.errors import RoadsenseError
from roadsense.export.formats import export
from roadsense.export.latency import write_latency
from roadsense.manifest import file_digest
from roadsense.policies.signature import Widths

from ..policies.networks import random_actor, random_observations, write_run


@pytest.mark.parametrize("lstm", [0, 4])
def test_every_format_that_the_run_has_is_timed(tmp_path, lstm):
    write_run(tmp_path, random_actor(Widths(phi=(8, 8), lstm=lstm, head=(8,))))
    seen = random_observations(300, 4)
    export(tmp_path, ["onnx", "int8"], seen)
    told = json.loads(write_latency(tmp_path, seen, decisions=20).read_text())
    assert list(told["formats"]) == ["runtime", "onnx", "int8"]
    assert told["formats"]["int8"]["digest"] == file_digest(tmp_path / "model.int8.onnx")
    assert told["device"] and told["environment"]["versions"]["onnxruntime"] and told["decisions"] == 20
    for facts in told["formats"].values():
        assert list(facts["alone_by_peers"]) == ["0", "5", "20"]
        for found in facts["alone_by_peers"].values():
            assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
        assert facts["batched"]["decisions_per_second"] > 0


def test_nothing_to_decide_on_is_refused(tmp_path):
    with pytest.raises(RoadsenseError, match="no observation to decide on"):
        write_latency(tmp_path, random_observations(0, 4))
