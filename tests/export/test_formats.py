"""Each format decides as the network within its bound, knows no order, and is not kept where it does not."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from roadsense.convoy.observation import NUM_PEER, PEER_FEATURES, Observation
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.export.formats import FORMATS, check_formats, export, measure
from roadsense.export.parity import made_up
from roadsense.export.quantised import strata
from roadsense.policies.onnx_file import ONNX_FORMAT_KEY, ONNX_METADATA_KEY
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths
from roadsense.runs import RunFolder

from ..policies.networks import random_actor, random_observations, write_run

SEEN = random_observations(2000, 5)


@pytest.fixture(scope="module", params=[0, 9], ids=["plain", "memory"])
def exported(request, tmp_path_factory):
    folder, actor = tmp_path_factory.mktemp("run"), random_actor(Widths(lstm=request.param))
    write_run(folder, actor)
    export(folder, list(FORMATS), SEEN)
    return folder, actor


plain = pytest.mark.parametrize("exported", [0], indirect=True, ids=["plain"])


def test_every_format_is_there_and_measured(exported):
    folder, _ = exported
    told = json.loads((folder / "parity.json").read_text())
    assert list(told["formats"]) == list(FORMATS)
    assert {"recorded", "runtime", "permuted", "padded", "observations", "model_digest"} <= set(told)
    for name, facts in told["formats"].items():
        assert facts["passed"] and facts["observations"] == 2000, name
        assert facts["largest"] == max(facts["recorded"], facts["made_up"]) <= facts["bound"] == FORMATS[name].bound
        assert facts["permuted"] <= 1e-6 and facts["padded"] <= 1e-6
        assert measure(folder, name, SEEN).document() == facts
    assert told["formats"]["onnx"]["digest"] == told["model_digest"]
    fewer_bits = [told["formats"][name]["largest"] for name in ("onnx", "fp16", "int8")]
    assert fewer_bits[0] < 1e-6 and min(fewer_bits[1:]) > 1e-5  # they do compute otherwise


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize(("count", "rows"), [(1, 0), (1, 1), (3, 0), (1, 40), (70, 16)])
def test_any_batch_and_any_number_of_rows_alone_and_together(exported, name, count, rows):
    folder, actor = exported
    policy, seen = Policy.load(folder / FORMATS[name].file), random_observations(count, rows)
    state = [torch.zeros(count, actor.widths.lstm)] * 2 if actor.widths.lstm else []
    with torch.no_grad():
        out = actor(*(torch.from_numpy(array) for array in seen), *state)
    together = policy.act_many(seen)
    assert np.abs(together - (out[0] if state else out)[:, 0].numpy()).max() <= FORMATS[name].bound
    for one in range(count):
        policy.reset(np.ones(1, np.bool_))
        alone = policy.act_many(Observation._make(array[one : one + 1] for array in seen))
        assert abs(alone[0] - together[one]) <= 1e-6


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_masked_row_changes_no_bit(exported, name):
    policy, clean = Policy.load(exported[0] / FORMATS[name].file), random_observations(100, 6)
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
    graphs = {name: onnx.load(folder / form.file) for name, form in FORMATS.items()}
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
    sizes = {name: (folder / form.file).stat().st_size for name, form in FORMATS.items()}
    assert sizes["int8"] < sizes["onnx"] and sizes["fp16"] < sizes["onnx"]


def test_policies_of_one_run_have_names_of_their_own(exported):
    folder, _ = exported
    policies = [Policy.load(folder), *(Policy.load(folder / form.file) for form in FORMATS.values())]
    assert len({policy.name for policy in policies}) == 1 + len(FORMATS)
    assert policies[-1].name == f"{folder.name}/model.int8.onnx"


@plain
def test_the_same_weights_and_observations_give_the_same_bytes_elsewhere_too(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, actor)
    np.savez(tmp_path / "seen.npz", *SEEN)
    code = """
import sys; import numpy as np
from roadsense.convoy.observation import Observation
from roadsense.export.formats import FORMATS, export
seen = np.load(sys.argv[1] + "/seen.npz")
export(sys.argv[1], list(FORMATS), Observation(*(seen[name] for name in seen.files)))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    for name in [*(form.file for form in FORMATS.values()), "parity.json"]:
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
        export(folder, ["int8"], rest)
    assert (folder / "model.int8.onnx").read_bytes() == before


def test_a_format_out_of_its_bound_is_not_left_and_the_others_are(tmp_path):
    actor = random_actor()
    with torch.no_grad():  # a weight on what is always zero, so large that a byte rounds all others away
        actor.phi.layers[1].bias[0] = -100.0
        actor.head[0].weight[:, 0] = 1e4
    write_run(tmp_path, actor)
    sentence = r"model\.int8\.onnx: its actions differ from the network's by .*, at most 0\.05 is allowed.*removed"
    with pytest.raises(RoadsenseError, match=sentence):
        export(tmp_path, ["int8", "onnx"], SEEN)
    assert not (tmp_path / "model.int8.onnx").exists() and (tmp_path / "model.onnx").exists()
    told = json.loads((tmp_path / "parity.json").read_text())
    assert told["passed"] and told["formats"]["onnx"]["passed"]
    assert not told["formats"]["int8"]["passed"] and "at most 0.05" in told["formats"]["int8"]["why"]


@plain
def test_every_bound_is_one(exported):
    found = measure(exported[0], "int8", SEEN)
    assert found.passed
    for name, value in (
        ("recorded", 0.051), ("made_up", 0.051), ("brake_agreement", 0.9949), ("permuted", 2e-6), ("padded", 2e-6)
    ):  # fmt: skip
        assert not dataclasses.replace(found, **{name: value}).passed, name
        assert not dataclasses.replace(found, **{name: np.nan}).passed, name
    assert dataclasses.replace(found, recorded=np.nan).document()["recorded"] is None
    assert (FORMATS["onnx"].bound, FORMATS["fp16"].bound) == (1e-5, 1e-2)


@plain
def test_weights_that_half_precision_cannot_hold_are_found(exported, tmp_path):
    actor = random_actor()
    with torch.no_grad():  # the first layer too large for it, the second so small that the function stays
        actor.phi.layers[0].weight.mul_(1e6)
        actor.phi.layers[0].bias.mul_(1e6)
        actor.phi.layers[1].weight.mul_(1e-6)
    write_run(tmp_path, actor)
    with pytest.raises(RoadsenseError, match=r"model\.fp16\.onnx: its actions differ from the network's by nan"):
        export(tmp_path, ["onnx", "fp16"], SEEN)
    assert not (tmp_path / "model.fp16.onnx").exists()
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]["fp16"]
    assert told["largest"] is None and not told["passed"]


@plain
def test_what_is_not_named_stays_as_it_is(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, actor)
    for form in FORMATS.values():
        (tmp_path / form.file).write_bytes((folder / form.file).read_bytes())
    (tmp_path / "parity.json").write_bytes((folder / "parity.json").read_bytes())
    (tmp_path / "model.int8.onnx").unlink()
    export(tmp_path, ["fp16"], random_observations(300, 4))
    before, after = (json.loads((one / "parity.json").read_text()) for one in (folder, tmp_path))
    assert after["formats"]["onnx"] == before["formats"]["onnx"] and after["recorded"] == before["recorded"]
    assert after["formats"]["fp16"]["observations"] == 300
    assert "int8" not in after["formats"]  # its file is gone
    (tmp_path / "parity.json").write_text('{"formats": {"onnx": 1}}')
    export(tmp_path, ["fp16"], random_observations(300, 4))
    assert list(json.loads((tmp_path / "parity.json").read_text())["formats"]) == ["fp16"]


def test_unknown_formats_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"format 'fp61' is unknown; did you mean 'fp16'\?"):
        check_formats(["onnx", "fp61"])
    with pytest.raises(UsageError, match="no format is named; known are: onnx, fp16, int8"):
        check_formats([])
    assert check_formats(["int8", "onnx", "int8"]) == ["onnx", "int8"]


def test_a_format_is_made_from_a_model_of_the_same_weights(tmp_path):
    write_run(tmp_path, random_actor())
    with pytest.raises(UsageError, match=r"model\.onnx: no such file; name the format onnx as well"):
        export(tmp_path, ["fp16"], SEEN)
    export(tmp_path, ["onnx"], SEEN)
    write_run(tmp_path, random_actor(seed=5))
    with pytest.raises(InputMismatchError, match=r"model\.onnx: was exported from other weights"):
        export(tmp_path, ["fp16"], SEEN)
    with pytest.raises(RoadsenseError, match="no observation to compare on"):
        export(tmp_path, ["onnx"], random_observations(0, 3))
    assert not (tmp_path / "model.fp16.onnx").exists()


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(RoadsenseError, match=r"signature\.json: no such file"):
        export(tmp_path, ["onnx"], SEEN)
    write_run(tmp_path, random_actor())
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(RoadsenseError, match=r"policy\.safetensors: no such file; train or export"):
        export(tmp_path, ["onnx"], SEEN)
    assert [file.name for file in tmp_path.iterdir()] == ["signature.json"]


@plain
def test_broken_files_are_one_sentence_each(exported, tmp_path):
    folder, _ = exported
    for form in FORMATS.values():
        cut = tmp_path / form.file
        cut.write_bytes((folder / form.file).read_bytes()[:3000])
        with pytest.raises(RoadsenseError, match=rf"{form.file}: cannot be read as ONNX"):
            Policy.load(cut)
        model = onnx.load(folder / form.file)
        model.opset_import[0].version = 99
        cut.write_bytes(model.SerializeToString())
        with pytest.raises(RoadsenseError, match=rf"{form.file}: is of ONNX opset 99, .* install a newer onnxruntime"):
            Policy.load(cut)
        model = onnx.load(folder / form.file)
        entry = next(one for one in model.metadata_props if one.key == ONNX_METADATA_KEY)
        entry.value = entry.value.replace('"layout_hash": "', '"layout_hash": "00')
        cut.write_bytes(model.SerializeToString())
        with pytest.raises(InputMismatchError, match=rf"{form.file}: the model reads observation layout 00"):
            Policy.load(cut)


@plain
def test_checksums_of_a_packaged_run_stay_true(exported, tmp_path, capsys, monkeypatch):
    from roadsense import cli
    from roadsense.export import formats

    monkeypatch.setattr(formats, "record", lambda run: SEEN)  # minutes of playing where kernels are not compiled yet
    write_run(tmp_path, exported[1])
    run = RunFolder(tmp_path)
    assert cli.main(["export", str(tmp_path)]) == 0
    run.write_checksums()
    assert cli.main(["export", str(tmp_path), "--formats", "fp16", "int8"]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / name) for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
    ]
    run.verify()
    assert "model.int8.onnx" in (tmp_path / "checksums.sha256").read_text()
    assert cli.main(["export", str(tmp_path), "--formats", "fp61"]) == 2
    assert capsys.readouterr().err == "roadsense: format 'fp61' is unknown; did you mean 'fp16'?\n"
    (tmp_path / "signature.json").write_text("{}")
    assert cli.main(["export", str(tmp_path), "--formats", "int8"]) == 4
