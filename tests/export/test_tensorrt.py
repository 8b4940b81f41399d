"""An engine decides as the network and runs nothing that it was not built for; without a GPU, all that can be known."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from roadsense.convoy.observation import Observation
from roadsense.errors import InputMismatchError, ObservationError, RoadsenseError, UsageError
from roadsense.export.onnx import export_onnx
from roadsense.export.quantised import export_fp16, export_int8
from roadsense.export.sets import permuted
from roadsense.export.tensorrt import export_engine, graph_problems, why_unavailable
from roadsense.policies.engine import EnginePolicy, EngineRecord, read_record
from roadsense.policies.gpu import Device, output_shapes
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths, read_signature

from ..policies.networks import random_actor, random_observations, write_run

WHY = why_unavailable()
GRAPHS = ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
HERE = Device(name="NVIDIA H100 80GB HBM3", compute_capability="9.0", tensorrt="11.4.0.106")
plain = pytest.mark.parametrize("exported", [0], indirect=True, ids=["plain"])


@pytest.fixture(scope="module", params=[0, 9], ids=["plain", "memory"])
def exported(request, tmp_path_factory):
    folder, actor = tmp_path_factory.mktemp("run"), random_actor(Widths(lstm=request.param))
    write_run(folder, actor)
    export_onnx(folder)
    export_fp16(folder)
    export_int8(folder, random_observations(2000, 5))
    return folder, actor


def _session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _record(plan, signature, **changed):
    digests = {"plan_sha256": hashlib.sha256(plan).hexdigest(), "onnx_sha256": "0" * 64}
    stated = {**digests, "weights_digest": signature.weights_digest, "device": HERE, "max_batch": 7, "max_rows": 12}
    return EngineRecord(**{**stated, **changed})


def _lay_out(run, plan=b"a plan", **changed):
    folder = run / "engines" / HERE.folder
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(plan)
    (folder / "engine.json").write_text(_record(plan, read_signature(run), **changed).model_dump_json())
    return folder / "model.plan"


# what holds everywhere


@pytest.fixture
def stand_in(exported):
    """The policy around an engine, with the graph an engine is built from on ONNX Runtime in the engine's place."""
    folder, _ = exported
    session = _session((folder / "model.onnx").read_bytes())
    names, asked = [put.name for put in session.get_outputs()], []

    def run(inputs):
        batch, rows = inputs["peer_mask"].shape
        assert 1 <= batch <= 7 and 1 <= rows <= 12
        asked.append((batch, rows))
        answer = session.run(names, {name: array.astype(np.float32) for name, array in inputs.items()})
        return dict(zip(names, answer, strict=True))

    signature = read_signature(folder)
    return EnginePolicy("engine", signature, run, _record(b"", signature), {}), asked


@pytest.mark.parametrize("rows", range(13))
def test_any_batch_and_rows_reach_the_engine_within_its_profile(exported, stand_in, rows):
    (policy, asked), network = stand_in, Policy.load(exported[0])
    for count, parts in ((0, []), (1, [1]), (7, [7]), (8, [7, 1]), (20, [7, 7, 6])):
        seen = random_observations(count, rows, seed=rows)
        for one in (policy, network):
            one.reset(np.ones(count, np.bool_))
        asked.clear()
        for _ in range(3):  # a memory goes on
            assert np.abs(policy.act_many(seen) - network.act_many(seen)).max(initial=0.0) <= 1e-6
        assert asked == 3 * [(part, max(rows, 1)) for part in parts]


def test_rows_beyond_the_profile_are_refused_and_never_dropped(stand_in):
    policy, asked = stand_in
    with pytest.raises(
        ObservationError, match=r"^engine takes up to 12 rows, not 13; build the engine for more rows\.$"
    ):
        policy.act_many(random_observations(2, 13))
    assert not asked


def test_rubbish_in_unused_rows_is_nothing_and_nan_elsewhere_is_no_decision(exported, stand_in):
    (policy, _), network, seen = stand_in, Policy.load(exported[0]), random_observations(9, 5)
    clean = policy.act_many(seen)
    for rubbish in (1e30, np.nan, np.inf):
        peers = np.where(seen.peer_mask[:, :, None] == 0, np.float32(rubbish), seen.peers)
        for one in (policy, network):
            one.reset(np.ones(9, np.bool_))
        found, refused = (
            policy.act_many(seen._replace(peers=peers)),
            np.isnan(network.act_many(seen._replace(peers=peers))),
        )
        assert np.array_equal(np.isnan(found), refused)
        assert found[~refused].tobytes() == clean[~refused].tobytes()
    policy.act_many(seen)
    before, ego = policy._hidden.copy(), seen.ego.copy()
    ego[4, 1] = np.inf
    actions = policy.act_many(seen._replace(ego=ego))
    assert np.flatnonzero(np.isnan(actions)).tolist() == [4]
    assert np.isfinite(policy._hidden).all() and np.array_equal(policy._hidden[4], before[4])
    if exported[1].widths.lstm:
        assert not np.array_equal(policy._hidden[3], before[3])


def test_nan_is_no_decision_whatever_a_gpu_makes_of_it(exported):
    signature = read_signature(exported[0])

    def swallow(inputs):
        shapes = output_shapes(signature, len(inputs["ego"]))
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    policy, seen = EnginePolicy("engine", signature, swallow, _record(b"", signature), {}), random_observations(9, 5)
    seen.ego[4, 1], seen.peers[7, seen.peer_mask[7].argmax(), 2] = np.nan, -np.inf
    assert np.flatnonzero(np.isnan(policy.act_many(seen))).tolist() == [4, 7]


def test_a_closed_policy_says_so(stand_in):
    policy, _ = stand_in
    policy.close()
    with pytest.raises(RoadsenseError, match="this engine was closed; load the policy again"):
        policy.act_many(random_observations(1, 1))


@plain
def test_a_plan_is_refused_before_it_is_deserialised(exported, tmp_path):
    write_run(tmp_path, exported[1])
    plan = _lay_out(tmp_path)
    record = plan.parent / "engine.json"
    text = record.read_text()
    assert read_record(record).device == HERE

    plan.write_bytes(b"a plaN")
    with pytest.raises(InputMismatchError, match=r"model\.plan: is not the plan that its engine\.json was written for"):
        Policy.load(plan)
    plan.write_bytes(b"a plan")
    write_run(tmp_path, random_actor(seed=5))
    with pytest.raises(InputMismatchError, match=r"model\.plan: was built from other weights than its run holds"):
        Policy.load(plan)
    write_run(tmp_path, exported[1])
    for broken, sentence in (
        (text[:40], r"engine\.json: cannot be read"),
        ("[]", r"engine\.json: describes no engine \(the document .*\); build the engine again"),
        (
            text.replace("max_rows", "max_row"),
            r"max_rows is missing, add it; max_row is unknown, did you mean 'max_rows'",
        ),
        (text.replace('"max_batch":7', '"max_batch":0'), "max_batch is 0, input should be greater"),
        (text.replace(read_record(record).plan_sha256, "no digest"), "plan_sha256 is 'no digest'"),
    ):
        record.write_text(broken)
        with pytest.raises(RoadsenseError, match=sentence):
            Policy.load(plan)
    record.unlink()
    with pytest.raises(RoadsenseError, match=r"engine\.json: no such file, so nobody knows what the plan beside it is"):
        Policy.load(plan)
    (tmp_path / "model.plan").write_bytes(b"a plan")
    with pytest.raises(RoadsenseError, match=r"model\.plan: does not lie in engines/<device> of a run"):
        Policy.load(tmp_path / "model.plan")


@plain
@pytest.mark.parametrize(
    ("field", "value"), [("name", "NVIDIA H200"), ("compute_capability", "8.9"), ("tensorrt", "11.4.1.2")]
)
def test_a_plan_of_another_device_is_refused(exported, field, value):
    record = _record(b"", read_signature(exported[0]))
    record.check_device(HERE, "model.plan")
    other = Device(**{**HERE.__dict__, field: value})
    with pytest.raises(
        InputMismatchError, match=rf"model\.plan: was built for .*TensorRT 11\.4\.0\.106, this is .*{value}"
    ):
        record.check_device(other, "model.plan")
    assert (other.folder != HERE.folder) == (field != "name")


@plain
@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_a_plan_is_one_sentence(exported, tmp_path, monkeypatch):
    write_run(tmp_path, exported[1])
    plan = _lay_out(tmp_path)
    for path in (plan, None):
        monkeypatch.chdir(plan.parent)
        with pytest.raises(RoadsenseError, match=r"^tensorrt is not installed; install it with: pip install .*\.$"):
            Policy.load(path or "model.plan")


@pytest.mark.skipif(not WHY, reason="an engine can be built here")
def test_without_a_gpu_there_is_one_reason_and_nothing_is_loaded_for_it():
    code = """
import sys
from roadsense.export.tensorrt import why_unavailable
print(why_unavailable(), "|", {"tensorrt", "tensorrt_bindings", "cuda"} & set(sys.modules))
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert told.split(" | ")[0] == WHY and "\n" not in WHY and WHY[-1] != "."
    if "no NVIDIA driver" in WHY:
        assert told.endswith("| set()")


@plain
@pytest.mark.skipif(not WHY, reason="an engine can be built here")
def test_without_a_gpu_an_export_is_one_sentence_and_leaves_nothing(exported, tmp_path):
    write_run(tmp_path, exported[1])
    export_onnx(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RoadsenseError) as caught:
        export_engine(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no engine can be built, {WHY}; build it on the machine that is to run it."
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_in_the_exported_graphs_is_known_to_be_refused(exported, name):
    assert graph_problems(exported[0] / name) == []


def _opset(model):
    model.opset_import[0].version = 99


def _plugin(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _made_up(model):
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Unique"


def _subgraph(model):
    branch = helper.make_graph([helper.make_node("Identity", ["ego"], ["same"])], "branch", [], [])
    node = helper.make_node("If", ["whether"], ["either"], "either", then_branch=branch, else_branch=branch)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "whether"))
    model.graph.node.append(node)


def _double(model):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3), "wide"))


def _cast_to_double(model):
    model.graph.node.append(helper.make_node("Cast", ["ego"], ["wide"], "widen", to=TensorProto.DOUBLE))


def _byte(model):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.int8), "bytes"))
    model.graph.node.append(helper.make_node("Cast", ["bytes"], ["numbers"], "narrow", to=TensorProto.FLOAT))


def _integer_product(model):
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.int64), "whole"))
    model.graph.node.append(helper.make_node("MatMul", ["whole", "whole"], ["product"], "product"))


def _dimension(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"


def _further_input(model):
    model.graph.input.append(helper.make_tensor_value_info("weather", TensorProto.FLOAT, ["batch", "rows"]))


def _long(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**31]), "long"))


def _elsewhere(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _set(model, name, change):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def _quantising(model):
    """The node that quantises an activation first, and that which dequantises weights first."""
    weights = {tensor.name for tensor in model.graph.initializer}
    activation = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    weight = next(
        node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights
    )  # fmt: skip
    return activation, weight


def _zero_point(model):
    _set(model, _quantising(model)[0].input[2], lambda value: value + np.int8(3))


def _unsigned(model):
    _set(model, _quantising(model)[0].input[2], lambda value: value.astype(np.uint8))


def _scale(model):
    _set(model, _quantising(model)[1].input[1], lambda value: value * (np.arange(len(value)) != 5).astype(np.float32))


def _infinite_scale(model):
    _set(model, _quantising(model)[0].input[1], lambda value: value * np.float32(np.inf))


def _fewer_zero_points(model):
    _set(model, _quantising(model)[1].input[2], lambda value: value[:1])


def _activation(model):
    _set(model, _quantising(model)[0].input[1], lambda value: np.full(32, value))
    _set(model, _quantising(model)[0].input[2], lambda value: np.zeros(32, np.int8))


def _axis(model):
    attribute = next(one for one in _quantising(model)[1].attribute if one.name == "axis")
    attribute.i = 1 - attribute.i


def _negative_axis(model):
    attribute = next(one for one in _quantising(model)[1].attribute if one.name == "axis")
    attribute.i = -1 - attribute.i


def _computed_scale(model):
    _quantising(model)[0].input[1] = "ego"


@plain
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_opset, "it is of opset 99, read are 9 to 24"),
        (_plugin, "it uses operators of com.example, which need plugins"),
        (_made_up, "is a Unique, which TensorRT does not know"),
        (_subgraph, "node either holds a graph, which is not looked into"),
        (_double, "tensor wide is of type DOUBLE, which TensorRT does not compute in"),
        (_cast_to_double, "tensor wide is of type DOUBLE, which TensorRT does not compute in"),
        (_byte, r"node narrow \(Cast\) takes no INT8"),
        (_integer_product, r"node product \(MatMul\) takes no INT64"),
        (_dimension, r"its input ego is of shape \('batch', 'features'\), which no profile reaches"),
        (_further_input, r"its input weather is of shape \('batch', 'rows'\), which no profile reaches"),
        (_long, "weights long do not fit into 32 bits"),
        (_elsewhere, "weights .* lie in another file"),
        (_zero_point, "has a zero point other than 0"),
        (_unsigned, "quantises to UINT8, not to INT8"),
        (_scale, "has a scale that is not above 0"),
        (_infinite_scale, "has a scale that is not above 0"),
        (_fewer_zero_points, r"has 1 zero points for \d\d scales"),
        (_activation, "has 32 scales for an activation, which takes one"),
        (_axis, r"has scales along axis (?:0 of weights whose outputs lie along axis 1|1 .* axis 0)"),
        (_negative_axis, r"has scales along axis (?:0 of weights whose outputs lie along axis 1|1 .* axis 0)"),
        (_computed_scale, "has a scale or zero point that is no constant of the file"),
    ],
    ids=lambda part: part.__name__ if callable(part) else "",
)
def test_every_defect_is_found(exported, tmp_path, spoil, sentence):
    model = onnx.load(exported[0] / "model.int8.onnx")
    spoil(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = graph_problems(path)
    assert any(re.search(sentence, one) for one in found), found


def test_what_is_no_graph_is_found(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    assert graph_problems(tmp_path / "model.onnx") == ["it cannot be read as ONNX (DecodeError)"]


# what needs a GPU


@pytest.fixture(scope="module")
def built(exported):
    if WHY and os.environ.get("ROADSENSE_REQUIRE_TENSORRT") == "1":
        pytest.fail(f"{WHY}, and ROADSENSE_REQUIRE_TENSORRT=1 asks for an engine", pytrace=False)
    if WHY:
        pytest.skip(WHY)
    folder, actor = exported
    return export_engine(folder, max_batch=1024, max_rows=40), actor


def _network(actor, seen):
    state = [torch.zeros(len(seen.ego), actor.widths.lstm)] * 2 if actor.widths.lstm else []
    with torch.no_grad():
        out = actor(*(torch.from_numpy(array) for array in seen), *state)
    return (out[0] if state else out)[:, 0].numpy()


def _afresh(policy, seen):
    policy.reset(np.ones(len(seen.ego), np.bool_))
    return policy.act_many(seen)


def test_an_engine_decides_as_the_network_and_as_onnx_runtime(built):
    plan, actor = built
    policy, runtime = Policy.load(plan), Policy.load(plan.parents[2] / "model.onnx")
    largest = 0.0
    for rows in range(34):
        seen = random_observations(320, rows, seed=rows)
        found = _afresh(policy, seen)
        for expected in (_network(actor, seen), _afresh(runtime, seen)):
            largest = max(largest, float(np.abs(found - expected).max()))
    assert 34 * 320 >= 10_000 and largest <= 1e-4


def test_an_engine_remembers_as_the_network(built):
    plan, _ = built
    policy, network = Policy.load(plan), Policy.load(plan.parents[2])
    for step in range(20):
        seen = random_observations(50, 4, seed=step)
        assert np.abs(policy.act_many(seen) - network.act_many(seen)).max() <= 1e-4


@pytest.mark.parametrize(("count", "rows"), [(1, 6), (1024, 40), (1025, 6), (2500, 6)])
def test_an_engine_decides_on_more_worlds_than_its_profile(built, count, rows):
    plan, actor = built
    policy, seen = Policy.load(plan), random_observations(count, rows)
    together = _afresh(policy, seen)
    assert np.abs(together - _network(actor, seen)).max() <= 1e-4
    for one in {0, count // 2, count - 1}:
        alone = _afresh(policy, Observation._make(array[one : one + 1] for array in seen))
        assert abs(alone[0] - together[one]) <= 1e-6
    with pytest.raises(ObservationError, match="takes up to 40 rows, not 41"):
        policy.act_many(random_observations(count, 41))


def test_order_and_capacity_hardly_change_an_engines_actions_and_unused_rows_no_bit(built):
    plan, _ = built
    policy, seen = Policy.load(plan), random_observations(1000, 20)
    found = _afresh(policy, seen)
    assert np.abs(_afresh(policy, permuted(seen, np.random.default_rng(0))) - found).max() <= 1e-6
    wider = Observation(
        seen.ego, np.pad(seen.peers, ((0, 0), (0, 9), (0, 0))), np.pad(seen.peer_mask, ((0, 0), (0, 9)))
    )
    assert np.abs(_afresh(policy, wider) - found).max() <= 1e-6
    for rubbish in (1e30, np.nan, np.inf):
        peers = np.where(seen.peer_mask[:, :, None] == 0, np.float32(rubbish), seen.peers)
        assert _afresh(policy, seen._replace(peers=peers)).tobytes() == found.tobytes()
    ego = seen.ego.copy()
    ego[3, 0] = np.nan
    assert np.flatnonzero(np.isnan(_afresh(policy, seen._replace(ego=ego)))).tolist() == [3]


def test_a_plan_of_another_device_and_a_changed_one_are_refused(built):
    plan, _ = built
    record = plan.parent / "engine.json"
    content, text = plan.read_bytes(), record.read_text()
    try:
        record.write_text(json.dumps({**json.loads(text), "device": HERE.__dict__ | {"name": "another GPU"}}))
        with pytest.raises(InputMismatchError, match=r"was built for another GPU .*, this is "):
            Policy.load(plan)
        record.write_text(text)
        plan.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputMismatchError, match=r"is not the plan that its engine\.json was written for"):
            Policy.load(plan)
        cut = content[: len(content) // 2]
        plan.write_bytes(cut)
        forged = {**json.loads(text), "plan_sha256": hashlib.sha256(cut).hexdigest()}
        record.write_text(json.dumps(forged))
        with pytest.raises(RoadsenseError, match=r"model\.plan: cannot be opened \(.*\); build the engine again"):
            Policy.load(plan)
    finally:
        plan.write_bytes(content)
        record.write_text(text)


def test_a_plan_of_another_network_is_refused_whatever_its_record_says(built, tmp_path):
    plan, actor = built
    write_run(tmp_path / "other", random_actor(Widths(lstm=3 if actor.widths.lstm else 9)))
    export_onnx(tmp_path / "other")
    other = export_engine(tmp_path / "other")
    write_run(tmp_path, actor)
    forged = tmp_path / plan.relative_to(plan.parents[2])
    forged.parent.mkdir(parents=True)
    forged.write_bytes(other.read_bytes())
    record = read_record(other.parent / "engine.json")
    mine = record.model_copy(update={"weights_digest": read_signature(tmp_path).weights_digest})
    (forged.parent / "engine.json").write_text(mine.model_dump_json())
    with pytest.raises(InputMismatchError, match=r"model\.plan: takes or gives something else than its run states"):
        Policy.load(forged)


def test_an_engine_is_built_from_the_runs_own_weights(built, tmp_path):
    _, actor = built
    write_run(tmp_path, random_actor(actor.widths, seed=5))
    with pytest.raises(UsageError, match=r"model\.onnx: no such file; export the format onnx first"):
        export_engine(tmp_path)
    export_onnx(tmp_path)
    write_run(tmp_path, actor)
    with pytest.raises(InputMismatchError, match=r"model\.onnx: was exported from other weights"):
        export_engine(tmp_path)
    assert not (tmp_path / "engines").exists()


def test_a_decision_alone_takes_milliseconds_at_most(built):
    policy, seen = Policy.load(built[0]), random_observations(1, 5)
    taken = []
    for _ in range(500):
        begun = time.perf_counter()
        policy.act_many(seen)
        taken.append(time.perf_counter() - begun)
    assert np.median(taken[100:]) < 2e-3


def test_a_policy_gives_back_what_it_holds_on_the_gpu(built):
    from cuda.bindings import runtime as cuda

    def free():
        Policy.load(built[0]).close()
        return cuda.cudaMemGetInfo()[1]

    free()  # what TensorRT loads once
    before = free()
    for _ in range(20):
        after = free()
    assert before - after < 5 * 1024 * 40 * 8 * 4  # of the peers alone, twenty policies would hold four times this
