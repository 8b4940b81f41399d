"""Checkpoints that are kept, and the command line that goes on from them or begins with their weights."""

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest
import torch
from stable_baselines3 import PPO as Learner

from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.policies.signature import weights_digest
from roadsense.training.checkpoints import BEST, LAST, keep_best, read_facts, sweep
from roadsense.training.config import TrainConfig
from roadsense.training.model import actor_tensors
from roadsense.training.sb3 import train
from roadsense.training.validation import Validation

from ..datasets.by_hand import dataset_of
from ..traps import write_trapped_zip
from .callbacks import At

TINY = TrainConfig(
    engine="native", seed=3, total_timesteps=256, n_envs=2, n_steps=32, batch_size=64, n_epochs=1, phi_widths=(6, 6),
    head_widths=(6,), critic_widths=(6,), lstm_width=4, eval_every=64, eval_episodes=1, checkpoint_every=64,
    keep_best=2, tensorboard=False,
)  # fmt: skip


def into(folder, config=TINY, **changes):
    return dataclasses.replace(config, run_dir=str(folder), **changes)


def interrupt(model):
    raise KeyboardInterrupt


def stop(config, at):
    with pytest.raises(RoadsenseError) as told:
        train(config, progress=False, callback=At(at, interrupt))
    assert told.value.exit_code == 75


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = into(tmp_path_factory.mktemp("runs") / "one")
    return Path(config.run_dir), train(config, progress=False)


@pytest.fixture
def said(capsys):
    """Runs a command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


# ---------------------------------------------------------------- which are kept


def test_the_best_are_kept_and_of_equals_the_first(tmp_path):
    merits, kept = [3, 1, 2, 1, 0], []
    for number, _ in enumerate(merits):
        judged = [(1000 * (place + 1), merit) for place, merit in enumerate(merits[: number + 1])]
        keep_best(tmp_path, b"%d" % number, judged, 2)
        kept.append({file.name: file.read_bytes() for file in (tmp_path / "checkpoints").iterdir()})
    names = [f"step-{step:010d}.zip" for step in range(0, 6000, 1000)]
    assert [sorted(found) for found in kept] == [
        [names[1]], [names[1], names[2]], [names[2], names[3]], [names[2], names[4]], [names[2], names[5]],
    ]  # fmt: skip
    assert kept[-1] == {names[2]: b"1", names[5]: b"4"}
    (tmp_path / LAST).write_bytes(b"last")
    keep_best(tmp_path, b"", [(1000, 0)], 0)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.zip"]


def test_a_checkpoint_is_written_before_another_is_removed(tmp_path, monkeypatch):
    keep_best(tmp_path, b"old", [(1, 1)], 1)

    def full(path, content):
        raise RoadsenseError("the disk is full.")

    monkeypatch.setattr("roadsense.training.checkpoints.write_bytes", full)
    with pytest.raises(RoadsenseError):
        keep_best(tmp_path, b"new", [(1, 1), (2, 0)], 1)
    assert [file.read_bytes() for file in (tmp_path / "checkpoints").iterdir()] == [b"old"]


def test_a_training_keeps_the_best_by_its_validations(trained):
    run, result = trained
    assert len(result["validations"]) == 4
    ranked = sorted(map(Validation.of, result["validations"]), key=lambda one: one.merit)
    files = sorted(file.name for file in run.glob("checkpoints/step-*"))
    assert files == sorted(f"step-{one.timesteps:010d}.zip" for one in ranked[:2])
    best = run / "checkpoints" / f"step-{result['best']['timesteps']:010d}.zip"
    digests = [weights_digest(actor_tensors(Learner.load(path, device="cpu"))) for path in (best, run / BEST)]
    assert digests == [result["weights_digest"]] * 2
    assert [Validation.of(one).document() for one in result["validations"]] == result["validations"]


def test_only_what_a_killed_write_left_is_swept_away(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/.last.zip.x1", ".model.zip.ab", ".lock", "model.zip", "checkpoints/last.zip", ".other.a"):
        (tmp_path / name).write_text("")
    sweep(tmp_path, ["model.zip"])
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {".lock", "model.zip", "checkpoints/last.zip", ".other.a"}


# ---------------------------------------------------------------- --resume


def test_resume_takes_everything_from_the_run_wherever_it_lies(trained, tmp_path, said):
    _, result = trained
    stop(into(tmp_path / "begun"), 130)
    moved = (tmp_path / "begun").rename(tmp_path / "moved")
    code, out, _ = said("train", "--resume", moved)
    assert (code, out) == (0, f"{moved}\n") and not (tmp_path / "begun").exists()
    found = json.loads((moved / "training.json").read_text())
    assert found["weights_digest"] == result["weights_digest"] and found["resumed_at"] == [128]
    assert found["validations"] == result["validations"]
    before = (moved / "training.json").stat().st_mtime_ns
    assert said("train", f"--resume={moved}") == (
        0, f"{moved}\n", f"roadsense: {moved}: is trained to its end already, nothing is left to do\n"
    )  # fmt: skip
    assert (moved / "training.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resume"], "--resume needs a value, the folder of a training that was begun."),
        (["--resume", "{}", "--seed", "4"],
         "train: --resume goes on as the training was configured; leave out --seed 4."),
        (["--init-from", "a.zip", "--resume", "{}"],
         "train: --resume goes on as the training was configured; leave out --init-from a.zip, which begins a new "
         "one."),
        (["--resume", "{}"], "{}: has no checkpoints/last.zip to resume from; give the folder of a training, or begin "
         "one anew."),
        (["--resume", "{}/nowhere"], "{}/nowhere: has no checkpoints/last.zip to resume from; give the folder of a "
         "training, or begin one anew."),
    ],
)  # fmt: skip
def test_what_cannot_be_resumed_is_one_sentence(arguments, told, tmp_path, said):
    place = str(tmp_path)
    code, out, err = said("train", *(one.replace("{}", place) for one in arguments))
    assert (code, out, err) == (2, "", f"roadsense: {told.replace('{}', place)}\n")
    assert not list(tmp_path.iterdir())


def edited(path, change):
    """Changes the facts of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    facts = json.loads(parts["roadsense.json"])
    change(facts)
    parts["roadsense.json"] = json.dumps(facts).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda facts: facts.pop("checkpoint_format"),
            r"last\.zip: is a checkpoint of another version \(format 1, not",
        ),
        (lambda facts: facts.update(checkpoint_format=9), r"another version \(format 9, not 2\)"),
        (
            lambda facts: facts.update(layout_hash="f" * 64),
            r"last\.zip: is a checkpoint of observation layout ffffffff",
        ),
        (lambda facts: facts["config"].pop("keep_best"), "cannot train .keep_best stand"),
        (lambda facts: facts["config"].update(gama=1.0), "cannot train .gama stand"),
        (lambda facts: facts["config"].update(gamma=2.0), r"cannot train \(gamma is 2.0"),
        (lambda facts: facts.pop("resumed_at"), "holds a training of another version"),
        (lambda facts: facts.update(radio_digest="other"), "was begun on another dataset or radio"),
    ],
)
def test_a_checkpoint_of_another_version_or_configuration_is_refused(change, told, tmp_path, said):
    stop(into(tmp_path), 70)
    edited(tmp_path / LAST, change)
    content = (tmp_path / LAST).read_bytes()
    code, out, err = said("train", "--resume", tmp_path)
    assert (code, out, err.count("\n")) == (4, "", 1)
    with pytest.raises(InputMismatchError, match=told):
        raise InputMismatchError(err)
    assert (tmp_path / LAST).read_bytes() == content


def test_a_changed_dataset_is_refused(tmp_path, said):
    root = dataset_of(tmp_path / "data", {"train": ["t0"], "val": ["v0"], "eval": ["e0"]})
    stop(into(tmp_path / "run", dataset_dir=root), 70)
    routes = Path(root) / "train" / "t0" / "vehicles.rou.xml"
    routes.write_text(routes.read_text() + "\n")
    code, _, err = said("train", "--resume", tmp_path / "run")
    assert code == 4 and "vehicles.rou.xml" in err and err.count("\n") == 1
    dataset_of(tmp_path / "other", {"train": ["t0", "t1"], "val": ["v0"], "eval": ["e0"]})
    (tmp_path / "data").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "data")
    code, _, err = said("train", "--resume", tmp_path / "run")
    assert code == 4 and "was begun on another dataset or radio" in err and err.count("\n") == 1


# ---------------------------------------------------------------- --init-from


def first_weights(config):
    """The policy before its first step."""
    seen = []

    def look(model):
        seen.append({name: tensor.clone() for name, tensor in model.policy.state_dict().items()})
        raise KeyboardInterrupt

    with pytest.raises(RoadsenseError):
        train(config, progress=False, callback=At(0, look))
    return seen[0]


@pytest.mark.parametrize("model", ["", "model.zip", BEST])
def test_a_new_training_begins_with_given_weights(model, trained, tmp_path):
    run, result = trained
    config = into(tmp_path, seed=8, init_from=str(run / model), log_std_start=-1.5)
    begun, given = first_weights(config), Learner.load(run / "model.zip", device="cpu").policy.state_dict()
    assert begun.keys() == given.keys()
    assert all(torch.equal(begun[name], given[name]) for name in given if name != "log_std")
    assert begun["log_std"].item() == -1.5  # exploration is the new training's own
    facts = read_facts(tmp_path / LAST)
    assert facts["timesteps"] == 0 and facts["init_weights_digest"] == result["weights_digest"]
    found = train(config, progress=False)
    assert found["init_weights_digest"] == result["weights_digest"] != found["weights_digest"]
    assert found["config"]["init_from"] == str(run / model) and found["timesteps"] == 256
    assert json.loads((tmp_path / "training.json").read_text()) == found


def test_dagger_too_begins_with_given_weights_and_random_ones_have_no_digest(trained, tmp_path):
    run, result = trained
    config = into(tmp_path, algorithm="dagger", init_from=str(run), total_timesteps=64, dagger_gradients=1,
                  log_std_start=-1.5)  # fmt: skip
    assert train(config, progress=False)["init_weights_digest"] == result["weights_digest"]
    assert Learner.load(tmp_path / LAST, device="cpu").policy.log_std.item() == -1.5
    assert result["init_weights_digest"] is None


def test_a_training_under_way_does_without_the_model_it_began_with(trained, tmp_path, said):
    model = tmp_path / "model.zip"
    model.write_bytes((trained[0] / "model.zip").read_bytes())
    config = into(tmp_path / "run", init_from=str(model))
    stop(config, 70)
    other = train(into(tmp_path / "other", seed=9, total_timesteps=64), progress=False)
    model.write_bytes((tmp_path / "other" / "model.zip").read_bytes())
    with pytest.raises(InputMismatchError, match=r"was begun with other weights than .*model\.zip holds now") as told:
        train(config, progress=False)
    assert "\n" not in str(told.value)
    assert said("train", "--resume", tmp_path / "run")[0] == 0
    found = json.loads((tmp_path / "run" / "training.json").read_text())
    assert found["init_weights_digest"] == trained[1]["weights_digest"] != other["weights_digest"]

    gone = into(tmp_path / "gone", init_from=str(model))
    stop(gone, 70)
    model.unlink()
    assert train(gone, progress=False)["init_weights_digest"] == other["weights_digest"]


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        (
            {"phi_widths": (6, 7)},
            InputMismatchError,
            r"model.zip: has phi_widths \[6, 6\] and not \[6, 7\]; train with",
        ),
        ({"head_widths": (6, 6)}, InputMismatchError, r"has head_widths \[6\] and not \[6, 6\]"),
        ({"critic_widths": (5,)}, InputMismatchError, r"has critic_widths \[6\] and not \[5\]"),
        ({"algorithm": "recurrent-ppo"}, InputMismatchError, "has lstm_width None and not 4"),
        ({"messages_per_peer": 2}, InputMismatchError, "has messages_per_peer 1 and not 2"),
        ({"control": "acceleration"}, InputMismatchError, "has control brake and not acceleration"),
        ({"init_from": "nowhere"}, UsageError, "nowhere: no such model; --init-from takes the folder of a finished"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(changes, kind, told, trained, tmp_path):
    with pytest.raises(kind, match=told) as refused:
        train(into(tmp_path / "run", **{"init_from": str(trained[0]), **changes}), progress=False)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_weights_of_another_layout_and_trapped_ones_are_refused(trained, tmp_path):
    other, trapped, sprung = tmp_path / "other.zip", tmp_path / "trapped.zip", tmp_path / "sprung"
    other.write_bytes((trained[0] / "model.zip").read_bytes())
    edited(other, lambda facts: facts.update(layout_hash="0" * 64))
    with pytest.raises(InputMismatchError, match=r"other.zip: reads observation layout 000000000000, this version"):
        train(into(tmp_path / "run", init_from=str(other)), progress=False)
    write_trapped_zip(trapped, sprung, like=trained[0] / "model.zip", only="policy.pth")
    with pytest.raises(RoadsenseError, match=r"trapped.zip: is not a whole checkpoint"):
        train(into(tmp_path / "run", init_from=str(trapped)), progress=False)
    assert not sprung.exists() and not (tmp_path / "run").exists()
