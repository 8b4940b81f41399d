"""RLlib learns Convoy-v0, over runners of its own, and what it learns goes the way of every policy."""

import dataclasses
import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.comparison import mcnemar
from roadsense.datasets.config import GenerateConfig
from roadsense.datasets.generate import generate
from roadsense.errors import StoppedError
from roadsense.evaluation.evaluate import EvaluationConfig, evaluate
from roadsense.policies.baselines import make_baseline
from roadsense.policies.runtime import Policy
from roadsense.statistics import clopper_pearson
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.config import TrainConfig, read_train_config

from ..policies.networks import random_observations

if find_spec("ray") is not None:
    from roadsense.training.ray_connection import running_ray
    from roadsense.training.rllib_train import train

pytestmark = [
    pytest.mark.proof,
    pytest.mark.usefixtures("require_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SPREAD = TrainConfig(
    algorithm="rllib-ppo", engine="native", seed=3, total_timesteps=512, n_envs=4, n_steps=128, n_env_runners=2,
    batch_size=128, n_epochs=2, eval_every=10**6, eval_episodes=2, tensorboard=False,
)  # fmt: skip


def test_the_preset_learns_restores_beats_no_assistance_and_exports(tmp_path):
    dataset = generate(GenerateConfig(seed=7, train=160, val=60, datasets_dir=str(tmp_path / "data")))
    run = tmp_path / "run"
    config = read_train_config("rllib", {"dataset_dir": str(dataset.root), "run_dir": str(run), "n_env_runners": 2})

    def stop(algorithm):
        if read_facts(run / LAST)["timesteps"] >= 100_000:
            raise KeyboardInterrupt

    with running_ray(3):
        with pytest.raises(StoppedError):
            train(config, progress=False, after_update=stop)
        result = train(config, progress=False)
    assert len(result["resumed_at"]) == 1 and result["resumed_at"][0] >= 100_000
    assert result["timesteps"] >= config.total_timesteps
    assert result["explained_variance"]["median"] > 0.2

    policy, none = Policy.load(run), make_baseline("none")
    asked = EvaluationConfig(dataset_dir=str(dataset.root), split="val", episodes=600, engine="native")
    found = evaluate([policy, none], asked, progress=False)
    assert found.problems == []
    of = {name: [row.metrics for row in found.rows if row.policy == name] for name in (policy.name, "none")}
    hazards = [k for k, one in enumerate(of["none"]) if one.hazard_happened]
    hit = {name: np.array([of[name][k].collision for k in hazards]) for name in of}
    test = mcnemar(hit[policy.name], hit["none"])
    told = {
        "n": len(hazards), **{name: [int(hits.sum()), clopper_pearson(int(hits.sum()), len(hazards))]
                              for name, hits in hit.items()},
        "mcnemar": dataclasses.asdict(test), "explained_variance": result["explained_variance"],
        "validations": result["validations"], "steps_per_s": result["steps_per_s"],
    }  # fmt: skip
    print(json.dumps(told, default=str))
    assert test.b < test.c and test.p < 1e-6
    assert hit[policy.name].mean() < 0.5 * hit["none"].mean()

    assert main(["export", str(run), "--formats", "onnx", "--no-closed-loop", "--no-latency"]) == 0
    seen = random_observations(2000, 16)
    assert np.abs(Policy.load(run / "model.onnx").act_many(seen) - policy.act_many(seen)).max() <= 1e-6


def test_equal_seeds_give_equal_weights_over_two_runners_and_other_numbers_of_them_others(tmp_path):
    with running_ray(3):
        found = [
            train(dataclasses.replace(SPREAD, run_dir=str(tmp_path / str(k)), n_env_runners=runners), progress=False)
            for k, runners in enumerate((2, 2, 1))
        ]
    assert found[0]["weights_digest"] == found[1]["weights_digest"] != found[2]["weights_digest"]
    assert found[0]["curve"]["approx_kl"] == found[1]["curve"]["approx_kl"]
    assert min(read_facts(tmp_path / "0" / LAST)["seeds"]["episodes_begun"]) >= 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_runner_that_dies_is_made_anew_and_the_training_goes_on(tmp_path):
    killed = []

    def kill(algorithm):
        pids = algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
        if not killed:
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])
            time.sleep(1.0)

    config = dataclasses.replace(SPREAD, run_dir=str(tmp_path), total_timesteps=4096)
    with running_ray(3):
        result = train(config, progress=False, after_update=kill)
    assert killed and result["timesteps"] >= 4096
    assert all(np.isfinite(result["curve"]["approx_kl"]))
