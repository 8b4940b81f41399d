"""The runtime decides as torch does, and refuses what it cannot run."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

import roadsense  # noqa: F401 - registers the environment
from roadsense.convoy.observation import NUM_EGO, NUM_PEER, layout_hash
from roadsense.errors import InputMismatchError, ObservationError, RoadsenseError, UsageError
from roadsense.export.c import export_c
from roadsense.export.network import load_network
from roadsense.export.onnx import export_onnx
from roadsense.export.quantised import export_fp16, export_int8
from roadsense.policies.baselines import make_baseline
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths, weights_digest
from roadsense.policies.weights import parameter_shapes

from .networks import random_actor, random_observations, tensors_of, write_run


@pytest.fixture
def run(tmp_path):
    actor = random_actor()
    write_run(tmp_path, actor)
    return tmp_path, actor


@pytest.mark.parametrize("rows", [0, 1, 8])
def test_the_runtime_decides_as_torch(run, rows):
    folder, actor = run
    seen = random_observations(300, rows)
    with torch.no_grad():
        expected = actor(*(torch.from_numpy(array) for array in seen))[:, 0].numpy()
    found = Policy.load(folder).act_many(seen, None)
    assert found.dtype == np.float64 and found.shape == (300,)
    assert np.abs(found - expected).max() <= 1e-6


def test_a_world_gets_the_same_bits_alone_and_in_a_batch(run):
    policy, seen = Policy.load(run[0]), random_observations(40, 6)
    together = policy.act_many(seen, None)
    alone = [policy.act_many(type(seen)(*(array[w : w + 1] for array in seen)), None)[0] for w in range(40)]
    assert together.tolist() == alone


@pytest.mark.parametrize("widths", [Widths(), Widths(lstm=7)])
def test_a_masked_row_changes_no_bit(tmp_path, widths):
    write_run(tmp_path, random_actor(widths))
    policy, clean = Policy.load(tmp_path), random_observations(200, 6)
    found = []
    for rubbish in (0.0, 1e6, np.nan, np.inf):
        peers = np.where(clean.peer_mask[:, :, None] == 0, np.float32(rubbish), clean.peers)
        policy.reset(np.ones(200, np.bool_))
        found.append(policy.act_many(clean._replace(peers=peers)).tobytes())
    assert len(set(found)) == 1


def test_the_order_of_rows_and_the_capacity_change_the_action_by_at_most_1e_6(run):
    policy, seen = Policy.load(run[0]), random_observations(500, 8)
    expected, order = policy.act_many(seen), np.random.default_rng(1).permutation(8)
    shuffled = seen._replace(peers=seen.peers[:, order], peer_mask=seen.peer_mask[:, order])
    room = ((0, 0), (0, 24))
    wide = seen._replace(peers=np.pad(seen.peers, (*room, (0, 0))), peer_mask=np.pad(seen.peer_mask, room))
    for variant in (shuffled, wide):
        assert np.abs(policy.act_many(variant) - expected).max() <= 1e-6


def test_actions_are_clipped_to_what_the_control_allows(tmp_path):
    actor = random_actor()
    with torch.no_grad():
        actor.head[-1].weight.mul_(100.0)
    write_run(tmp_path, actor)
    found = Policy.load(tmp_path).act_many(random_observations(300, 6), None)
    assert found.min() == 0.0 and found.max() == 1.0


def test_a_memory_is_kept_by_world_and_forgotten_on_reset(tmp_path):
    actor = random_actor(Widths(lstm=7))
    write_run(tmp_path, actor)
    policy, seen = Policy.load(tmp_path), random_observations(3, 4)
    policy.reset(np.ones(3, np.bool_))
    state = (torch.zeros(3, 7), torch.zeros(3, 7))
    actions = []
    for _ in range(3):
        with torch.no_grad():
            expected, *state = actor(*(torch.from_numpy(array) for array in seen), *state)
        actions.append(policy.act_many(seen, None))
        assert np.abs(actions[-1] - expected[:, 0].numpy()).max() <= 1e-6
    assert (actions[0] != actions[2]).all()
    policy.reset(np.array([False, True, False]))
    again = policy.act_many(seen, None)
    assert again[1] == actions[0][1] and again[0] != actions[0][0]


def test_it_says_what_it_is(run):
    policy = Policy.load(run[0])
    assert (policy.name, policy.control, policy.privileged) == (run[0].name, "brake", False)
    assert policy.messages_per_peer == 1


def test_another_layout_is_refused_naming_both(run):
    folder, _ = run
    path = folder / "signature.json"
    document = json.loads(path.read_text())
    document["layout_hash"] = "f" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(InputMismatchError, match=f"f{{12}}.*{layout_hash(1)[:12]}"):
        Policy.load(folder)


def test_more_messages_a_peer_are_another_layout(tmp_path):
    write_run(tmp_path, random_actor(), messages_per_peer=3)
    assert Policy.load(tmp_path).messages_per_peer == 3
    document = json.loads((tmp_path / "signature.json").read_text())
    document["messages_per_peer"] = 2
    (tmp_path / "signature.json").write_text(json.dumps(document))
    with pytest.raises(InputMismatchError, match="layout"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("name", ["signature.json", "policy.safetensors"])
def test_missing_and_cut_files_are_named_in_one_sentence(run, name):
    path = run[0] / name
    whole = path.read_bytes()
    for cut in (0, 7, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(RoadsenseError) as told:
            Policy.load(run[0])
        assert str(path) in str(told.value) and "\n" not in str(told.value)
    path.unlink()
    with pytest.raises(RoadsenseError, match=f"{name}: no such file"):
        Policy.load(run[0])


def test_weights_of_another_network_are_refused(run, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_run(other, random_actor(seed=1))
    (run[0] / "policy.safetensors").write_bytes((other / "policy.safetensors").read_bytes())
    with pytest.raises(InputMismatchError, match="other weights"):
        Policy.load(run[0])
    write_run(other, random_actor(Widths(phi=(8, 8))))
    (run[0] / "policy.safetensors").write_bytes((other / "policy.safetensors").read_bytes())
    with pytest.raises(InputMismatchError, match="layers"):
        Policy.load(run[0])


def test_what_is_no_policy_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such run folder"):
        Policy.load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"neither a run folder nor an \.onnx"):
        Policy.load(tmp_path / "notes.txt")
    (tmp_path / "broken.onnx").write_bytes(b"hello")
    with pytest.raises(RoadsenseError, match=r"broken\.onnx: cannot be read as ONNX"):
        Policy.load(tmp_path / "broken.onnx")


@pytest.mark.parametrize("widths", [Widths(), Widths(phi=(5,), lstm=3, head=(7, 6))])
def test_parameters_have_the_stated_names_and_shapes(widths):
    assert {name: value.shape for name, value in tensors_of(random_actor(widths)).items()} == parameter_shapes(widths)


def test_the_digest_of_weights_sees_names_and_bits_but_not_their_order():
    one, two = np.ones(3, np.float32), np.zeros(3, np.float32)
    digest = weights_digest({"a": one, "b": two})
    assert digest == weights_digest({"b": two, "a": one}) == weights_digest({"a": torch.ones(3), "b": torch.zeros(3)})
    assert digest != weights_digest({"a": two, "b": one})
    assert digest != weights_digest({"a": np.nextafter(one, two), "b": two})


def test_the_runtime_needs_no_torch(run):
    code = (
        "import sys, roadsense.policies.runtime as r; r.Policy.load(sys.argv[1]);"
        "bad = {'torch', 'stable_baselines3', 'onnx', 'onnxruntime'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(run[0])], check=True)


def one_of(observations, world):
    """One observation as the environment gives it."""
    return {name: array[world] for name, array in observations._asdict().items()}


FILES = [".", "policy.safetensors", "model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.c"]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A run in every format that needs no GPU."""
    folder, seen = tmp_path_factory.mktemp("package"), random_observations(2000, 5)
    write_run(folder, random_actor())
    export_onnx(folder)
    export_fp16(folder)
    export_int8(folder, seen)
    export_c(folder)
    return folder


@pytest.fixture(params=FILES)
def packaged(request, package):
    if request.param == "model.c":
        request.getfixturevalue("require_compilers")
    return Policy.load(package / request.param)


def test_one_observation_is_decided_on_as_in_a_batch(packaged):
    seen = random_observations(30, 5)
    together = packaged.act_many(seen)
    for world in range(30):
        action = packaged.act(one_of(seen, world))
        assert action.shape == (1,) and action.dtype == np.float32
        assert abs(action[0] - together[world]) <= 1e-6


def test_the_environment_takes_what_it_decides(packaged, require_sumo):
    env = gym.make("Convoy-v0", engine="native")
    observation, _ = env.reset(seed=3)
    packaged.begin(seed=3)
    for _ in range(5):
        action = packaged.act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    env.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_in_every_place_and_format(packaged, value):
    seen = random_observations(NUM_EGO + NUM_PEER + 1, 3)
    seen.peer_mask[:] = 1
    for column in range(NUM_EGO):
        seen.ego[column, column] = value
    for column in range(NUM_PEER):
        seen.peers[NUM_EGO + column, column % 3, column] = value
    actions = packaged.act_many(seen)
    assert np.isnan(actions[:-1]).all() and np.isfinite(actions[-1])
    sentence = r"cannot decide on NaN or infinity \(ego: speed\); fall back on 0\.$"
    with pytest.raises(ObservationError, match=sentence):
        packaged.act(one_of(seen, 0))
    with pytest.raises(ObservationError, match=r"\(peers: left\)"):
        packaged.act(one_of(seen, NUM_EGO + 1))
    unused = one_of(seen, NUM_EGO)
    unused["peer_mask"] = np.zeros(3, np.int8)
    assert np.isfinite(packaged.act(unused)).all()  # what is not read does not matter


def test_other_parts_and_shapes_are_refused_by_name(packaged):
    good = one_of(random_observations(1, 3), 0)
    for changes, sentence in (
        ({"ego": np.zeros(5)}, r"shapes \(5,\), \(3, 8\) and \(3,\); they must be \(4,\), \(rows, 8\) and \(rows,\)"),
        ({"peers": np.zeros((2, 8))}, r"\(2, 8\) and \(3,\)"),
        ({"peer_mask": np.zeros((3, 1))}, r"\(3, 8\) and \(3, 1\)"),
        ({"ego": "fast"}, "holds numbers as ego, peers and peer_mask"),
    ):
        with pytest.raises(ObservationError, match=sentence):
            packaged.act({**good, **changes})
    with pytest.raises(ObservationError, match="peer_mask"):
        packaged.act({"ego": good["ego"], "peers": good["peers"]})
    with pytest.raises(ObservationError, match="peer_mask holds NaN or infinity"):
        packaged.act({**good, "peer_mask": [np.nan, 1.0, 0.0]})
    other = {**good, "peer_mask": good["peer_mask"].astype(float) * 256.0}  # not 0 is used
    assert packaged.act(other) == packaged.act(good)
    lists = {name: array.tolist() for name, array in good.items()}
    assert packaged.act(lists) == packaged.act(good)


def test_no_decision_is_the_drivers_where_there_is_one_and_full_braking_where_not(tmp_path):
    write_run(tmp_path, random_actor())
    assert Policy.load(tmp_path).fallback == 0.0
    write_run(tmp_path, random_actor(), control="acceleration")
    policy = Policy.load(tmp_path)
    assert policy.fallback == -1.0
    with pytest.raises(ObservationError, match=r"fall back on -1\.$"):
        policy.act({"ego": [np.nan, 0, 0, 0], "peers": np.zeros((0, 8)), "peer_mask": []})


def test_a_baseline_decides_on_one_observation_too_unless_it_reads_the_truth():
    observation = one_of(random_observations(1, 3), 0)
    assert make_baseline("always_brake").act(observation) == np.ones(1)
    for name in ("random", "cacc", "v2v_tuned"):  # which remember something
        assert np.isfinite(make_baseline(name).act(observation)).all()
    with pytest.raises(UsageError, match="oracle reads the truth"):
        make_baseline("oracle").act(observation)


def test_a_memory_goes_on_alone_and_keeps_what_it_had_where_it_refuses(tmp_path):
    write_run(tmp_path, random_actor(Widths(lstm=6)))
    export_onnx(tmp_path)
    seen, spoilt = one_of(random_observations(1, 3), 0), {"ego": [np.nan, 0, 0, 0]}
    for policy in (Policy.load(tmp_path), Policy.load(tmp_path / "model.onnx"), load_network(tmp_path)):
        policy.begin()
        first, second = policy.act(seen), policy.act(seen)
        assert first != second
        policy.begin()
        assert policy.act(seen) == first
        with pytest.raises(ObservationError):
            policy.act({**seen, **spoilt})
        assert policy.act(seen) == second
