"""Trainings by RLlib: reproducible, watched, stoppable, and with everything they owe in their folder."""

import contextlib
import csv
import dataclasses
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError, UsageError
from roadsense.export.onnx import export_onnx
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import weights_digest
from roadsense.training import sb3, validation
from roadsense.training.checkpoints import BEST, LAST, read_arrays, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.folder import write_policy
from roadsense.training.model import DivergedError
from roadsense.training.undisturbed import undisturbed
from roadsense.training.validation import Validation

from ..datasets.by_hand import dataset_of
from ..policies.networks import random_observations
from ..traps import Trap

if find_spec("ray") is not None:
    import ray

    from roadsense.training.ray_connection import running_ray
    from roadsense.training.rllib_checkpoint import read_actor, restore_algorithm
    from roadsense.training.rllib_config import build_algorithm
    from roadsense.training.rllib_learner import ConvoyLearner, learner_of, module_of
    from roadsense.training.rllib_module import actor_tensors
    from roadsense.training.rllib_train import train

pytestmark = [
    pytest.mark.usefixtures("require_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TINY = TrainConfig(
    algorithm="rllib-ppo", engine="native", seed=3, log_std_start=-2.0, total_timesteps=1024, n_envs=2, n_steps=128,
    batch_size=128, n_epochs=2, eval_every=512, eval_episodes=2, checkpoint_every=512, tensorboard=False,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_ray(require_ray):
    """Ray takes seconds to start: trainings use one that is there."""
    with running_ray(3):
        yield
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path_factory.mktemp("runs") / "one"), tensorboard=True)
    seen = []
    return config, train(config, progress=False, after_update=lambda algorithm: seen.append(algorithm.iteration)), seen


def folder(config, name=""):
    return Path(config.run_dir) / name


def again(config, tmp_path, **changes):
    return dataclasses.replace(config, run_dir=str(tmp_path), tensorboard=False, **changes)


def rows_of(config):
    with folder(config, "training.csv").open() as file:
        return list(csv.DictReader(file))


def stop(*of):
    raise KeyboardInterrupt


def test_the_folder_holds_what_it_owes(trained):
    config, result, seen = trained
    for name in ("model.zip", "policy.safetensors", "signature.json", "training.json", "training.csv", LAST, BEST):
        assert folder(config, name).is_file(), name
    assert any(folder(config, "tensorboard").iterdir())
    steps = {f"step-{one['timesteps']:010d}.zip" for one in result["validations"]}
    assert {file.name for file in folder(config, LAST).parent.iterdir()} == {"last.zip", "best.zip", *steps}
    assert json.loads(folder(config, "training.json").read_text()) == result
    assert result["finished"] and result["timesteps"] >= 1024 and result["explained_variance"]["n"] == 4
    assert result["config"]["algorithm"] == "rllib-ppo" and seen == [1, 2, 3, 4]
    assert len(result["validations"]) == 2 and result["best"] in result["validations"]
    assert json.loads(folder(config, "signature.json").read_text())["weights_digest"] == result["weights_digest"]
    facts = read_facts(folder(config, LAST))
    assert facts["timesteps"] == result["timesteps"] and facts["made_with"][0]["git_commit"]
    assert facts["made_with"][0]["versions"]["ray"]
    assert facts["seeds"]["root"] == 3 and min(facts["seeds"]["episodes_begun"]) >= 1
    assert facts["reward_scale"]["count"] == pytest.approx(result["timesteps"], rel=1e-6)


def test_the_log_has_the_columns_of_every_training_filled(trained):
    config, result, _ = trained
    rows = rows_of(config)
    assert [float(row["timesteps"]) for row in rows] == result["curve"]["timesteps"]
    filled = {name for name, value in rows[-1].items() if value}
    of_others = {"imitation_loss", "imitation_explained_variance", "staleness", "redone", "waited_s"}
    assert set(rows[-1]) - filled == of_others
    assert 0.0 <= float(rows[-1]["collision_share"]) <= 1.0
    assert -400.0 < float(rows[-1]["episode_reward"]) < 0.0 < float(rows[-1]["episode_steps"]) <= 400.0
    assert all(float(row["approx_kl"]) >= 0.0 and 0.0 <= float(row["clip_fraction"]) <= 1.0 for row in rows)


def test_the_noise_and_the_learning_rate_are_annealed(trained):
    config, _, _ = trained
    rows = rows_of(config)
    before = [0.0, *(float(row["timesteps"]) for row in rows[:-1])]
    expected = [math.exp(-2.0 - 1.4 * steps / 1024) for steps in before]
    assert [float(row["noise_std"]) for row in rows] == pytest.approx(expected, rel=1e-4)
    rates = [5e-4 - 4e-4 * min(1.0, float(row["timesteps"]) / 1024) for row in rows]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates, rel=1e-4)


def test_equal_seeds_give_equal_weights_and_different_seeds_different_ones(trained, tmp_path):
    config, first, _ = trained
    second = again(config, tmp_path / "again")
    assert train(second, progress=False)["weights_digest"] == first["weights_digest"]
    for name in ("policy.safetensors", "signature.json"):
        assert folder(second, name).read_bytes() == folder(config, name).read_bytes()
    other = again(config, tmp_path / "other", seed=4, total_timesteps=256)
    assert train(other, progress=False)["weights_digest"] != first["weights_digest"]


def test_the_runtime_and_the_onnx_file_decide_as_the_trained_module(trained, tmp_path):
    config, result, _ = trained
    seen = random_observations(300, 16)
    batch = {"obs": {name: torch.from_numpy(array) for name, array in seen._asdict().items()}}
    algorithm = build_algorithm(config)
    try:
        restore_algorithm(folder(config, "model.zip"), algorithm)
        module = module_of(algorithm)
        assert weights_digest(actor_tensors(module)) == result["weights_digest"]
        assert np.abs(Policy.load(folder(config)).act_many(seen) - acted(module, batch)).max() <= 1e-6
        module.actor.head[-1].bias.data.fill_(0.4)  # away from the clip at 0
        module.actor.head[-1].weight.data.mul_(5.0)
        rewritten = tmp_path / "moved"
        write_policy(rewritten, actor_tensors(module), config)
        expected = acted(module, batch)
        assert np.ptp(expected) > 1e-2
        for policy in (Policy.load(rewritten), Policy.load(export_onnx(rewritten))):
            assert np.abs(policy.act_many(seen) - expected).max() <= 1e-6
    finally:
        algorithm.stop()


def acted(module, batch):
    return module.forward_inference(batch)["actions"].numpy()[:, 0]


def test_a_restored_algorithm_has_weights_optimiser_and_scale_of_the_checkpoint(trained):
    config, _, _ = trained
    algorithm = build_algorithm(config)
    try:
        learner = learner_of(algorithm)
        fresh = weights_digest(actor_tensors(module_of(algorithm)))
        restore_algorithm(folder(config, LAST), algorithm)
        kept = weights_digest(read_actor(folder(config, LAST)))
        assert fresh != kept == weights_digest(actor_tensors(module_of(algorithm)))
        assert kept == weights_digest(actor_tensors(algorithm.env_runner_group.local_env_runner.module))
        assert learner.spread.state() == read_facts(folder(config, LAST))["reward_scale"]
        (optimizer,) = learner._named_optimizers.values()
        moments = optimizer.state_dict()["state"].values()
        assert len(moments) == len(list(module_of(algorithm).parameters()))
        assert all(float(one["step"]) > 8 and one["exp_avg_sq"].abs().sum() > 0 for one in moments)
        assert float(module_of(algorithm).log_std) == pytest.approx(-3.4)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    finally:
        algorithm.stop()


def test_ctrl_c_leaves_a_checkpoint_that_runs_and_every_continuation_of_it_is_the_same(trained, tmp_path):
    _, whole, _ = trained
    stopped = again(TINY, tmp_path / "stopped", checkpoint_every=10**6, eval_every=10**6)
    with pytest.raises(StoppedError, match=r"stopped at step \d+ of 1024.*the same command continues") as told:
        train(stopped, progress=False, after_update=lambda found: stop(found) if found.iteration == 2 else None)
    assert told.value.exit_code == 75
    facts = read_facts(folder(stopped, LAST))
    assert 512 <= facts["timesteps"] < 516 and not folder(stopped, "training.json").exists()
    assert np.isfinite(Policy.load(folder(stopped)).act_many(random_observations(4, 4), None)).all()
    before = json.loads(folder(stopped, "signature.json").read_text())["weights_digest"]
    found = []
    for name in ("one", "two"):
        shutil.copytree(folder(stopped), tmp_path / name)
        config, seen = dataclasses.replace(stopped, run_dir=str(tmp_path / name)), []
        found.append(train(config, progress=False, after_update=seen.append))
        assert found[-1]["resumed_at"] == [facts["timesteps"]] and len(seen) == 2
        assert found[-1]["curve"]["timesteps"][:2] == whole["curve"]["timesteps"][:2]
        assert len(found[-1]["curve"]["timesteps"]) == 4
        begun = read_facts(folder(config, LAST))["seeds"]["episodes_begun"]
        assert all(now > then for now, then in zip(begun, facts["seeds"]["episodes_begun"], strict=True))
    assert found[0]["weights_digest"] == found[1]["weights_digest"] != before
    assert [one["from_step"] for one in found[0]["made_with"]] == [0, facts["timesteps"]]


def test_an_update_that_was_cut_in_two_is_done_again(trained, tmp_path, monkeypatch):
    _, whole, _ = trained
    config = again(TINY, tmp_path, checkpoint_every=10**6)
    with monkeypatch.context() as patched:
        patched.setattr(ConvoyLearner, "after_gradient_based_update", lambda self, timesteps: stop(self))
        with pytest.raises(StoppedError, match="stopped at step 0 of 1024"):
            train(config, progress=False)
    fresh = json.loads(folder(config, "signature.json").read_text())["weights_digest"]
    assert fresh == weights_digest(read_actor(folder(config, LAST))) != whole["weights_digest"]
    assert train(config, progress=False)["weights_digest"] == whole["weights_digest"]


def after_update_of(learner, nth, action):
    """A method of the learner that does more at its nth update."""
    original, passed = learner.after_gradient_based_update, itertools.count(1)

    def updated(self, *, timesteps):
        original(self, timesteps=timesteps)
        if next(passed) == nth:
            action(self)

    return updated


def press(learner):
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_inside_the_last_update_costs_nothing_of_it(trained, tmp_path, monkeypatch):
    first, whole, _ = trained
    config, seen = again(TINY, tmp_path, checkpoint_every=10**6), []
    with monkeypatch.context() as patched:
        patched.setattr(ConvoyLearner, "after_gradient_based_update", after_update_of(ConvoyLearner, 4, press))
        with pytest.raises(StoppedError, match=f"stopped at step {whole['timesteps']} of 1024"):
            train(config, progress=False)
    facts = read_facts(folder(config, LAST))
    assert facts["timesteps"] == whole["timesteps"] == pytest.approx(facts["reward_scale"]["count"], rel=1e-6)
    last = read_actor(folder(first, LAST))
    assert weights_digest(read_actor(folder(config, LAST))) == weights_digest(last)
    assert read_arrays(folder(config, LAST))["log"]["timesteps"].tolist() == whole["curve"]["timesteps"]
    result = train(config, progress=False, after_update=seen.append)
    assert seen == [] and result["resumed_at"] == [whole["timesteps"]]
    for name in ("timesteps", "validations", "best", "weights_digest"):
        assert result[name] == whole[name], name
    assert result["curve"]["approx_kl"] == whole["curve"]["approx_kl"]


def test_a_validation_that_ctrl_c_broke_off_is_made_up_for(trained, tmp_path, monkeypatch):
    _, whole, _ = trained
    config = again(TINY, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(validation, "play", stop)
        with pytest.raises(StoppedError, match=r"stopped at step 51\d of 1024"):
            train(config, progress=False)
    assert len(rows_of(config)) == 2 and not folder(config, BEST).exists()
    result = train(config, progress=False)
    assert len(result["validations"]) == 2 and result["validations"][0] == whole["validations"][0]


class Killed(BaseException):
    """Nothing gets done after it."""


def killed_after(name, nth):
    """``os.replace``, after whose nth file of that name nothing follows."""
    replace, passed = os.replace, itertools.count(1)

    def replaced(beside, path):
        replace(beside, path)
        if Path(path).name == name and next(passed) == nth:
            raise Killed

    return replaced


@pytest.mark.parametrize(("name", "nth"), [("best.zip", 2), ("last.zip", 3)])
def test_a_kill_beside_a_checkpoint_costs_no_line_and_the_figures_are_of_the_model(tmp_path, monkeypatch, name, nth):
    config = again(TINY, tmp_path, eval_every=256, checkpoint_every=256, keep_best=1)
    collisions = iter([5, 3, 9, 9, 9])
    monkeypatch.setattr(
        validation, "Validation", lambda **found: Validation(**{**found, "collisions": next(collisions)})
    )
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed_after(name, nth))
        with pytest.raises(Killed):
            train(config, progress=False)
    (folder(config, LAST).parent / ".last.zip.abc").write_bytes(b"cut off")
    seen = []
    result = train(config, progress=False, after_update=seen.append)
    assert shipped(config) == result["best"] == result["validations"][1] and result["best"]["collisions"] == 3
    assert len(seen) == 2 and len(result["validations"]) == len(rows_of(config)) == 4
    kept = {"last.zip", "best.zip", f"step-{result['best']['timesteps']:010d}.zip"}
    assert {file.name for file in folder(config, LAST).parent.iterdir()} == kept


def shipped(config):
    """What ``model.zip`` says of the validation that chose it."""
    return Validation(*read_facts(folder(config, "model.zip"))["best"]).document()


def test_the_best_of_a_training_whose_last_checkpoint_was_removed_is_not_taken_for_ones_own(tmp_path):
    config, seen = again(TINY, tmp_path, total_timesteps=256), []
    folder(config, BEST).parent.mkdir()
    folder(config, BEST).write_bytes(b"of another training")
    result = train(config, progress=False, after_update=lambda found: seen.append(folder(config, BEST).exists()))
    assert seen == [False] and shipped(config) == result["best"]


KILLED = """
import os, signal, sys
from roadsense.cli import main
replace = os.replace
def replaced(beside, path):
    replace(beside, path)
    if str(path).endswith("best.zip"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replaced
main(sys.argv[1:])
"""


def test_the_command_is_killed_and_resumed_to_its_end(tmp_path):
    config = again(TINY, tmp_path / "run", eval_every=256)
    command = ["train", "--algorithm", "rllib-ppo", "--engine", "native", "--no-tensorboard", "--eval-every", "256"]
    for flag in ("total_timesteps", "n_envs", "n_steps", "batch_size", "eval_episodes"):
        command += ["--" + flag.replace("_", "-"), str(getattr(config, flag))]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command, "--run-dir", config.run_dir], timeout=120, capture_output=True,
        text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder(config, "training.json").exists()
    assert main(["train", "--resume", config.run_dir]) == 0
    result = json.loads(folder(config, "training.json").read_text())
    assert result["finished"] and 1024 <= result["timesteps"] < 1032 and 256 <= result["resumed_at"][0] < 260
    assert len(rows_of(config)) == len(result["validations"]) == 4
    assert shipped(config) == result["best"]
    assert weights_digest(read_actor(folder(config, "model.zip"))) == result["weights_digest"]


def test_ctrl_c_waits_for_the_end_of_what_is_whole_and_a_second_one_does_not():
    def pressed(times, seen):
        with undisturbed():
            seen.append("begun")
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            seen.append("ended")

    for times, reached in ((1, ["begun", "ended"]), (2, ["begun"])):
        seen, before = [], signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            pressed(times, seen)
        assert seen == reached and signal.getsignal(signal.SIGINT) is before
    pressed(0, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pressed(2, [])
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_training_is_not_repeated_and_another_is_refused(trained):
    config, result, _ = trained
    before = folder(config, "model.zip").stat().st_mtime_ns
    assert train(config, progress=False) == result
    assert folder(config, "model.zip").stat().st_mtime_ns == before
    with pytest.raises(InputMismatchError, match="another n_env_runners, seed"):
        train(dataclasses.replace(config, seed=9, n_env_runners=2), progress=False)


def test_either_engine_trains_the_same_weights(require_sumo, trained, tmp_path):
    _, native, _ = trained
    sumo = train(again(TINY, tmp_path, engine="sumo"), progress=False)
    assert sumo["weights_digest"] == native["weights_digest"]


def test_either_library_refuses_the_trainings_of_the_other(tmp_path):
    with pytest.raises(UsageError, match=r"roadsense\.training\.rllib_train trains it"):
        sb3.train(again(TINY, tmp_path))
    with pytest.raises(UsageError, match=r"roadsense\.training\.sb3 trains it"):
        train(again(TINY, tmp_path, algorithm="ppo"))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_stop_the_training(tmp_path):
    def spoil(algorithm):
        module_of(algorithm).critic.head[-1].bias.data.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"diverged at step \d+.*lower learning_rate") as told:
        train(again(TINY, tmp_path, eval_every=10**6), progress=False, after_update=spoil)
    assert "\n" not in str(told.value)
    assert all(np.isfinite(value).all() for value in read_actor(tmp_path / LAST).values())


def test_weights_that_are_no_numbers_are_not_kept_by_ctrl_c(tmp_path, monkeypatch):
    def spoil(learner):
        learner.module["default_policy"].actor.head[-1].bias.data.fill_(float("nan"))
        press(learner)

    monkeypatch.setattr(ConvoyLearner, "after_gradient_based_update", after_update_of(ConvoyLearner, 1, spoil))
    with pytest.raises(DivergedError, match=r"diverged at step 25\d"):
        train(again(TINY, tmp_path), progress=False)
    assert all(np.isfinite(value).all() for value in read_actor(tmp_path / LAST).values())


def test_going_on_from_a_checkpoint_unpickles_no_code(trained, tmp_path):
    config, _, _ = trained
    source, sprung = folder(config, LAST), tmp_path / "sprung"
    algorithm = build_algorithm(config)
    try:
        with zipfile.ZipFile(source) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        assert not any("class_and_ctor_args" in name for name in parts)
        pickled = [name for name in parts if name.endswith(".pkl")]
        assert len(pickled) >= 3
        disguised = [name.replace("/", "/./") + "/." for name in pickled]  # which is unpacked under the same name
        packed = [name.replace(".pkl", ".msgpack") for name in pickled]
        for name in (*pickled, *disguised, *packed):
            spoilt = tmp_path / "spoilt.zip"
            with zipfile.ZipFile(spoilt, "w") as archive:
                for part, content in {**parts, name: pickle.dumps({"a": Trap(sprung)})}.items():
                    archive.writestr(part, content)
            with pytest.raises(RoadsenseError, match=r"spoilt\.zip: is not a whole checkpoint.*mkdir") as told:
                restore_algorithm(spoilt, algorithm)
            assert not sprung.exists() and "\n" not in str(told.value)
        for size in (0, 100, source.stat().st_size // 2):
            (tmp_path / "cut.zip").write_bytes(source.read_bytes()[:size])
            for read in (read_actor, lambda path: restore_algorithm(path, algorithm)):
                with pytest.raises(RoadsenseError, match=r"cut\.zip"):
                    read(tmp_path / "cut.zip")
    finally:
        algorithm.stop()


def test_what_libsumo_says_of_rays_pyarrow_is_no_result():
    code = "from roadsense.traffic.connect import libsumo_is_free; assert libsumo_is_free()"
    for before in ("", "import logging; logging.basicConfig(level=logging.DEBUG)\n"):
        run = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True)
        assert run.stdout == "" and ("pyarrow" in run.stderr) == bool(before)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_the_command_stops_by_ctrl_c_and_leaves_a_checkpoint_and_no_process(tmp_path):
    dataset_of(tmp_path / "data", {"train": ["t0", "t1"], "val": ["v0"], "eval": ["e0"]}, unreadable=["eval"])
    mark = f"ROADSENSE_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    command = [
        sys.executable, "-m", "roadsense", "train", "--config", "rllib", "--n-env-runners", "1", "--n-envs", "2",
        "--n-steps", "128", "--eval-episodes", "2", "--no-tensorboard", "--dataset-dir", "data", "--run-dir", "run",
        "--total-timesteps", "1000000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=dict([*os.environ.items(), tuple(mark.split("="))]), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    log, deadline = tmp_path / "run" / "training.csv", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and log.read_text().count("\n") >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (75, "")
    assert err.startswith("roadsense: run: training stopped at step ") and err.count("\n") == 1
    facts = read_facts(tmp_path / "run" / LAST)
    assert facts["timesteps"] >= 512 and facts["config"]["n_env_runners"] == 1
    assert Policy.load(tmp_path / "run").signature.widths == TINY.widths
    assert still_there(mark) == []


def heed_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it puts into the background ignore it


def still_there(mark):
    """Processes that inherited the mark and did not end in the time that Ray takes for it."""
    deadline = time.monotonic() + 20
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def marked(mark):
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
    return found
