import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from roadsense.cli import main
from roadsense.errors import InputMismatchError, ParamsError, RoadsenseError, UsageError
from roadsense.evaluation.controls import Shuffled
from roadsense.evaluation.evaluate import EvaluationConfig, evaluate
from roadsense.evaluation.gates import Gate, GateSpec, Judge, read_gates, table
from roadsense.evaluation.promotion import GateConfig, judge_run
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.baselines import make_baseline
from roadsense.runs import COMPLETE, RunFolder

from ..policies.networks import random_actor, write_run
from .test_suites import file_of

pytestmark = pytest.mark.usefixtures("require_sumo")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    suite = file_of(tmp_path_factory.mktemp("suite"))
    config = EvaluationConfig(suite=suite, engine="native", max_peers=2)
    names = ("none", "v2v_tuned", "oracle", "always_brake")
    return suite, evaluate([make_baseline(name) for name in names], config, progress=False)


def answer(played, run="v2v_tuned", **stated):
    suite, evaluation = played
    checks = {"parity": (2e-6, 100, ""), "learning": (None, None, "")}
    return Judge({suite: evaluation}, run, checks).judge(
        Gate.model_validate({"group": "g", "name": "n", **({} if "check" in stated else {"suite": suite}), **stated})
    )


def test_a_figure_is_held_to_its_bound_over_the_buckets_that_count(played):
    crashes = {"policy": "none", "figure": "collisions_in_hazards.rate", "at_least": 0.95}
    found = answer(played, where={"rank": 1, "release": "stop"}, **crashes)
    assert found.passed and found.n == 12 and found.value == 1.0 and found.low > 0.7
    assert answer(played, **crashes).n == 36
    tight = answer(played, policy="none", figure="collisions_in_hazards.rate", at_most=0.5)
    assert not tight.passed and tight.why == "0.889 is above 0.5"


def test_a_count_has_no_interval_of_a_rate(played):
    found = answer(played, policy="none", figure="collisions.count", at_most=0)
    assert (found.value, found.low, found.high, found.n) == (32, None, None, 36)


def test_a_missing_figure_or_too_few_episodes_fail(played):
    assert (
        answer(played, figure="impact_speed_mps.max", at_most=2.0).why == "rests on 0 episodes, at least 1 are needed"
    )
    assert answer(played, figure="impact_speed_mps.max", at_most=2.0, may_be_empty=True).passed
    many = answer(played, figure="collisions.rate", at_most=1.0, least_n=37)
    assert many.why == "rests on 36 episodes, at least 37 are needed"
    assert answer(played, figure="collisions.rate", at_most=1.0, where={"rank": 9}).n == 0
    assert not answer(played, figure="collisions.rate", at_most=1.0, where={"rank": 9}).passed
    with pytest.raises(ParamsError, match=r"no figure 'collisions\.rat'"):
        answer(played, figure="collisions.rat", at_most=1.0)


def test_a_figure_may_be_in_units_of_another_policys(played):
    own = answer(played, figure="mean_time_gap_s.value", relative_to="oracle", at_most=1.5)
    assert own.passed and 0.5 < own.value < 1.5
    assert answer(played, run="oracle", figure="mean_time_gap_s.value", relative_to="oracle", at_most=1.5).value == 1.0


def test_pairs_decide_who_collides_less(played):
    better = answer(played, fewer_collisions_than={"policy": "none"})
    assert better.passed and better.value < -0.8 and better.high < 0.0 and better.n == 36
    worse = answer(played, run="none", fewer_collisions_than={"policy": "v2v_tuned"})
    assert not worse.passed and "p = " in worse.why
    tie = answer(played, fewer_collisions_than={"policy": "oracle"})
    assert not tie.passed and tie.low < 0.0 < tie.high  # nothing happened in 36 pairs: that is no proof
    spare = {"or_no_more_by": 0.2, "with_less": "false_brakes_per_calm_km.value"}
    assert answer(played, run="oracle", fewer_collisions_than={"policy": "always_brake"}, **spare).passed
    assert not answer(played, run="always_brake", fewer_collisions_than={"policy": "oracle"}, **spare).passed
    narrow = {**spare, "or_no_more_by": 0.01}
    assert not answer(played, run="oracle", fewer_collisions_than={"policy": "always_brake"}, **narrow).passed


def test_radios_are_compared_on_the_same_trials(tmp_path):
    """A policy that listens collides less with a radio than without; one that does not, does not."""
    suite = file_of(tmp_path, axes={"radio": ["convoy", "off"]}, episodes_per_bucket=20)
    policies = [make_baseline(name) for name in ("v2v_tuned", "none")]
    played = suite, evaluate(policies, EvaluationConfig(suite=suite, engine="native", max_peers=2), progress=False)
    than = {"radio": "convoy", "fewer_collisions_than": {"radio": "off"}}
    listens, deaf = answer(played, **than), answer(played, run="none", **than)
    assert listens.passed and listens.n == 20 and listens.value < -0.5
    assert not deaf.passed and deaf.value == 0.0
    backwards = answer(played, radio="off", fewer_collisions_than={"radio": "convoy"}, or_no_more_by=1.0,
                       with_less="collisions.rate")  # fmt: skip
    assert not backwards.passed  # what there must be less of is read under each radio, too


def changed(played, name, **metrics):
    """The evaluation with other metrics in the first episode of a policy."""
    suite, evaluation = played
    rows = list(evaluation.rows)
    place = next(place for place, row in enumerate(rows) if row.policy == name)
    rows[place] = rows[place]._replace(metrics=dataclasses.replace(rows[place].metrics, **metrics))
    return suite, dataclasses.replace(evaluation, rows=rows)


def test_what_was_broken_off_or_invalid_passes_no_gate(played):
    failed = changed(played, "v2v_tuned", failure="the action at step 3 is not a number")
    told = "1 episodes were broken off; v2v_tuned, episode 0: the action at step 3 is not a number"
    assert answer(failed, figure="mean_time_gap_s.value", at_most=100.0).why == told
    assert answer(failed, fewer_collisions_than={"policy": "none"}).why == told
    assert answer(failed, run="none", policy="v2v_tuned", figure="collisions.count", at_most=5).why == told
    than_failed = answer(failed, run="oracle", fewer_collisions_than={"policy": "v2v_tuned"})
    assert "1 against 0" in than_failed.figure.replace("0 against 1", "1 against 0") and not than_failed.passed
    invalid = changed(played, "v2v_tuned", valid=False)
    assert answer(invalid, figure="mean_time_gap_s.value", at_most=100.0).why == (
        "1 episodes are invalid; v2v_tuned, episode 0: peers touched"
    )
    assert answer(played, figure="mean_time_gap_s.value", at_most=100.0).passed


def test_an_empty_figure_is_excused_but_not_an_empty_selection(played):
    asked = {"figure": "impact_speed_mps.max", "at_most": 2.0, "may_be_empty": True}
    assert answer(played, **asked, least_n=36).passed
    assert answer(played, **asked, least_n=37).why == "rests on 36 episodes, at least 37 are needed"
    assert answer(played, **asked, where={"rank": 9}).why == "rests on 0 episodes, at least 1 are needed"
    assert not answer(played, run="none", **asked).passed


def test_a_crash_before_the_hazard_counts_as_one_in_it(played):
    crashed = changed(played, "oracle", hazard_happened=False, collision=True)
    found = answer(crashed, run="oracle", figure="collisions_in_hazards.rate", at_most=0.5)
    assert found.n == 36 and found.value == pytest.approx(1 / 36)
    missed = changed(played, "oracle", hazard_happened=False)
    assert answer(missed, run="oracle", figure="collisions_in_hazards.rate", at_most=0.5).n == 35


def test_checks_are_answered_or_fail(played):
    assert answer(played, check="parity", at_most=1e-5).passed
    assert answer(played, check="parity", at_most=1e-6).why == "2e-06 is above 1e-06"
    assert answer(played, check="learning", at_least=0.5).why == "there is no such figure"
    assert answer(played, check="latency", at_most=1.0).why == "was not checked"
    assert answer(played, check="coverage", suite=played[0]).value == 3.0


def test_a_bucket_without_all_its_hazards_is_named(played):
    suite, evaluation = played
    buckets = [dict(bucket) for bucket in evaluation.policies["oracle"]["buckets"]]
    buckets[2]["n"] = 2
    changed = type(evaluation)(
        evaluation.config, evaluation.identity, "native", evaluation.buckets, evaluation.rows, evaluation.summaries,
        {**evaluation.policies, "oracle": {**evaluation.policies["oracle"], "buckets": buckets}},
    )  # fmt: skip
    found = answer((suite, changed), run="oracle", check="coverage", suite=suite)
    assert not found.passed
    assert found.why == (f"bucket {buckets[2]['bucket']} has its hazard in 2 of 3 episodes; there are 1 such buckets")


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"figure": "collisions.rate"}, "state at_least or at_most"),
        ({"check": "parity", "figure": "x", "at_most": 1}, "states 2 of check, figure"),
        ({"figure": "collisions.rate", "at_most": 1, "suite": None}, "state the suite"),
        ({"fewer_collisions_than": {"policy": "none"}, "or_no_more_by": 0.1}, "belong together"),
        ({"figur": "x"}, "figur"),
        ({"check": "parity"}, "suite says nothing beside check"),
        ({"check": "parity", "suite": None, "radio": "off"}, "radio says nothing beside check"),
        ({"check": "coverage", "at_most": 1}, "at_most says nothing beside coverage"),
        ({"figure": "collisions.rate", "at_most": float("nan")}, "at_most"),
        ({"figure": "collisions.rate", "at_most": 1, "with_less": "x"}, "with_less says nothing beside figure"),
        ({"fewer_collisions_than": {}}, "neither policy nor radio"),
        ({"fewer_collisions_than": {"policy": "none"}, "at_most": 1}, "at_most says nothing beside fewer"),
    ],
)
def test_wrong_gates_are_refused(tmp_path, gate, told):
    path = tmp_path / "gates.yaml"
    one = {"group": "g", "name": "n", "suite": "matrix", **gate}
    path.write_text(yaml.safe_dump({"name": "mine", "version": 1, "about": "", "gates": [one]}))
    with pytest.raises(ParamsError) as refused:
        read_gates(str(path))
    assert told in str(refused.value)
    with pytest.raises(UsageError, match="list of gates 'strict' is unknown"):
        read_gates("strict")


def test_default_gates_read_and_ask_in_order():
    spec = read_gates("default")
    groups = list(dict.fromkeys(gate.group for gate in spec.gates))
    assert groups == [
        "integrity", "negative controls", "coverage", "safety", "radio causality", "against the rule", "false brakes",
        "comfort", "reaction", "time gap", "set laws", "learning", "export", "latency",
    ]  # fmt: skip
    assert spec.needs()["calm"][:3] == ["run", "always_brake", "none"]


def test_shuffled_messages_are_true_but_not_of_now(tmp_path):
    """Who is told the right things at the wrong time collides."""
    config = EvaluationConfig(suite=file_of(tmp_path), engine="native", max_peers=2)
    policies = [make_baseline("v2v_tuned"), Shuffled(make_baseline("v2v_tuned"))]
    result = evaluate(policies, config, progress=False)
    plain, shuffled = (result.policies[policy.name]["collisions"]["count"] for policy in policies)
    assert plain == 0 and shuffled > 5
    again = evaluate([Shuffled(make_baseline("v2v_tuned"))], config, progress=False)
    assert [row.cells() for row in again.rows] == [row.cells() for row in result.rows[36:]]


def run_of(folder, actor=None):
    """A packaged run with a random network."""
    write_run(folder, actor or random_actor())
    weights = {"file": "policy.safetensors", "digest": file_digest(folder / "policy.safetensors")}
    found = {"passed": True, "observations": 10, "largest": 1e-7, "permuted": 0, "padded": 0}
    write_json(folder / "parity.json", {"formats": {"safetensors": {**found, **weights}}})
    write_json(folder / "training.json", {"explained_variance": {"median": 0.9}})
    run = RunFolder(folder)
    run.set_status(COMPLETE)
    run.write_checksums()
    return run


def gates_of(folder, suite, /, **changes):
    path = folder / "gates.yaml"
    collisions = {"suite": suite, "figure": "collisions.rate", "at_most": 1.0, **changes}
    gates = [
        {"group": "integrity", "name": "files", "check": "integrity"},
        {"group": "control", "name": "none crashes", "suite": suite, "policy": "none", "figure": "collisions.rate",
         "at_least": 0.5},
        {"group": "latency", "name": "p99", "check": "latency", "at_most": 1000.0},
        {"group": "safety", "name": "collisions", **collisions},
    ]  # fmt: skip
    path.write_text(yaml.safe_dump({"name": "mine", "version": 1, "about": "", "gates": gates}))
    return str(path)


def test_a_run_is_judged_and_carries_its_verdict(tmp_path, capsys):
    run, suite = run_of(tmp_path / "mine"), file_of(tmp_path)
    asked = ["gate", str(run.path), "--gates", gates_of(tmp_path, suite), "--confirm", "1"]
    assert main(asked) == 0
    told = capsys.readouterr()
    assert "4 of 4 gates passed: accepted" in told.out
    assert f"roadsense report {run.path} shows it" in told.err
    found = json.loads((run.path / "gates.json").read_text())
    assert found["accepted"] and len(found["verdicts"]) == 4 and found["suites"][suite]["name"] == "small"
    assert run.status == "complete" and run.complete
    run.verify()
    assert not (run.path / ".gates").exists()

    gates_of(tmp_path, suite, at_most=-1.0)
    assert main(asked) == 3
    assert "rejected" in capsys.readouterr().out
    assert run.status == "rejected" and run.complete
    run.verify()


def test_a_changed_file_fails_the_integrity_gate(tmp_path):
    run, suite = run_of(tmp_path / "mine"), file_of(tmp_path)
    write_json(run.path / "training.json", {"explained_variance": {"median": 1.0}})
    verdicts = judge_run(run.path, GateConfig(gates=gates_of(tmp_path, suite), confirm=0), progress=False)
    assert [verdict.passed for verdict in verdicts] == [False, True, True, True]
    assert "training.json: is missing or has changed" in verdicts[0].why
    assert "failed: integrity: files" in table(verdicts)
    again = judge_run(run.path, GateConfig(gates=gates_of(tmp_path, suite), confirm=0), progress=False)
    assert not again[0].passed  # a verdict does not make a changed file the right one
    with pytest.raises(InputMismatchError):
        run.verify()


def test_a_verdict_does_not_spoil_a_run_that_is_mended(tmp_path):
    run, suite = run_of(tmp_path / "mine"), file_of(tmp_path)
    whole, config = (run.path / "training.json").read_bytes(), GateConfig(gates=gates_of(tmp_path, suite), confirm=0)
    (run.path / "training.json").write_bytes(b"{}")
    assert not judge_run(run.path, config, progress=False)[0].passed
    (run.path / "training.json").write_bytes(whole)
    assert judge_run(run.path, config, progress=False)[0].passed
    run.verify()


def test_a_policy_whose_actions_are_no_numbers_is_rejected_not_a_traceback(tmp_path, capsys):
    actor, suite = random_actor(), file_of(tmp_path)
    actor.head[-1].bias.data.fill_(float("nan"))
    run = run_of(tmp_path / "mine", actor)
    assert main(["gate", str(run.path), "--gates", gates_of(tmp_path, suite), "--confirm", "0"]) == 3
    told = capsys.readouterr().out
    assert "latency: p99: the policy made no decision that could be timed" in told
    assert "safety: collisions: 36 episodes were broken off; mine, episode 0: the action at step 0 is not a" in told
    assert run.status == "rejected"
    assert main(["evaluate", "--suite", suite, "--engine", "native", "--policy", str(run.path)]) == 0
    told = capsys.readouterr()
    assert "18/18 [81.5, 100.0]" in told.out
    assert "mine broke off 36 episodes, which count as collisions; " in told.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"figure": "collisions.rat"}, "no figure 'collisions.rat'"),
        ({"radio": "convoi"}, "has no radio 'convoi'; did you mean 'convoy'?"),
        ({"where": {"rank": 11}}, "has no bucket with rank: 11"),
        ({"where": {"severty": 1}}, "has no bucket with severty: 1"),
        ({"policy": "nobody"}, "'nobody'"),
        ({"suite": "matrx"}, "'matrx'"),
    ],
)
def test_what_no_suite_has_is_refused_before_anything_is_played(tmp_path, changes, told):
    run, suite = run_of(tmp_path / "mine"), file_of(tmp_path)
    with pytest.raises(RoadsenseError, match=re.escape(told)) as refused:
        judge_run(run.path, GateConfig(gates=gates_of(tmp_path, suite, **changes), confirm=0), progress=False)
    assert "\n" not in str(refused.value)
    assert not (run.path / ".gates").exists() and run.status == "complete"


def test_two_suites_of_one_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    path = gates_of(tmp_path, file_of(tmp_path), suite=file_of(tmp_path / "b"))
    with pytest.raises(ParamsError, match="two suites are called 'small'; rename one of the files"):
        read_gates(path)


def test_a_model_that_was_not_compared_is_no_parity(tmp_path):
    run, suite = run_of(tmp_path / "mine"), file_of(tmp_path)
    parity = {"group": "export", "name": "parity", "check": "parity", "at_most": 1e-5}
    path = gates_of(tmp_path, suite)
    stated = yaml.safe_load(Path(path).read_text())
    Path(path).write_text(yaml.safe_dump({**stated, "gates": [parity]}))
    (run.path / "model.onnx").write_bytes(b"a model")
    formats = json.loads((run.path / "parity.json").read_text())["formats"]
    exact = {**formats["safetensors"], "file": "model.onnx", "largest": 2e-7}
    for digest, changes, why in (
        (file_digest(run.path / "model.onnx"), {}, ""),
        ("0" * 64, {}, "model.onnx is not the file that was compared"),
        (file_digest(run.path / "model.onnx"), {"passed": False}, "there is no such figure"),
        (file_digest(run.path / "model.onnx"), {"largest": 2e-5}, "2e-05 is above 1e-05"),
    ):
        stated = {**formats, "onnx": {**exact, "digest": digest, **changes}}
        write_json(run.path / "parity.json", {"formats": stated})
        (verdict,) = judge_run(run.path, GateConfig(gates=path, confirm=0), progress=False)
        assert verdict.passed == (not why) and verdict.why == why
        assert changes or verdict.value == 2e-7


def test_a_policy_of_another_layout_is_refused(tmp_path):
    run = run_of(tmp_path / "mine")
    signature = json.loads((run.path / "signature.json").read_text())
    signature["layout_hash"] = "0" * 64
    write_json(run.path / "signature.json", signature)
    with pytest.raises(InputMismatchError, match="layout"):
        judge_run(run.path, GateConfig(), progress=False)
    shutil.rmtree(run.path)
    with pytest.raises(Exception, match="mine"):
        judge_run(run.path, GateConfig(), progress=False)


def test_an_evaluation_that_reads_no_numbers_is_not_accepted(played):
    spec = GateSpec.model_validate({"name": "x", "version": 1, "about": "", "gates": [
        {"group": "g", "name": "n", "check": "latency", "at_most": 1.0}]})  # fmt: skip
    verdict = Judge({}, "run", {"latency": (float(np.nan), 1, "")}).judge(spec.gates[0])
    assert not verdict.passed and verdict.why == "there is no such figure"
