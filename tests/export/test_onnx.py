"""The exported file decides as the network, and is the same bytes for the same weights."""

import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from roadsense.convoy.observation import layout_hash
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.export.onnx import export_onnx, parity
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths

from ..policies.networks import random_actor, random_observations, write_run


@pytest.fixture(scope="module", params=[0, 9], ids=["plain", "memory"])
def exported(request, tmp_path_factory):
    folder, actor = tmp_path_factory.mktemp("run"), random_actor(Widths(lstm=request.param))
    write_run(folder, actor)
    export_onnx(folder)
    return folder, actor


@pytest.mark.parametrize(("count", "rows"), [(1, 0), (1, 1), (5, 0), (3000, 7)])
def test_parity_over_any_batch_and_any_number_of_rows(exported, count, rows):
    found = parity(exported[0], random_observations(count, rows))
    assert found.passed and found.observations == count
    assert found.largest <= 1e-6


def test_order_and_capacity_may_change_less_than_another_implementation(exported):
    found = parity(exported[0], random_observations(10, 3))
    assert found.passed
    assert dataclasses.replace(found, recorded=9e-6, runtime=9e-6).passed
    for name, bound in (("recorded", 1e-5), ("runtime", 1e-5), ("permuted", 1e-6), ("padded", 1e-6)):
        assert not dataclasses.replace(found, **{name: 1.1 * bound}).passed
        assert not dataclasses.replace(found, **{name: np.nan}).passed


def test_numpy_torch_and_onnx_agree(exported):
    folder, actor = exported
    seen = random_observations(500, 5)
    lstm = actor.widths.lstm
    state = [torch.zeros(500, lstm)] * 2 if lstm else []
    with torch.no_grad():
        out = actor(*(torch.from_numpy(array) for array in seen), *state)
    of_torch = (out[0] if lstm else out)[:, 0].numpy()
    assert np.ptp(of_torch) > 0.1
    for path in (folder, folder / "model.onnx"):
        policy = Policy.load(path)
        assert np.abs(policy.act_many(seen, None) - of_torch).max() <= 1e-6
        policy.reset(np.ones(500, np.bool_))
        assert np.abs(policy.act_many(seen, None) - of_torch).max() <= 1e-6


def test_a_masked_row_changes_no_bit(exported):
    policy, clean = Policy.load(exported[0] / "model.onnx"), random_observations(100, 6)
    dirty = clean._replace(peers=np.where(clean.peer_mask[:, :, None] == 0, np.float32(np.nan), clean.peers))
    first = policy.act_many(clean, None)
    policy.reset(np.ones(100, np.bool_))
    assert first.tobytes() == policy.act_many(dirty, None).tobytes()


def test_the_file_stands_alone_and_says_what_it_is(exported):
    folder, actor = exported
    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer)
    told = path.read_bytes()
    assert b"roadsense/" not in told and b"stack_trace" not in told  # nothing of the machine it was made on
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "policy.safetensors", "signature.json"]
    names = ["ego", "peers", "peer_mask"] + (["hidden", "cell"] if actor.widths.lstm else [])
    assert [put.name for put in model.graph.input] == names
    assert model.graph.output[0].name == "action"
    policy = Policy.load(path)
    assert policy.signature == Policy.load(folder).signature and policy.name == f"{folder.name}/model.onnx"


@pytest.mark.parametrize("exported", [0], indirect=True)
def test_the_same_weights_give_the_same_bytes_elsewhere_too(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, actor)
    code = "import sys; from roadsense.export.onnx import export_onnx; export_onnx(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_parity_finds_a_file_that_decides_otherwise(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, actor)
    model = onnx.load(folder / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == f"head.{len(actor.head) - 1}.bias")
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(3e-5)).tobytes()
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RoadsenseError, match="differ from the network's by 3"):
        parity(tmp_path, random_observations(50, 4))


def test_an_export_of_other_weights_and_of_another_layout_is_refused(exported, tmp_path):
    folder, actor = exported
    write_run(tmp_path, random_actor(actor.widths, seed=5))
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.raises(RoadsenseError, match="other weights"):
        parity(tmp_path, random_observations(5, 2))
    model = onnx.load(folder / "model.onnx")
    text = model.metadata_props[0].value
    model.metadata_props[0].value = text.replace(layout_hash(1), "e" * 64)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputMismatchError, match=f"e{{12}}.*{layout_hash(1)[:12]}"):
        Policy.load(tmp_path / "model.onnx")


def test_a_cut_file_is_named(exported, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes((exported[0] / "model.onnx").read_bytes()[:2000])
    with pytest.raises(RoadsenseError, match=r"model\.onnx: cannot be read as ONNX"):
        Policy.load(path)
