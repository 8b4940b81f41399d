"""The shipped suites ask what they claim to ask: the worst policies fail them, a perfect one passes."""

import pytest

from roadsense.evaluation.evaluate import EvaluationConfig, evaluate
from roadsense.evaluation.gates import RUN, Judge, read_gates
from roadsense.policies.baselines import make_baseline

pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("require_sumo")]


def judged(suite, name, *others):
    """Verdicts of the default gates on one suite, by name of the gate, for a baseline as if it were a run."""
    config = EvaluationConfig(suite=suite, engine="native", confirm=10)
    result = evaluate([make_baseline(one) for one in (name, *others)], config, progress=False)
    assert result.problems == []
    judge = Judge({suite: result}, name, {})
    gates = [gate for gate in read_gates("default").gates if gate.suite == suite]
    return {gate.name: judge.judge(gate) for gate in gates if set(gate.policies) <= {RUN, name, *others}}


def test_in_the_matrix_nobody_crashes_who_knows_and_everybody_who_does_nothing():
    found = judged("matrix", "oracle", "none", "v2v_tuned")
    assert found["without assistance the next car's full stop ends in a crash"].value >= 0.95
    assert all(found[name].passed for name in ("collisions in hazards, upper bound", "hardest impact [m/s]"))
    assert found["every bucket of matrix has its hazards"].n == 432
    none = judged("matrix", "none", "v2v_tuned")
    assert not none["collisions in hazards, upper bound"].passed
    assert not none["fewer collisions than v2v_tuned, or no more and fewer false brakes"].passed


def test_who_always_brakes_is_called_false():
    found = judged("calm", "always_brake", "idm")
    assert not found["per km without a hazard"].passed
    assert not found["strongest braking beyond the driver's without a hazard [m/s²]"].passed
    assert found["braking always is false braking"].passed


def test_regulatory_points_are_hit_without_assistance_and_by_nobody_who_knows():
    for suite, gate in (("fmvss127", "FMVSS 127 without contact"), ("ccrb", "CCRb without contact")):
        assert judged(suite, "oracle")[gate].passed
        crashed = judged(suite, "none")[gate]
        assert not crashed.passed and crashed.value == crashed.n
