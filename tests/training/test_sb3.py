"""Trainings on real SUMO: reproducible, watched, stoppable, and with everything they owe in their folder."""

import csv
import dataclasses
import itertools
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from roadsense._data import params_dir
from roadsense.convoy.observation import layout_hash
from roadsense.errors import InputMismatchError, RoadsenseError, ScenarioError, StoppedError
from roadsense.espnow.profiles import read_params
from roadsense.manifest import read_dataset
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import weights_digest
from roadsense.training import sb3
from roadsense.training.checkpoints import BEST, LAST, read_arrays, read_facts, restore_model, save_checkpoint
from roadsense.training.config import TrainConfig
from roadsense.training.model import DivergedError, actor_tensors
from roadsense.training.sb3 import train
from roadsense.training.validation import Validation

from ..datasets.by_hand import dataset_of
from ..policies.networks import random_observations
from ..traps import write_trapped_zip
from .callbacks import At

pytestmark = pytest.mark.usefixtures("require_sumo")

TINY = TrainConfig(
    seed=3, log_std_start=-2.0, total_timesteps=1024, n_envs=2, n_steps=128, batch_size=128,
    n_epochs=2, eval_every=512, eval_episodes=2,
    checkpoint_every=512, tensorboard=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path_factory.mktemp("runs") / "one"), tensorboard=True)
    return config, train(config, progress=False)


def test_either_engine_trains_the_same_weights(trained, tmp_path):
    config, result = trained
    native = train(dataclasses.replace(config, engine="native", run_dir=str(tmp_path / "native")), progress=False)
    assert native["weights_digest"] == result["weights_digest"]
    assert native["curve"]["episode_reward"] == result["curve"]["episode_reward"]


def folder(config, name=""):
    from pathlib import Path

    return Path(config.run_dir) / name


def test_equal_seeds_give_equal_weights_and_different_seeds_different_ones(trained, tmp_path):
    config, first = trained
    again = dataclasses.replace(config, run_dir=str(tmp_path / "again"))
    assert train(again, progress=False)["weights_digest"] == first["weights_digest"]
    for name in ("policy.safetensors", "signature.json"):
        assert folder(again, name).read_bytes() == folder(config, name).read_bytes()
    models = [PPO.load(folder(one, LAST), device="cpu").policy.state_dict() for one in (config, again)]
    assert weights_digest(models[0]) == weights_digest(models[1])
    other = dataclasses.replace(config, run_dir=str(tmp_path / "other"), seed=4, total_timesteps=256)
    assert train(other, progress=False)["weights_digest"] != first["weights_digest"]


def test_the_folder_holds_what_it_owes(trained):
    config, result = trained
    for name in ("model.zip", "policy.safetensors", "signature.json", "training.json", "training.csv", LAST, BEST):
        assert folder(config, name).is_file(), name
    assert any(folder(config, "tensorboard").iterdir())
    signature = json.loads(folder(config, "signature.json").read_text())
    assert signature["layout_hash"] == layout_hash(1) and signature["weights_digest"] == result["weights_digest"]
    facts = read_facts(folder(config, LAST))
    assert facts["config"]["seed"] == 3 and facts["timesteps"] == 1024 and facts["made_with"][0]["git_commit"]
    assert facts["seeds"]["root"] == 3 and min(facts["seeds"]["episodes_begun"]) >= 1
    assert "dataset_digest" in facts and facts["reward_scale"]["count"] > 1000
    with zipfile.ZipFile(folder(config, LAST)) as archive:
        assert {"policy.pth", "policy.optimizer.pth", "roadsense.json"} <= set(archive.namelist())
    assert json.loads(folder(config, "training.json").read_text()) == result
    assert result["explained_variance"]["n"] == 4 and result["steps_per_s"] > 0
    assert result["curve"]["timesteps"] == [256, 512, 768, 1024]
    assert [one["timesteps"] for one in result["validations"]] == [512, 1024]


def test_the_noise_is_annealed_and_not_learned(trained):
    config, _ = trained
    with folder(config, "training.csv").open() as file:
        stds = [float(row["noise_std"]) for row in csv.DictReader(file)]
    expected = [math.exp(-2.0 - 1.4 * share) for share in (0.0, 0.25, 0.5, 0.75)]
    assert stds == pytest.approx(expected, rel=1e-4)
    model = PPO.load(folder(config, LAST), device="cpu")
    assert model.policy.log_std.item() == pytest.approx(-2.0 - 1.4 * 0.75)


def test_the_runtime_decides_as_the_trained_model(trained):
    config, _ = trained
    model, policy = PPO.load(folder(config, "model.zip"), device="cpu"), Policy.load(folder(config))
    rows = model.observation_space["peers"].shape[0]
    seen = random_observations(200, rows)
    model.policy.action_net.bias.data.fill_(0.4)  # away from the clip at 0, in both
    policy._head[-1][1][:] = 0.4
    expected, _ = model.predict(seen._asdict(), deterministic=True)
    assert np.ptp(expected) > 1e-3
    assert np.abs(policy.act_many(seen, None) - expected[:, 0]).max() <= 1e-6


def test_a_finished_training_is_not_repeated_and_another_is_refused(trained):
    config, result = trained
    before = folder(config, "model.zip").stat().st_mtime_ns
    assert train(config, progress=False) == result
    assert folder(config, "model.zip").stat().st_mtime_ns == before
    with pytest.raises(InputMismatchError, match="another gamma, seed"):
        train(dataclasses.replace(config, seed=9, gamma=0.9), progress=False)


def test_ctrl_c_leaves_a_checkpoint_that_runs_and_goes_on(tmp_path):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path), checkpoint_every=10**6, eval_every=10**6)

    def interrupt(model):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match=r"stopped at step 600 of 1024.*the same command continues") as told:
        train(config, progress=False, callback=At(600, interrupt))
    assert told.value.exit_code == 75
    assert read_facts(tmp_path / LAST)["timesteps"] == 600
    assert np.isfinite(Policy.load(tmp_path).act_many(random_observations(4, 4), None)).all()
    assert not (tmp_path / "training.json").exists()
    stopped_with = json.loads((tmp_path / "signature.json").read_text())["weights_digest"]
    seen = []

    def look(model):
        seen.append((model.num_timesteps, weights_digest(actor_tensors(model))))

    result = train(config, progress=False, callback=At(0, look))
    assert seen[0] == (602, stopped_with)  # not from the start
    assert result["resumed_at"] == [600] and result["timesteps"] >= 1024
    assert [row for row in result["curve"]["timesteps"] if row < 600] == [256, 512]


def test_a_restored_model_has_weights_and_optimiser_of_the_checkpoint(trained, tmp_path):
    config, _ = trained
    source = PPO.load(folder(config, LAST), device="cpu")
    target = PPO.load(folder(config, LAST), device="cpu")
    for parameter in target.policy.parameters():
        parameter.data.add_(1.0)
    target.policy.optimizer.state.clear()
    save_checkpoint(tmp_path / "one.zip", source, {"config": {}})
    restore_model(tmp_path / "one.zip", target)
    assert weights_digest(actor_tensors(source)) == weights_digest(actor_tensors(target))
    moments = [list(model.policy.optimizer.state_dict()["state"].values()) for model in (source, target)]
    assert len(moments[0]) == len(moments[1]) > 0
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*moments, strict=True))
    (tmp_path / "one.zip").write_bytes((tmp_path / "one.zip").read_bytes()[:3000])
    for call in (lambda: read_facts(tmp_path / "one.zip"), lambda: restore_model(tmp_path / "one.zip", target)):
        with pytest.raises(RoadsenseError, match=r"one\.zip"):
            call()


@pytest.mark.parametrize("part", ["data", "policy.pth", "roadsense.npz"])
def test_going_on_from_a_checkpoint_unpickles_nothing(trained, tmp_path, part):
    config, _ = trained
    checkpoint, sprung = tmp_path / "one.zip", tmp_path / "sprung"
    write_trapped_zip(checkpoint, sprung, like=folder(config, LAST), only=part)
    model = PPO.load(folder(config, LAST), device="cpu")
    if part == "data":  # nobody reads it
        restore_model(checkpoint, model)
    else:
        with pytest.raises(RoadsenseError, match=r"one\.zip"):
            read_arrays(checkpoint) if part == "roadsense.npz" else restore_model(checkpoint, model)
    assert not sprung.exists()


def test_a_training_reads_train_and_val_and_never_eval(tmp_path):
    tiny = dataclasses.replace(TINY, total_timesteps=256, eval_every=256, engine="native")
    splits = {"train": ["t0", "t1"], "val": ["v0", "v1"], "eval": ["e0"]}
    for unreadable in splits:
        root = dataset_of(tmp_path / unreadable, splits, unreadable=[unreadable])
        config = dataclasses.replace(tiny, dataset_dir=root, run_dir=str(tmp_path / "runs" / unreadable))
        if unreadable == "eval":
            result = train(config, progress=False)
            assert result["finished"] and result["validations"]
            assert result["dataset_digest"] == result["eval_dataset_digest"] == read_dataset(root).digest
            assert result["radio_digest"] == result["eval_radio_digest"] == read_params("convoy").digest
        else:
            with pytest.raises(ScenarioError, match=f"/{unreadable}/"):
                train(config, progress=False)


def test_weights_that_are_no_numbers_stop_the_training_and_leave_the_last_observations(tmp_path):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path))

    def spoil(model):
        if model.num_timesteps == 512:  # the last step of a rollout: the update that follows meets it
            model.policy.value_net.bias.data.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"diverged at step 512.*nan\.npz") as told:
        train(config, progress=False, callback=At(500, spoil))
    assert "\n" not in str(told.value)
    with np.load(tmp_path / "nan.npz") as dump:
        assert dump["peers"].shape[-1] == 8 and dump["peers"].any() and len(dump["seeds"]) == 2


def test_collisions_come_first_then_false_brakes_then_reward():
    def one(collisions, false_brakes, reward):
        return Validation(collisions, false_brakes, -reward, 40, 0)

    ranked = [one(1, 9.0, -90.0), one(2, 0.1, -5.0), one(2, 0.2, -1.0), one(2, 0.2, -2.0)]
    for better, worse in itertools.pairwise(ranked):
        assert better.better_than(worse) and not worse.better_than(better)
    assert ranked[0].better_than(None) and not ranked[0].better_than(ranked[0])


def test_a_recurrent_policy_trains_and_runs(tmp_path):
    config = dataclasses.replace(
        TINY, run_dir=str(tmp_path), algorithm="recurrent-ppo", total_timesteps=256, lstm_width=6, n_epochs=1
    )
    train(config, progress=False)
    from sb3_contrib import RecurrentPPO

    model, policy = RecurrentPPO.load(tmp_path / "model.zip", device="cpu"), Policy.load(tmp_path)
    model.policy.action_net.bias.data.fill_(0.4)
    policy._head[-1][1][:] = 0.4
    state, start = None, np.ones(20, np.bool_)
    policy.reset(start)
    for step in range(3):
        seen = random_observations(20, model.observation_space["peers"].shape[0], seed=step)
        expected, state = model.predict(seen._asdict(), state=state, episode_start=start, deterministic=True)
        start = np.zeros(20, np.bool_)
        assert np.abs(policy.act_many(seen, None) - expected[:, 0]).max() <= 1e-6


def test_what_went_on_at_another_commit_says_so_and_on_another_validation_set_is_refused(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path), checkpoint_every=10**6, eval_every=10**6)

    def interrupt(model):
        raise KeyboardInterrupt

    monkeypatch.setattr("roadsense.runs.git_state", lambda folder: ("a" * 40, False))
    with pytest.raises(StoppedError):
        train(config, progress=False, callback=At(600, interrupt))
    monkeypatch.setattr("roadsense.runs.git_state", lambda folder: ("b" * 40, True))
    inputs = sb3.input_digests
    monkeypatch.setattr(sb3, "input_digests", lambda config: {**inputs(config), "eval_dataset_digest": "another"})
    with pytest.raises(InputMismatchError, match="was begun on another dataset or radio"):
        train(config, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr("roadsense.runs.git_state", lambda folder: ("b" * 40, True))
    made = train(config, progress=False)["made_with"]
    assert [(one["from_step"], one["git_commit"][0], one["git_dirty"]) for one in made] == [
        (0, "a", False), (600, "b", True),
    ]  # fmt: skip
    assert all(one["versions"]["sb3-contrib"] for one in made)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"finished": true, "config": {}}', "holds a training of another version"),
        ("[1]", "training.json: does not hold a JSON object"),
        ("{", "training.json: cannot be read"),
    ],
)
def test_a_folder_of_another_version_or_damaged_is_one_sentence(tmp_path, content, told):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(RoadsenseError, match=told):
        train(dataclasses.replace(TINY, run_dir=str(tmp_path)), progress=False)


def test_a_finished_training_on_another_radio_is_not_this_one(tmp_path):
    radio = tmp_path / "mine.json"
    radio.write_bytes((params_dir() / "espnow" / "convoy.json").read_bytes())
    config = dataclasses.replace(TINY, run_dir=str(tmp_path / "run"), emulator_params=str(radio), total_timesteps=256)
    assert train(config, progress=False)["finished"]
    radio.write_bytes((params_dir() / "espnow" / "5m.json").read_bytes())
    with pytest.raises(InputMismatchError, match="was begun on another dataset or radio"):
        train(config, progress=False)
