"""The exported file decides as the network, and is the same bytes for the same weights."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation, layout_hash, unscaled
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.export.network import load_network
from roadsense.export.onnx import export_onnx
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths

from ..policies.networks import random_actor, random_observations, write_run


def raw(observation):
    """An observation as the graph takes it."""
    ego, peers, mask = unscaled(observation)
    return {"ego": ego, "peers": peers, "peer_mask": mask.astype(np.float32)}


@pytest.fixture(scope="module", params=[0, 9], ids=["plain", "memory"])
def exported(request, tmp_path_factory):
    folder, actor = tmp_path_factory.mktemp("run"), random_actor(Widths(lstm=request.param))
    write_run(folder, actor)
    export_onnx(folder)
    return folder, actor


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


def test_the_graph_alone_reads_no_row_that_is_masked(exported):
    folder, actor = exported
    session, clean = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes()), random_observations(100, 6)
    state = {name: np.zeros((100, actor.widths.lstm), np.float32) for name in ("hidden", "cell") if actor.widths.lstm}
    found = []
    for rubbish in (0.0, -3.0, 1e20):
        peers = np.where(clean.peer_mask[:, :, None] == 0, np.float32(rubbish), clean.peers)
        found.append(session.run(["action"], {**raw(clean._replace(peers=peers)), **state})[0].tobytes())
    assert len(set(found)) == 1


def test_the_graph_takes_raw_values_and_clips_them_as_the_environment_does(exported):
    folder, actor = exported
    session, rng = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes()), np.random.default_rng(0)
    seen = random_observations(400, 5)
    parts, shown = [], []
    for features, values in ((EGO_FEATURES, seen.ego), (PEER_FEATURES, seen.peers)):
        scale, low, high = (np.array([getattr(one, of) for one in features]) for of in ("scale", "low", "high"))
        far = rng.uniform(3.0 * np.minimum(low, -high), 3.0 * high, values.shape)  # most lie beyond a bound
        shown.append((far * scale).astype(np.float32))
        parts.append(np.clip(far, low, high).astype(np.float32))
        assert (np.clip(far, low, high) != far).any(tuple(range(far.ndim - 1))).all()
    state = {name: np.zeros((400, actor.widths.lstm), np.float32) for name in ("hidden", "cell") if actor.widths.lstm}
    mask = seen.peer_mask.astype(np.float32)
    actions = session.run(["action"], {"ego": shown[0], "peers": shown[1], "peer_mask": mask, **state})[0][:, 0]
    wanted = load_network(folder).act_many(Observation(*parts, seen.peer_mask))
    assert np.ptp(wanted) > 0.1 and np.abs(actions - wanted).max() <= 2e-6


def test_a_file_that_takes_other_inputs_is_refused(exported, tmp_path):
    model = onnx.load(exported[0] / "model.onnx")
    text = model.metadata_props[0].value
    assert '"raw values"' in text
    model.metadata_props[0].value = text.replace('"raw values"', '"raw value / scale, clipped"')
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputMismatchError, match=r"model\.onnx: takes other inputs than this version gives; train or"):
        Policy.load(tmp_path / "model.onnx")


def test_a_decision_alone_takes_few_nodes(exported):
    model = onnx.load(exported[0] / "model.onnx")
    assert len(model.graph.node) <= (24 if not exported[1].widths.lstm else 36)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_actions_are_clipped_as_the_network_clips_them(tmp_path, bounds):
    actor = random_actor()
    actor.bounds = bounds
    actor.head[-1].weight.data.mul_(100.0)
    write_run(tmp_path, actor, control="brake" if bounds[0] == 0.0 else "acceleration")
    export_onnx(tmp_path)
    seen = random_observations(500, 4)
    actions = Policy.load(tmp_path / "model.onnx").act_many(seen)
    assert (actions.min(), actions.max()) == bounds
    assert np.abs(actions - load_network(tmp_path).act_many(seen)).max() <= 1e-5


@pytest.mark.parametrize("widths", [Widths(phi=(7,), head=()), Widths(phi=(5, 40, 9), head=(3, 11))], ids=str)
def test_networks_of_any_depth_decide_alike(tmp_path, widths):
    write_run(tmp_path, random_actor(widths))
    export_onnx(tmp_path)
    seen = random_observations(500, 6)
    own = Policy.load(tmp_path / "model.onnx").act_many(seen)
    assert np.ptp(own) > 0.01
    assert np.abs(own - load_network(tmp_path).act_many(seen)).max() <= 1e-6


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


def test_an_export_of_another_layout_is_refused(exported, tmp_path):
    model = onnx.load(exported[0] / "model.onnx")
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
