"""A training that is killed anywhere and goes on ends with the bits of one that was not killed."""

import csv
import dataclasses
import functools
import io
import json
import random
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file

from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError
from roadsense.training.checkpoints import LAST, read_arrays, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.sb3 import train

from .callbacks import At
from .killing import Killer

PPO = TrainConfig(
    engine="native", seed=3, total_timesteps=1536, n_envs=2, n_steps=128, batch_size=128, n_epochs=2,
    learning_rate=3e-3, phi_widths=(6, 6), head_widths=(6,), critic_widths=(6,), lstm_width=4,
    eval_every=512, eval_episodes=2, checkpoint_every=512, keep_best=1, tensorboard=False,
)  # fmt: skip
"""Six rollouts of 256 steps and 4 gradients; an episode lasts longer than one of them, and ends within four."""

DAGGER = dataclasses.replace(
    PPO, algorithm="dagger", n_steps=150, total_timesteps=1800, eval_every=10**6, checkpoint_every=600, batch_size=100,
    dagger_gradients=8, dagger_average=0.9, dagger_most_samples=1200,
)  # fmt: skip
"""Six rounds of 300 steps and 8 gradients, long enough for hazards, of which the oldest two are forgotten."""
BOTH = dataclasses.replace(
    DAGGER, algorithm="dagger+ppo", eval_every=600, total_timesteps=2700, dagger_timesteps=1200, critic_warmup=300,
    reminders=3,
)  # fmt: skip
"""Four such rounds, and five rollouts of 300 steps and 6 gradients; in the first one the critic learns alone, after the
others follow 3 gradients on DAgger's experience."""
RECURRENT = dataclasses.replace(
    PPO, algorithm="recurrent-ppo", total_timesteps=768, n_steps=64, batch_size=64, eval_every=256, checkpoint_every=256
)
CONFIGS = {"ppo": PPO, "dagger": DAGGER, "both": BOTH, "recurrent": RECURRENT}

TIMES = ("seconds", "steps_per_s", "waited_s")


@pytest.fixture(scope="module")
def kill():
    killer = Killer()
    yield killer
    killer.close()


def into(folder, config, **changes):
    return dataclasses.replace(config, run_dir=str(folder), **changes)


def rows_of(run):
    with (run / "training.csv").open() as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def outcome(run):
    """All that a training leaves, but for times and where it was interrupted."""
    result = json.loads((run / "training.json").read_text())
    result["curve"].pop("steps_per_s")
    (result["workers"] or {}).pop("waited_s", None)
    _, parameters, _ = load_from_zip_file(run / LAST, load_data=False)
    arrays = read_arrays(run / LAST)
    log = arrays.pop("log")
    return {
        "result": {name: result[name] for name in result if name not in (*TIMES, "made_with", "resumed_at", "config")},
        "rows": rows_of(run),
        "log": [str(log[name].tolist()) for name in log.dtype.names if name not in TIMES],
        "weights": {name: tensor.tolist() for name, tensor in parameters["policy"].items()},
        "moments": str(parameters["policy.optimizer"]["state"]),
        "arrays": {name: (array.shape, array.tobytes()) for name, array in arrays.items()},
        "scale": read_facts(run / LAST)["reward_scale"],
        "files": sorted(file.name for file in run.rglob("*") if file.is_file()),
    }


@functools.cache
def _uninterrupted(folder, config):
    run = folder / f"{len(list(folder.iterdir()))}"
    train(into(run, config), progress=False)
    return outcome(run)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The outcome of a training that nothing disturbs."""
    return functools.partial(_uninterrupted, tmp_path_factory.mktemp("uninterrupted"))


def resume(run):
    assert main(["train", "--resume", str(run)]) == 0


def assert_same(run, expected):
    found = outcome(run)
    for name in expected:
        assert found[name] == expected[name], name


CASES = [
    ("ppo", "step", 10), ("ppo", "step", 300), ("ppo", "gradient", 15), ("ppo", "validation", 2), ("ppo", "half", 2),
    ("ppo", "renamed", 2), ("ppo", "best", 1), ("ppo", "finishing", 1),
    ("dagger", "step", 700), ("dagger", "gradient", 30), ("dagger", "experience", 3), ("dagger", "half", 4),
    ("both", "gradient", 37), ("both", "step", 1130),
    ("recurrent", "step", 200), ("recurrent", "gradient", 13),
]  # fmt: skip
MORE = [
    ("ppo", "gradient", 1), ("ppo", "gradient", 24), ("ppo", "validation", 1), ("ppo", "validation", 3),
    ("ppo", "half", 1), ("ppo", "written", 1), ("ppo", "written", 3), ("ppo", "renamed", 1), ("ppo", "renamed", 4),
    ("ppo", "kept", 1), ("dagger", "step", 8), ("dagger", "gradient", 1), ("dagger", "validation", 1),
    ("dagger", "experience", 1), ("dagger", "written", 3), ("dagger", "renamed", 3), ("dagger", "finishing", 1),
    ("both", "gradient", 21), ("both", "step", 590), ("both", "step", 610), ("both", "written", 4),
    ("both", "half", 3), ("both", "renamed", 3), ("both", "gradient", 55), ("both", "validation", 3),
    ("both", "finishing", 1), ("recurrent", "step", 5), ("recurrent", "validation", 2), ("recurrent", "half", 2),
    ("recurrent", "renamed", 3), ("recurrent", "gradient", 22),
]  # fmt: skip
"""Algorithm, point and how many times it was passed: steps of all worlds, gradients of all kinds, writes of a file."""


@pytest.mark.parametrize(
    ("name", "point", "nth"), [*CASES, *(pytest.param(*case, marks=pytest.mark.proof) for case in MORE)]
)
def test_a_killed_training_ends_as_if_it_had_not_been(name, point, nth, kill, uninterrupted, tmp_path):
    kill(into(tmp_path, CONFIGS[name]), point, nth)
    assert not (tmp_path / "training.json").exists()
    if (tmp_path / LAST).exists():
        resume(tmp_path)
    else:  # killed while the first one was written
        train(into(tmp_path, CONFIGS[name]), progress=False)
    assert_same(tmp_path, uninterrupted(CONFIGS[name]))


@pytest.mark.parametrize(("name", "points"), [
    ("ppo", [("gradient", 9), ("step", 40), ("half", 1), ("gradient", 3)]),
    ("both", [("gradient", 20), ("gradient", 17), ("step", 300), ("half", 1)]),
])  # fmt: skip
def test_as_often_as_it_likes_and_by_the_plain_command_too(name, points, kill, uninterrupted, tmp_path):
    """Whoever kills trains by the configuration, which goes on what is there."""
    config = into(tmp_path, CONFIGS[name])
    for point, nth in points:
        kill(config, point, nth)
    result = train(config, progress=False)
    assert result["resumed_at"] and result["made_with"][-1]["from_step"] == result["resumed_at"][-1] > 0
    assert_same(tmp_path, uninterrupted(CONFIGS[name]))


def test_before_its_first_checkpoint_it_begins_anew(kill, uninterrupted, tmp_path, capsys):
    config = into(tmp_path, PPO)
    kill(config, "start")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"roadsense: {tmp_path}: has no checkpoints/last.zip to resume from; give the folder of a training, or begin "
        "one anew.\n"
    )
    kill(config, "half", 1)
    assert list((tmp_path / "checkpoints").iterdir()) != [] and not (tmp_path / LAST).exists()
    train(config, progress=False)
    assert_same(tmp_path, uninterrupted(PPO))  # also: nothing half written is left


SUMO = dataclasses.replace(
    PPO, engine="sumo", n_steps=150, total_timesteps=900, checkpoint_every=300, eval_every=10**6, eval_episodes=1
)


@pytest.mark.usefixtures("require_sumo")
@pytest.mark.parametrize("changes", [
    {"n_envs": 2}, {"n_envs": 1, "n_steps": 300},
    pytest.param({"total_timesteps": 1500, "algorithm": "recurrent-ppo"}, marks=pytest.mark.proof),
    pytest.param({"total_timesteps": 1500, "algorithm": "dagger+ppo", "dagger_gradients": 5, "critic_warmup": 0},
                 marks=pytest.mark.proof),
])  # fmt: skip
def test_on_sumo_open_episodes_are_driven_again(changes, kill, uninterrupted, tmp_path):
    config = dataclasses.replace(SUMO, **changes)
    steps = config.total_timesteps // config.n_envs
    kill(into(tmp_path, config), "step", steps - 20)
    assert read_arrays(tmp_path / LAST)["worlds.actions"].any() and read_facts(tmp_path / LAST)["timesteps"] >= 600
    resume(tmp_path)
    assert_same(tmp_path, uninterrupted(config))


def test_ctrl_c_keeps_the_last_boundary_which_is_as_exact(uninterrupted, tmp_path):
    def interrupt(model):
        raise KeyboardInterrupt

    config = into(tmp_path, PPO)
    for at, boundary in ((600, 512), (1400, 1280)):
        with pytest.raises(StoppedError, match=f"stopped at step {boundary} of 1536"):
            train(config, progress=False, callback=At(at, interrupt))
        assert read_facts(tmp_path / LAST)["timesteps"] == boundary
    resume(tmp_path)
    assert_same(tmp_path, uninterrupted(PPO))


class Draws(BaseCallback):
    """Draws from python's stream in every rollout, as a callback of somebody's own may."""

    def __init__(self):
        super().__init__()
        self.drawn = {}

    def _on_rollout_end(self):
        self.drawn[self.num_timesteps] = (random.random(), random.gauss(0.0, 1.0))

    def _on_step(self):
        return True


@pytest.mark.parametrize("rollouts", [3, 4])
def test_the_stream_of_python_goes_on_as_well(rollouts, tmp_path):
    """Also between the two Gaussian numbers of a pair."""
    whole, parts = Draws(), [Draws(), Draws()]
    config = dataclasses.replace(PPO, eval_every=10**6, n_epochs=1)
    train(into(tmp_path / "whole", config), progress=False, callback=whole)
    stopped = into(tmp_path / "parts", config, checkpoint_every=128)
    act, parts[0]._on_step = parts[0]._on_step, lambda: stop(parts[0])

    def stop(callback):
        if len(callback.drawn) == rollouts:
            raise KeyboardInterrupt
        return act()

    with pytest.raises(StoppedError):
        train(stopped, progress=False, callback=parts[0])
    random.seed(99)
    train(stopped, progress=False, callback=parts[1])
    assert len(parts[1].drawn) == 6 - rollouts
    assert {**parts[0].drawn, **parts[1].drawn} == whole.drawn


# ---------------------------------------------------------------- each part is needed


def rewritten(path, change):
    """Writes a checkpoint anew: ``change`` is given its facts, arrays and further parts, and changes them."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    facts, arrays = json.loads(parts["roadsense.json"]), read_arrays(path)
    change(facts, arrays, parts)
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    parts |= {"roadsense.json": json.dumps(facts).encode(), "roadsense.npz": stored.getvalue()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.fixture(scope="module")
def stopped(kill, tmp_path_factory):
    """For an algorithm: a killed training, and the checkpoint it had at its begin (of ``both``: of PPO)."""

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp("stopped")
        first, later = {
            "ppo": (("step", 5), ("step", 700)),
            "both": (("step", 610), ("step", 1130)),
            "recurrent": (("step", 5), ("step", 340)),
            "dagger": (("step", 8), ("step", 700)),
        }[name]
        for part, (point, nth) in (("first", first), ("later", later)):
            kill(into(folder / part, CONFIGS[name]), point, nth)
        return folder

    return run


def from_first(*prefixes):
    """Puts these parts in the state they had in the first checkpoint."""

    def change(first, facts, arrays, parts):
        earlier = read_arrays(first)
        for prefix in prefixes:
            found = 0
            for kept, old in ((facts, read_facts(first)), (parts, zip_parts(first)), (arrays, earlier)):
                names = [name for name in {*kept, *old} if name == prefix or name.startswith(prefix + ".")]
                found += len(names)
                for name in names:
                    kept.pop(name, None)
                    if name in old:
                        kept[name] = old[name]
            assert found, prefix

    return change


def zip_parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("policy")}


def without_returns(first, facts, arrays, parts):
    facts["reward_scale"]["returns"] = [0.0, 0.0]


def all_starts(first, facts, arrays, parts):
    arrays["learner.starts"][:] = True


def no_pending(first, facts, arrays, parts):
    assert any(name.startswith("pending.train/imitation_loss") for name in arrays)
    for name in [name for name in arrays if name.startswith("pending.")]:
        del arrays[name]


def seed_world(first, facts, arrays, parts):
    arrays["worlds.roots"][0] += 1


def one_action(first, facts, arrays, parts):
    arrays["worlds.actions"][-1, 0] = 1.0


def fewer_steps(first, facts, arrays, parts):
    arrays["worlds.steps"][0] -= 1


NEEDED = [
    ("ppo", from_first("policy.pth"), "weights"),
    ("ppo", from_first("policy.optimizer.pth"), "weights"),
    ("ppo", from_first("timesteps"), "weights"),
    ("ppo", from_first("random.numpy", "random.numpy_place"), "weights"),
    ("ppo", from_first("random.torch"), "weights"),
    ("ppo", from_first("reward_scale"), "weights"),
    ("ppo", without_returns, "weights"),
    ("ppo", from_first("learner.updates"), "arrays"),
    ("ppo", from_first("ended"), "rows"),
    ("ppo", from_first("log"), "rows"),
    ("ppo", from_first("validations"), "result"),
    ("ppo", from_first("best"), "result"),
    ("ppo", from_first("seen"), "refused"),
    ("ppo", from_first("worlds"), "refused"),
    ("ppo", seed_world, "refused"),
    ("ppo", one_action, "refused"),
    ("ppo", fewer_steps, "refused"),
    ("recurrent", from_first("learner.memory"), "weights"),
    ("recurrent", all_starts, "weights"),
    ("both", no_pending, "rows"),
    ("dagger", from_first("mean"), "result"),
    ("dagger", from_first("policy.pth"), "weights"),
    ("dagger", from_first("policy.optimizer.pth"), "weights"),
    ("dagger", from_first("timesteps"), "weights"),
    ("dagger", from_first("seeds"), "weights"),
]


@pytest.mark.parametrize(("name", "change", "tells"), NEEDED)
def test_without_any_of_its_parts_a_checkpoint_leads_elsewhere(name, change, tells, stopped, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped(name) / "later", run)
    first = stopped(name) / "first" / LAST
    rewritten(run / LAST, functools.partial(change, first))
    config = into(run, CONFIGS[name])
    if tells == "refused":
        with pytest.raises(InputMismatchError, match="go on with the versions that the training was begun with"):
            train(config, progress=False)
        return
    train(config, progress=False)
    expected, found = uninterrupted(CONFIGS[name]), outcome(run)
    assert tells in {key for key in expected if found[key] != expected[key]}


def test_a_checkpoint_that_lacks_a_part_is_one_sentence(stopped, tmp_path):
    for name in ("ppo", "dagger", "recurrent"):
        whole = stopped(name) / "later"
        parts = [*read_arrays(whole / LAST), "policy.pth", "policy.optimizer.pth", "roadsense.npz", "roadsense.json"]
        facts = ("timesteps", "reward_scale", "validations", "best", "seeds", "resumed_at", "made_with", "config")
        for part in [*(part for part in parts if not part.startswith("pending.")), *facts]:
            if part == "seeds" and name != "dagger":
                continue  # the open episodes tell as much

            def drop(facts, arrays, parts, part=part):
                assert sum(kept.pop(part, None) is not None or part in ("best", "reward_scale")
                           for kept in (facts, arrays, parts))  # fmt: skip

            run = tmp_path / name / part
            shutil.copytree(whole, run)
            if part.startswith("roadsense."):
                with zipfile.ZipFile(run / LAST, "w") as archive:
                    archive.writestr("policy.pth", b"")
            else:
                rewritten(run / LAST, drop)
            with pytest.raises(
                RoadsenseError, match=r"last\.zip: (is not a whole|cannot be)|of another version"
            ) as told:
                train(into(run, CONFIGS[name]), progress=False)
            assert "\n" not in str(told.value), part


@pytest.mark.proof
@pytest.mark.parametrize("algorithm", ["ppo", "dagger+ppo"])
def test_the_command_itself_is_killed_at_any_time(algorithm, tmp_path):
    """By whoever watches from outside, three times, a little further each time."""
    flags = {"config": "quick", "engine": "native", "algorithm": algorithm, "total-timesteps": 16384, "n-steps": 128,
             "eval-every": 4096, "eval-episodes": 4, "checkpoint-every": 2048, "critic-warmup": 1024}  # fmt: skip
    stated = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-c", "import sys; from roadsense.cli import main; sys.exit(main())", "train"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    subprocess.run([*command, *stated, f"--run-dir={whole}"], check=True)
    for rows in (3, 7, 12):
        arguments = ["--resume", str(run)] if rows > 3 else [*stated, f"--run-dir={run}"]
        training = subprocess.Popen([*command, *arguments])
        while not (run / "training.csv").is_file() or len(rows_of(run)) < rows:
            time.sleep(0.002)
            assert training.poll() is None
        time.sleep(random.random() * 0.3)
        training.kill()
        training.wait()
    subprocess.run([*command, "--resume", str(run)], check=True)
    assert_same(run, {name: value for name, value in outcome(whole).items() if name != "files"})
