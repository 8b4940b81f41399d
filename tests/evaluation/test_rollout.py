import dataclasses
import json

import numpy as np
import pytest

from roadsense.convoy.player import Player
from roadsense.errors import ScenarioError, UsageError
from roadsense.espnow.profiles import read_params
from roadsense.evaluation.evaluate import EvaluationConfig, evaluate, find_policy
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import EVALUATION_SEED, play, record_observations
from roadsense.export.onnx import export_onnx
from roadsense.manifest import read_dataset
from roadsense.policies.baselines import make_baseline
from roadsense.randomness import episode_seed

from ..datasets.by_hand import dataset_of
from ..policies.networks import random_actor, write_run
from ..traps import write_trapped_zip

pytestmark = pytest.mark.usefixtures("require_sumo")

LIST = ["curve", "straight"]


def played(policy, episodes, worlds, **kwargs):
    player = Player(worlds, scenario_list=LIST, **kwargs)
    try:
        return list(play(make_baseline(policy), player, episodes))
    finally:
        player.close()


def test_the_list_is_walked_in_order_whatever_the_number_of_worlds():
    alone, together = played("v2v_tuned", 5, 1), played("v2v_tuned", 5, 3)
    assert [trace.scenario_id for trace in alone] == ["curve", "straight", "curve", "straight", "curve"]
    for one, other in zip(alone, together, strict=True):
        assert (one.scenario_id, one.seed) == (other.scenario_id, other.seed)
        assert np.array_equal(one.position_m, other.position_m)
        assert np.array_equal(one.reward, other.reward)
    assert len({trace.seed for trace in alone}) == 5


def test_every_policy_meets_the_same_episodes():
    passive, braking = played("none", 4, 1), played("always_brake", 4, 1)
    for one, other in zip(passive, braking, strict=True):
        assert (one.seed, one.hazard_kind, one.onset_step) == (other.seed, other.hazard_kind, other.onset_step)
        assert np.array_equal(one.position_m[0], other.position_m[0])
    assert any(measure(trace).collision for trace in passive)
    assert not any(measure(trace).collision for trace in braking)


def test_traces_hold_the_truth_whatever_the_radio():
    for heard, exact in zip(played("none", 2, 1, radio="convoy"), played("none", 2, 1, radio="ideal"), strict=True):
        assert not np.array_equal(heard.age_s, exact.age_s, equal_nan=True)
        for name in ("position_m", "speed_mps", "accel_mps2", "gap_m", "closing_speed_mps", "required_decel_mps2",
                     "hazard_phase", "reward"):  # fmt: skip
            assert np.array_equal(getattr(heard, name), getattr(exact, name)), name


def test_evaluating_twice_gives_the_same_figures():
    config = EvaluationConfig(episodes=3)
    found = [evaluate([make_baseline("random")], config, progress=False).document() for _ in range(2)]
    assert found[0] == found[1]
    assert list(found[0]["radios"]) == ["convoy"]


def test_both_engines_give_the_same_figures():
    """Whatever a policy is trained on, every episode ends alike on either."""
    found = {engine: evaluate([make_baseline("v2v_rule")], EvaluationConfig(episodes=9, engine=engine), progress=False)
             for engine in ("sumo", "native", "auto")}  # fmt: skip
    assert found["sumo"].rows == found["native"].rows == found["auto"].rows
    assert found["sumo"].summaries == found["native"].summaries
    assert [result.engine for result in found.values()] == ["sumo", "native", "native"]


def test_figures_say_what_they_were_made_with(tmp_path):
    write_run(tmp_path / "mine", random_actor())
    policies = [find_policy(str(tmp_path / "mine")), find_policy("oracle")]
    config = EvaluationConfig(episodes=2, split="val", radio="ideal")
    found = evaluate(policies, config, progress=False).document()
    mine, oracle = found["policies"]["mine"], found["policies"]["oracle"]
    assert mine["path"] == str(tmp_path / "mine")
    assert mine["weights_digest"] == json.loads((tmp_path / "mine" / "signature.json").read_text())["weights_digest"]
    assert (mine["privileged"], oracle["privileged"]) == (False, True)
    assert found["config"] == dataclasses.asdict(config)
    assert found["environment"]["versions"]["libsumo"]
    assert "git_commit" in found["environment"]


def test_a_list_of_a_dataset_is_walked_in_its_order_and_named_by_digests(tmp_path):
    """Of the splits that are not asked for no scenario is even read."""
    splits = {"train": ["t0"], "val": ["v0"], "eval": ["e2", "e0", "e1"]}
    root = dataset_of(tmp_path / "d", splits, unreadable=("train", "val"))
    config = EvaluationConfig(dataset_dir=root, episodes=5, engine="native")
    found = evaluate([make_baseline("none")], config, progress=False)
    assert [row.metrics.scenario_id for row in found.rows] == ["e2", "e0", "e1", "e2", "e0"]
    assert [row.metrics.seed for row in found.rows] == [episode_seed(EVALUATION_SEED, index) for index in range(5)]
    stated = found.document()
    assert (stated["split"], stated["root_seed"], stated["episodes"]) == ("eval", EVALUATION_SEED, 5)
    assert stated["dataset_digest"] == read_dataset(root).digest
    assert stated["radios"] == {"convoy": read_params("convoy").digest}
    with pytest.raises(ScenarioError, match="/val/v0"):
        evaluate([make_baseline("none")], dataclasses.replace(config, split="val"), progress=False)


def test_evaluating_and_exporting_a_run_unpickles_nothing(tmp_path):
    """Its folder may be a stranger's: ``model.zip`` is there to go on training from, and is not opened."""
    write_run(tmp_path / "run", random_actor())
    write_trapped_zip(tmp_path / "run" / "model.zip", tmp_path / "sprung")
    evaluate([find_policy(str(tmp_path / "run"))], EvaluationConfig(episodes=1, engine="native"), progress=False)
    export_onnx(tmp_path / "run")
    assert not (tmp_path / "sprung").exists()


def test_two_policies_of_one_name_are_refused(tmp_path):
    write_run(tmp_path / "none", random_actor())
    for twice in (["none", "none"], [str(tmp_path / "none"), "none"]):
        policies = [find_policy(name) for name in twice]
        with pytest.raises(UsageError, match="two policies are named 'none'"):
            evaluate(policies, EvaluationConfig(episodes=1), progress=False)


def test_recorded_observations_are_what_the_policy_decided_on():
    player = Player(1, scenario_list=LIST)
    try:
        seen = record_observations(make_baseline("none"), player, 2)
        traces = list(play(make_baseline("none"), player, 2, observations=True))
    finally:
        player.close()
    assert len(seen.ego) == len(seen.peers) == len(seen.peer_mask) == sum(trace.num_steps for trace in traces)
    assert np.array_equal(seen.ego[traces[0].num_steps], traces[1].ego[0])
