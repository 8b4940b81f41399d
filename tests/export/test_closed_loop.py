"""An exported file drives as the network does, or it is found out and taken away."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from roadsense.convoy.observation import PEER_FEATURES
from roadsense.errors import InputMismatchError
from roadsense.evaluation.metrics import measure
from roadsense.export import package
from roadsense.export.closed_loop import ClosedLoopConfig, _figures, compare_policies, play_formats
from roadsense.export.network import load_network
from roadsense.export.onnx import export_onnx
from roadsense.export.package import ExportConfig, export_formats
from roadsense.export.recording import Recording, record
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths

from ..evaluation.traces import trace
from ..policies.networks import random_actor, random_observations, write_run
from .making import export

ACCEL = [feature.name for feature in PEER_FEATURES].index("accel")
QUICK = ClosedLoopConfig(episodes_per_bucket=1)


def listening_actor():
    """A network that brakes as hard as the hardest braking it hears of: a weak policy, but one that listens."""
    actor = random_actor(Widths(phi=(8, 8), head=(8,)))
    for parameter in actor.parameters():
        parameter.data.zero_()
    actor.phi.layers[0].weight.data[0, ACCEL] = -1.0
    actor.phi.layers[0].bias.data[0] = -0.08  # less is noise
    actor.phi.layers[1].weight.data[0, 0] = 1.0
    actor.head[0].weight.data[0, 0] = 6.0
    actor.head[1].weight.data[0, 0] = 1.0
    return actor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, listening_actor())
    export_onnx(folder)
    return folder


def scaled(run, into, factor):
    """A copy of the run whose ``model.onnx`` takes reported accelerations to be of another scale."""
    for file in run.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    model = onnx.load(into / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "peers_shares_per_unit")
    values = numpy_helper.to_array(weight).copy()
    values[ACCEL] *= np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, into / "model.onnx")
    return into


@pytest.fixture(scope="module")
def driven(run):
    return play_formats(run, ["onnx", "safetensors"], QUICK, progress=False)


def test_a_file_of_the_same_network_drives_alike(driven):
    found = driven
    assert list(found) == ["onnx", "safetensors"]
    for facts in found.values():
        assert facts["passed"] and "why" not in facts and facts["episodes"] == 432
        assert list(facts["radios"]) == ["convoy", "lossy:0.3,4.6"]
        assert facts["gates"]["passed"] == facts["gates"]["passed_by_network"] <= facts["gates"]["asked"] >= 10
        for figures in facts["radios"].values():
            collisions, braked = figures["collisions_in_hazards"], figures["false_brakes_per_calm_km"]
            assert collisions["n"] == 216 and collisions["format"] == collisions["network"]
            assert collisions["only_format"] == collisions["only_network"] == 0
            assert braked["format"] == pytest.approx(braked["network"], rel=0.02) and braked["network"] > 0.0
            reactions = figures["reaction_from_onset_s"]
            assert reactions["format"] == reactions["network"] and 0.0 < reactions["network"]["p50"] < 1.0
    assert json.loads(json.dumps(found)) == found


def test_a_wrong_scale_is_found(run, tmp_path):
    deaf = play_formats(scaled(run, tmp_path, 1 / 9.81), ["onnx"], QUICK, progress=False)["onnx"]
    assert not deaf["passed"]
    collisions = deaf["radios"]["convoy"]["collisions_in_hazards"]
    assert collisions["format"] > collisions["network"] + 50 and collisions["p"] < 1e-6
    assert "convoy: it collides in" in deaf["why"] and "does not react" in deaf["why"]


def test_a_scale_that_only_frightens_is_found_too(run, tmp_path):
    scared = play_formats(scaled(run, tmp_path, 3.0), ["onnx"], QUICK, progress=False)["onnx"]
    assert not scared["passed"] and "it brakes for nothing" in scared["why"]
    braked = scared["radios"]["convoy"]["false_brakes_per_calm_km"]
    assert braked["format"] > 1.1 * braked["network"] and braked["low"] > 0.0


def test_gates_that_only_the_network_passes_are_named(run):
    class Broken(Policy):
        def act_many(self, observation, truth=None):
            return np.full(len(observation.ego), np.nan)

    network = load_network(run)
    broken = Broken("broken", network.signature, {})
    found = compare_policies(network, {"broken": broken}, QUICK, progress=False)["broken"]
    assert not found["passed"]
    assert "it broke off 432 episodes; episode 0: the action at step 0 is not a number" in found["why"]
    assert "it fails a gate that the network passes, safety: episodes that the policy broke off" in found["why"]


def test_a_format_that_drives_otherwise_is_not_packaged(driven, tmp_path, monkeypatch):
    write_run(tmp_path, listening_actor())
    seen = random_observations(10_000, 4)
    monkeypatch.setattr(package, "record", lambda *_, **__: Recording(observations=seen, calibration=seen, origin={}))
    alike = driven["onnx"]
    refused = {**alike, "passed": False, "why": "it collides in 9 of 10 hazards, the network in 0 (p = 0.004)"}
    monkeypatch.setattr(package, "play_formats", lambda *_, **__: {"onnx": refused, "fp16": alike})
    done = export_formats(tmp_path, ExportConfig(formats=("onnx", "fp16"), latency=False), progress=False)
    assert done.files == [tmp_path / "model.fp16.onnx", tmp_path / "CARD.md"]
    assert not (tmp_path / "model.onnx").exists()
    assert done.refused == [f"{tmp_path}: onnx is not kept: in closed loop {refused['why']}."]
    told = json.loads((tmp_path / "parity.json").read_text())["formats"]
    assert not told["onnx"]["passed"] and told["onnx"]["closed_loop"] == refused
    assert told["fp16"]["passed"] and told["fp16"]["closed_loop"] == alike
    # what was refused stays written down when another format is exported
    monkeypatch.setattr(package, "play_formats", lambda *_, **__: {"fp16": alike})
    export_formats(tmp_path, ExportConfig(formats=("fp16",), latency=False), progress=False)
    assert json.loads((tmp_path / "parity.json").read_text())["formats"]["onnx"] == told["onnx"]


def test_other_weights_are_not_played(run, tmp_path):
    scaled(run, tmp_path, 1.0)
    write_run(tmp_path, random_actor(seed=5))
    with pytest.raises(InputMismatchError, match="exported from other weights"):
        play_formats(tmp_path, ["onnx"], QUICK, progress=False)


def pair(own, network):
    """Metrics of one episode of both, otherwise alike."""
    alike = {"hazard_happened": True, "hazard_called": True, "hazard_kind": "emergency_brake", "calm_distance_km": 0.5}
    plain = dataclasses.replace(measure(trace()), **alike)
    return dataclasses.replace(plain, **own), dataclasses.replace(plain, **network)


def test_what_is_out_of_bounds_by_hand():
    calm = pair({"reacted": True}, {"reacted": True})
    worse = pair({"reacted": True, "collision": True}, {"reacted": True})
    better = worse[::-1]
    figures, why = _figures([calm] * 3000 + [worse] * 4)  # chance would explain five, and five is too many
    assert not why and figures["collisions_in_hazards"]["p"] == pytest.approx(2 * 0.5**4)
    assert _figures([calm] * 3000 + [worse] * 5)[1][0].startswith("it collides in 5 of 3005 hazards, the network in 0")
    assert _figures([calm] * 100 + [worse])[1]  # too few hazards to tell that it is no worse
    _, why = _figures([calm] * 200 + [worse] * 6)
    assert len(why) == 1 and why[0].startswith("it collides in 6 of 206 hazards, the network in 0 (p = 0.031, ")
    assert not _figures([calm] * 20 + [better] * 6)[1]
    silent = pair({}, {"reacted": True})
    assert "it does not react in 6 of 26 hazards" in _figures([calm] * 20 + [silent] * 6)[1][0]
    late = [
        pair({"reacted": True, "reaction_from_onset_s": 0.5 + more, "scenario_id": f"s{k}"},
             {"reacted": True, "reaction_from_onset_s": 0.4, "scenario_id": f"s{k}"})
        for k, more in enumerate((0.0, 0.1, 0.05) * 4)
    ]  # fmt: skip
    figures, why = _figures(late)
    assert why[0].startswith("it reacts 0.15 s later (at least ")
    assert figures["reaction_from_onset_s"]["n"] == 12 and figures["reaction_from_onset_s"]["network"]["p50"] == 0.4
    assert _figures([calm])[0]["false_brakes_per_calm_km"]["low"] is None  # one scenario tells of no spread


def test_what_is_compared_on_covers_every_number_of_peers_and_is_not_what_is_calibrated_on(run):
    recording = record(run)
    counts = np.bincount(recording.observations.peer_mask.sum(1), minlength=9)
    assert len(recording.observations.ego) >= 10_000 and (counts > 100).all()
    assert recording.origin["suites"]["matrix"]["episodes"] == 432
    assert recording.origin["calibrated_on"]["split"] == "val"
    assert recording.origin["calibrated_on"]["decisions"] == len(recording.calibration.ego) > 1000


def test_every_format_decides_alike_on_what_suites_show(run, tmp_path):
    for file in ("policy.safetensors", "signature.json"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    found, files = export(tmp_path, ["onnx", "fp16", "int8"], record(run))
    assert len(files) == 3 and not found.refused
