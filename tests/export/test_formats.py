"""Each format decides as the network within its bound, knows no order, and is not kept where it does not."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from roadsense.convoy.observation import NUM_PEER, PEER_FEATURES, Observation
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.export import formats
from roadsense.export.formats import FORMATS, check_formats, measure
from roadsense.export.quantised import export_int8, strata
from roadsense.export.sets import made_up
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.onnx_file import ONNX_FORMAT_KEY, ONNX_METADATA_KEY
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths
from roadsense.runs import RunFolder

from ..policies.networks import random_actor, random_observations, write_run
from .making import SEEN, export, recorded

ONNX = ["onnx", "fp16", "int8"]
"""Formats that are files for ONNX Runtime; C is tested where there is a compiler."""


MANY = random_observations(10_000, 5, seed=9)


def file_of(folder, name):
    """Of a format."""
    return FORMATS[name].path(folder)


@pytest.fixture(scope="module", params=[0, 9], ids=["plain", "memory"])
def exported(request, tmp_path_factory):
    folder, actor = tmp_path_factory.mktemp("run"), random_actor(Widths(lstm=request.param))
    write_run(folder, actor)
    export(folder, ONNX)
    return folder, actor


plain = pytest.mark.parametrize("exported", [0], indirect=True, ids=["plain"])


def test_every_format_is_there_and_measured(exported):
    folder, _ = exported
    told = json.loads((folder / "parity.json").read_text())
    assert told["observations"] == {"suites": "none, made up"}
    assert list(told["formats"]) == ["safetensors", *ONNX]
    for name, facts in told["formats"].items():
        assert facts["available"] and facts["passed"] and facts["observations"] == 2000, name
        bound = FORMATS[name].bounds.difference
        assert facts["largest"] == max(facts["recorded"], facts["made_up"]) <= facts["bound"] == bound
        assert facts["permuted"] <= 1e-6 and facts["padded"] <= 1e-6
        assert (facts["from_onnx"] is None) == (name in ("safetensors", "onnx"))
    for name in ONNX:
        assert measure(folder, name, SEEN).document().items() <= told["formats"][name].items()
    differences = [told["formats"][name]["largest"] for name in ("onnx", "fp16", "int8")]
    assert differences[0] < 1e-6 and min(differences[1:]) > 1e-5  # they do compute otherwise


@pytest.mark.parametrize("name", ONNX)
@pytest.mark.parametrize(("count", "rows"), [(1, 0), (1, 1), (3, 0), (1, 40), (70, 16)])
def test_any_batch_and_any_number_of_rows_alone_and_together(exported, name, count, rows):
    folder, actor = exported
    policy, seen = Policy.load(file_of(folder, name)), random_observations(count, rows)
    state = [torch.zeros(count, actor.widths.lstm)] * 2 if actor.widths.lstm else []
    with torch.no_grad():
        out = actor(*(torch.from_numpy(array) for array in seen), *state)
    together = policy.act_many(seen)
    assert np.abs(together - (out[0] if state else out)[:, 0].numpy()).max() <= FORMATS[name].bounds.difference
    for one in range(count):
        policy.reset(np.ones(1, np.bool_))
        alone = policy.act_many(Observation._make(array[one : one + 1] for array in seen))
        assert abs(alone[0] - together[one]) <= 1e-6


@pytest.mark.parametrize("name", ONNX)
def test_a_masked_row_changes_no_bit(exported, name):
    policy, clean = Policy.load(file_of(exported[0], name)), random_observations(100, 6)
    found = []
    for rubbish in (0.0, 1e30, np.nan, np.inf):  # 1e30 is infinite in half precision
        peers = np.where(clean.peer_mask[:, :, None] == 0, np.float32(rubbish), clean.peers)
        policy.reset(np.ones(100, np.bool_))
        found.append(policy.act_many(clean._replace(peers=peers)).tobytes())
    assert len(set(found)) == 1


@plain
def test_eight_bit_sums_have_no_order_at_all(exported):
    found = measure(exported[0], "int8", random_observations(6000, 30))
    assert found.permuted == 0.0 and found.padded == 0.0


def test_files_say_what_they_are_and_keep_the_interface(exported):
    folder, _ = exported
    graphs = {name: onnx.load(file_of(folder, name)) for name in ONNX}
    told = {name: {entry.key: entry.value for entry in graph.metadata_props} for name, graph in graphs.items()}
    assert {name: one.get(ONNX_FORMAT_KEY) for name, one in told.items()} == {
        "onnx": None, "fp16": "fp16", "int8": "int8"
    }  # fmt: skip
    assert len({one[ONNX_METADATA_KEY] for one in told.values()}) == 1
    for graph in graphs.values():
        assert list(graph.graph.input) == list(graphs["onnx"].graph.input)
        assert [put.name for put in graph.graph.output] == [put.name for put in graphs["onnx"].graph.output]
        assert all(put.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for put in graph.graph.output)
    kinds = {name: {tensor.data_type for tensor in graph.graph.initializer} for name, graph in graphs.items()}
    assert onnx.TensorProto.FLOAT16 in kinds["fp16"] - kinds["onnx"]
    assert onnx.TensorProto.INT8 in kinds["int8"] and onnx.TensorProto.UINT8 not in kinds["int8"]
    sizes = {name: file_of(folder, name).stat().st_size for name in ONNX}
    assert sizes["int8"] < sizes["onnx"] and sizes["fp16"] < sizes["onnx"]


def test_policies_of_one_run_have_names_of_their_own(exported):
    folder, _ = exported
    policies = [Policy.load(folder), *(Policy.load(file_of(folder, name)) for name in ONNX)]
    assert len({policy.name for policy in policies}) == 1 + len(ONNX)
    assert policies[-1].name == f"{folder.name}/model.int8.onnx"


@plain
def test_the_same_weights_and_observations_give_the_same_bytes_elsewhere_too(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, actor)
    np.savez(tmp_path / "seen.npz", *SEEN)
    code = """
import sys; import numpy as np
from roadsense.convoy.observation import Observation
from roadsense.export.onnx import export_onnx
from roadsense.export.quantised import export_fp16, export_int8
stored = np.load(sys.argv[1] + "/seen.npz")
export_onnx(sys.argv[1]); export_fp16(sys.argv[1])
export_int8(sys.argv[1], Observation(*(stored[name] for name in stored.files)))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    for name in [file_of(folder, name).name for name in ONNX]:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_what_is_made_up_holds_every_number_of_peers_and_every_bound():
    made = made_up(SEEN, np.random.default_rng(0))
    assert set(made.peer_mask.sum(1).tolist()) == set(range(12))  # a capacity of 5, twice and one more
    used = made.peers[made.peer_mask != 0]
    for number, feature in enumerate(PEER_FEATURES):
        for bound in (feature.low, feature.high):
            assert (used[:, number] == np.float32(bound)).sum() >= 50, feature.name
    assert not made.peers[made.peer_mask == 0].any()
    nobody = made_up(random_observations(10, 0), np.random.default_rng(0))
    assert not nobody.peer_mask.any() and nobody.peers.shape[2] == NUM_PEER


def test_a_hazard_is_a_peer_that_tells_of_hard_braking():
    peers, mask = np.zeros((4, 2, NUM_PEER), np.float32), np.array([[1, 1], [1, 0], [0, 0], [1, 0]], np.int8)
    peers[0, 1, 5], peers[1, 0, 5], peers[3, 1, 5] = -3.0 / 9.0, -2.9 / 9.0, -1.0  # the last in an unused row
    found = strata(Observation(np.zeros((4, 4), np.float32), peers, mask))
    assert found["hazard"].tolist() == [True, False, False, False]
    assert found["calm"].tolist() == [False, True, False, True]
    assert found["nobody"].tolist() == [False, False, True, False]


@plain
@pytest.mark.parametrize("lacking", ["hazard", "calm"])
def test_a_recording_without_hazards_or_without_calm_calibrates_nothing(exported, lacking):
    folder, _ = exported
    rest = Observation._make(array[~strata(SEEN)[lacking]] for array in SEEN)
    before = (folder / "model.int8.onnx").read_bytes()
    with pytest.raises(RoadsenseError, match=f"is of {lacking}, so ranges cannot be calibrated"):
        export_int8(folder, rest)
    assert (folder / "model.int8.onnx").read_bytes() == before


def test_a_format_out_of_its_bound_is_not_left_and_the_others_are(tmp_path):
    actor = random_actor()
    with torch.no_grad():  # a weight on what is always zero, so large that a byte rounds all others away
        actor.phi.layers[1].bias[0] = -100.0
        actor.head[0].weight[:, 0] = 1e4
    write_run(tmp_path, actor)
    (tmp_path / "model.int8.onnx").write_bytes(b"of an earlier export")
    found, files = export(tmp_path, ["int8", "onnx"])
    assert files == [tmp_path / "model.onnx"] and list(found.refused) == ["int8"]
    assert re.match(r"its actions differ from the network's by .*, at most 0\.05 is allowed", found.refused["int8"])
    assert not (tmp_path / "model.int8.onnx").exists() and (tmp_path / "model.onnx").exists()
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]
    assert told["onnx"]["passed"] and not told["int8"]["passed"] and "at most 0.05" in told["int8"]["why"]


@plain
def test_every_bound_is_one(exported):
    found = measure(exported[0], "int8", SEEN)
    assert found.passed and dataclasses.replace(found, from_onnx=None).passed
    for name, value in (
        ("recorded", 0.051), ("made_up", 0.051), ("from_onnx", 0.051), ("brake_agreement", 0.9949),
        ("permuted", 2e-6), ("padded", 2e-6),
    ):  # fmt: skip
        assert not dataclasses.replace(found, **{name: value}).passed, name
        assert not dataclasses.replace(found, **{name: np.nan}).passed, name
    assert dataclasses.replace(found, recorded=np.nan).document()["recorded"] is None
    bounds = {name: form.bounds.difference for name, form in FORMATS.items()}
    assert bounds.items() >= {"safetensors": 1e-5, "onnx": 1e-5, "fp16": 1e-2, "int8": 5e-2, "c": 1e-6}.items()


@plain
def test_weights_that_half_precision_cannot_hold_are_found(exported, tmp_path):
    actor = random_actor()
    with torch.no_grad():  # the first layer too large for it, the second so small that the function stays
        actor.phi.layers[0].weight.mul_(1e6)
        actor.phi.layers[0].bias.mul_(1e6)
        actor.phi.layers[1].weight.mul_(1e-6)
    write_run(tmp_path, actor)
    found, _ = export(tmp_path, ["onnx", "fp16"])
    assert found.refused["fp16"].startswith("its actions differ from the network's by nan")
    assert not (tmp_path / "model.fp16.onnx").exists()
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]["fp16"]
    assert told["largest"] is None and not told["passed"]


@plain
def test_what_is_not_named_stays_as_it_is(exported, tmp_path):
    folder, _ = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.int8.onnx").unlink()
    export(tmp_path, ["fp16"], recorded(random_observations(300, 4), SEEN))
    before, after = (json.loads((one / "parity.json").read_text())["formats"] for one in (folder, tmp_path))
    assert after["onnx"] == before["onnx"]
    assert after["fp16"]["observations"] == after["safetensors"]["observations"] == 300
    assert "int8" not in after  # its file is gone
    other = onnx.load(folder / "model.onnx")
    other.producer_name = "somebody"
    onnx.save(other, tmp_path / "model.onnx")
    export(tmp_path, ["fp16"], recorded(random_observations(300, 4), SEEN))
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]
    assert list(told) == ["safetensors", "fp16"]  # what lies there was never compared
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (tmp_path / "parity.json").write_text('{"formats": {"onnx": 1}}')
    export(tmp_path, ["fp16"], recorded(random_observations(300, 4), SEEN))
    assert list(json.loads((tmp_path / "parity.json").read_text())["formats"]) == ["safetensors", "fp16"]


def test_unknown_formats_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"format 'fp61' is unknown; did you mean 'fp16'\?"):
        check_formats(["onnx", "fp61"])
    with pytest.raises(UsageError, match="format 'safetensors' is unknown"):  # nothing is written of it
        check_formats(["safetensors"])
    assert check_formats(["int8", "onnx", "int8"]) == ["onnx", "int8"]
    assert check_formats([]) == [name for name in FORMATS if name != "safetensors"]


def test_a_format_of_other_weights_is_not_compared(tmp_path):
    write_run(tmp_path, random_actor())
    with pytest.raises(UsageError, match=r"model\.fp16\.onnx: no such file; export the format fp16 first"):
        measure(tmp_path, "fp16", SEEN)
    export(tmp_path, ["onnx"])
    write_run(tmp_path, random_actor(seed=5))
    with pytest.raises(InputMismatchError, match=r"model\.onnx: was exported from other weights"):
        measure(tmp_path, "onnx", SEEN)
    with pytest.raises(RoadsenseError, match="no observation to compare on"):
        export(tmp_path, ["onnx"], recorded(random_observations(0, 3), SEEN))


@pytest.mark.parametrize("name", ["onnx", "fp16", "int8"])
def test_a_tampered_weight_makes_parity_fail(tmp_path, name):
    write_run(tmp_path, random_actor())
    export(tmp_path, ONNX)
    path = file_of(tmp_path, name)
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head_1_bias")
    by = 1.5 * FORMATS[name].bounds.difference
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(by)).tobytes()
    onnx.save(model, path)
    found = measure(tmp_path, name, SEEN)
    assert not found.passed and re.match("its actions differ from the network's by", found.why)
    tensors = path.parent / "policy.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x00")
    with pytest.raises(InputMismatchError, match="holds other weights than its signature states"):
        measure(tmp_path, name, SEEN)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(RoadsenseError, match=r"signature\.json: no such file"):
        export(tmp_path, ["onnx"])
    write_run(tmp_path, random_actor())
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(RoadsenseError, match=r"policy\.safetensors: no such file; train or export"):
        export(tmp_path, ["onnx"])
    assert [file.name for file in tmp_path.iterdir()] == ["signature.json"]


def test_c_is_said_to_be_absent_where_it_cannot_be_had(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "host_compiler", no_compiler)
    folder, _ = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    found, files = export(tmp_path, ["c"])
    assert not files and not found.refused and found.absent["c"]
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]["c"]
    assert told == {"available": False, "why": found.absent["c"]}
    assert not (tmp_path / "model.c").exists() and not (tmp_path / "model.h").exists()


def no_compiler():
    raise RoadsenseError("no C compiler found (cc, gcc, clang); install gcc or name one in CC.")


@plain
def test_broken_files_are_one_sentence_each(exported, tmp_path):
    folder, _ = exported
    for name in ONNX:
        whole = file_of(folder, name)
        cut = tmp_path / whole.name
        cut.write_bytes(whole.read_bytes()[:3000])
        with pytest.raises(RoadsenseError, match=rf"{cut.name}: cannot be read as ONNX"):
            Policy.load(cut)
        model = onnx.load(whole)
        model.opset_import[0].version = 99
        cut.write_bytes(model.SerializeToString())
        with pytest.raises(RoadsenseError, match=rf"{cut.name}: is of ONNX opset 99, .* install a newer onnxruntime"):
            Policy.load(cut)
        model = onnx.load(whole)
        entry = next(one for one in model.metadata_props if one.key == ONNX_METADATA_KEY)
        entry.value = entry.value.replace('"layout_hash": "', '"layout_hash": "00')
        cut.write_bytes(model.SerializeToString())
        with pytest.raises(InputMismatchError, match=rf"{cut.name}: the model reads observation layout 00"):
            Policy.load(cut)


@plain
def test_checksums_of_a_packaged_run_stay_true(exported, tmp_path, capsys, monkeypatch):
    from roadsense import cli
    from roadsense.export import package

    monkeypatch.setattr(package, "record", lambda run, **_: recorded(MANY, SEEN))  # recording is tested for itself
    quickly = ["--no-closed-loop", "--no-latency"]
    write_run(tmp_path, exported[1])
    run = RunFolder(tmp_path)
    assert cli.main(["export", str(tmp_path), "--formats", "onnx", *quickly]) == 0
    run.write_checksums()
    assert cli.main(["export", str(tmp_path), "--formats", "fp16,int8", *quickly]) == 0
    card = "CARD.md"
    assert capsys.readouterr().out.split() == [
        str(tmp_path / name) for name in ("model.onnx", card, "model.fp16.onnx", "model.int8.onnx", card)
    ]
    run.verify()
    assert "model.int8.onnx" in (tmp_path / "checksums.sha256").read_text()
    assert cli.main(["export", str(tmp_path), "--formats", "fp61"]) == 2
    assert capsys.readouterr().err == "roadsense: format 'fp61' is unknown; did you mean 'fp16'?\n"
    (tmp_path / "signature.json").write_text("{}")
    assert cli.main(["export", str(tmp_path), "--formats", "int8"]) == 4
    assert not (tmp_path / ".lock").exists()


@plain
def test_an_export_that_breaks_off_changes_nothing_in_the_run(exported, tmp_path, monkeypatch):
    from roadsense.export import make as making

    folder, _ = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = []

    def stopped(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 3:  # weights and ONNX are compared
            raise KeyboardInterrupt
        return measure(*arguments, **more)

    monkeypatch.setattr(making, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, ONNX, recorded(random_observations(300, 4), SEEN))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@plain
def test_what_a_killed_export_left_is_no_part_of_the_run(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / ".export").mkdir()
    (tmp_path / ".export" / "model.onnx").write_bytes(b"half")
    run = RunFolder(tmp_path)
    run.write_checksums()
    assert ".export" not in (tmp_path / "checksums.sha256").read_text()
    found, _ = export(tmp_path, ["fp16"])
    assert found.made == ["fp16"] and not (tmp_path / ".export").exists()


@plain
def test_one_format_that_cannot_be_made_leaves_the_others(exported, tmp_path):
    write_run(tmp_path, exported[1])
    rest = Observation._make(array[~strata(SEEN)["hazard"]] for array in SEEN)
    found, files = export(tmp_path, ONNX, recorded(calibration=rest))
    assert [file.name for file in files] == ["model.onnx", "model.fp16.onnx"]
    assert "ranges cannot be calibrated" in found.refused["int8"]
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]["int8"]
    assert told == {"available": True, "passed": False, "why": found.refused["int8"]}


def test_a_network_without_a_layer_for_8_bits_has_no_such_format(tmp_path):
    write_run(tmp_path, random_actor(Widths(phi=(7,), head=())))
    found, files = export(tmp_path, ONNX)
    assert [file.name for file in files] == ["model.onnx", "model.fp16.onnx"]
    assert found.absent == {"int8": "no layer of so small a network is quantised"}


@plain
def test_an_engine_of_another_machine_stays_with_its_proof(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    plan = tmp_path / "engines" / "sm10-11.0" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"a plan")
    proof = {"available": True, "passed": True, "file": "engines/sm10-11.0/model.plan", "digest": file_digest(plan)}
    told = json.loads((tmp_path / "parity.json").read_text())
    write_json(tmp_path / "parity.json", {**told, "formats": {**told["formats"], "tensorrt": proof}})
    found, _ = export(tmp_path, [])
    assert plan.read_bytes() == b"a plan"
    if "tensorrt" in found.absent:
        assert json.loads((tmp_path / "parity.json").read_text())["formats"]["tensorrt"] == proof


@plain
def test_what_is_not_exported_anew_is_not_signed_anew(exported, tmp_path, capsys):
    from roadsense import cli

    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    RunFolder(tmp_path).write_checksums()
    quickly = ["--no-closed-loop", "--no-latency"]
    for name in ("model.fp16.onnx", "parity.json"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole + b" ")
        assert cli.main(["export", str(tmp_path), "--formats", "onnx", *quickly]) == 4
        assert name in capsys.readouterr().err
        (tmp_path / name).write_bytes(whole)


def changed(folder, into, change):
    """A copy of a run whose ``model.onnx`` was changed."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    model = onnx.load(into / "model.onnx")
    change(model.graph)
    onnx.save(model, into / "model.onnx")


@plain
def test_a_graph_that_heeds_unused_rows_is_found(exported, tmp_path):
    def count_rows(graph):
        """Adds a thousandth of the number of rows, used or not, to the mean."""
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            if node.name == "pooled":
                graph.initializer.append(numpy_helper.from_array(np.float32(1e-3), "thousandth"))
                graph.node.append(onnx.helper.make_node("Mul", ["peer_mask", "zero"], ["nothing"], name="nothing"))
                graph.node.append(onnx.helper.make_node("Add", ["nothing", "thousandth"], ["each"], name="each"))
                graph.node.append(
                    onnx.helper.make_node("ReduceSum", ["each", "axis_1"], ["rows"], name="rows", keepdims=1)
                )
                graph.node.append(onnx.helper.make_node("Add", ["mean", "rows"], ["more"], name="more"))
                node.input[1] = "more"
            graph.node.append(node)
        graph.initializer.append(numpy_helper.from_array(np.float32(0.0), "zero"))

    changed(exported[0], tmp_path, count_rows)
    found = measure(tmp_path, "onnx", SEEN)
    assert found.padded > 1e-6 and not found.passed


@pytest.mark.parametrize("exported", [9], indirect=True, ids=["memory"])
def test_a_memory_that_goes_on_otherwise_is_found(exported, tmp_path):
    def forget(graph):
        """Keeps the action, and gives another cell away."""
        for node in graph.node:
            node.output[:] = ["cell_true" if name == "next_cell" else name for name in node.output]
            node.input[:] = ["cell_true" if name == "next_cell" else name for name in node.input]
        graph.node.append(onnx.helper.make_node("Neg", ["cell_true"], ["next_cell"], name="cell_false"))

    changed(exported[0], tmp_path, forget)
    found = measure(tmp_path, "onnx", SEEN)
    assert not found.passed and found.recorded > 1e-3


@plain
def test_a_graph_with_other_inputs_than_it_states_is_refused(exported, tmp_path):
    def rename(graph):
        graph.input[0].name = "car"
        for node in graph.node:
            node.input[:] = ["car" if name == "ego" else name for name in node.input]

    changed(exported[0], tmp_path, rename)
    with pytest.raises(InputMismatchError, match=r"model\.onnx: has other inputs than its signature states"):
        Policy.load(tmp_path / "model.onnx")
