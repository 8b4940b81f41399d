"""A sweep in one process: the trainings that `train` would be, once each, whatever happens to some of them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from roadsense import extras
from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError
from roadsense.policies.runtime import Policy
from roadsense.training import sb3
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.experience import input_digests
from roadsense.training.sweep import run
from roadsense.training.sweep.grid import read_grid
from roadsense.training.sweep.options import SweepConfig
from roadsense.training.sweep.run import sweep
from roadsense.training.sweep.trial import pack, trial_of, unpack

from .trainings import TINY, flags, record, result, write_grid


def swept_into(folder, base=TINY, **options):
    return sweep(SweepConfig(run_dir=folder, ray_address="none", **options), base, progress=False)


def trained(run_dir, **changes):
    return sb3.train(dataclasses.replace(TINY, run_dir=str(run_dir), **changes), progress=False)


@pytest.fixture(scope="module")
def two_by_two(tmp_path_factory):
    """Two points with two seeds; the folder, and what was printed."""
    place = tmp_path_factory.mktemp("sweep")
    grid = write_grid(place, "learning_rate: [3.0e-3, 1.0e-3]\n")
    return place / "swept", grid, swept_into(place / "swept", seeds=2, grid=grid)


def test_each_trial_is_the_training_that_train_would_be(two_by_two, tmp_path):
    folder, _, swept = two_by_two
    known = {(one["point"], one["seed"]): one for one in swept.document["trials"]}
    assert [*known] == [(point, seed) for point in ("base", "learning_rate-0.001") for seed in (0, 2)]
    alone = trained(tmp_path / "alone", seed=2, learning_rate=1e-3)
    one = known["learning_rate-0.001", 2]
    assert one["weights_digest"] == alone["weights_digest"]
    assert one["figures"]["average_reward"] == alone["best"]["average_reward"]
    assert one["figures"]["collision_share"] == alone["best"]["collisions"] / 2
    run = folder / one["folder"]
    for name in ("policy.safetensors", "signature.json"):
        assert (run / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert len({trial["weights_digest"] for trial in known.values()}) == 4
    assert Policy.load(run).signature.weights_digest == one["weights_digest"]


def test_its_folder_holds_what_it_owes(two_by_two):
    folder, _, swept = two_by_two
    assert record(folder) == swept.document and swept.document["finished"] and not swept.failed
    assert (folder / "table.md").read_text() == swept.table + "\n"
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert swept.document["schema_version"] == 2
    assert swept.document["seeds"] == [0, 2] and swept.document["seed_stride"] == TINY.n_envs == 2
    assert swept.document["config"]["learning_rate"] == 3e-3 and "seed" not in swept.document["config"]
    assert swept.document["points"][1] == {"name": "learning_rate-0.001", "overrides": {"learning_rate": 0.001}}
    assert swept.document["made_with"]["versions"]["torch"] and swept.document["judged_by"]["eval_radio_digest"]
    assert [one["n"] for one in swept.document["summary"]] == [2, 2]
    assert "base (learning_rate 0.003)" in swept.table and "learning_rate 0.001" in swept.table
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_what_is_finished_is_not_repeated_and_more_seeds_may_be_asked_for(two_by_two, monkeypatch):
    folder, grid, swept = two_by_two
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.*")}
    train, begun = sb3.train, []

    def counted(config, **named):
        begun.append(config.run_dir)
        return train(config, **named)

    monkeypatch.setattr(sb3, "train", counted)
    assert swept_into(folder, seeds=2, grid=grid).table == swept.table and begun == []
    assert swept_into(folder, seeds=3, grid=grid).document["summary"][0]["seeds"] == [0, 2, 4]
    assert begun == [str(folder / f"{point}-seed4") for point in ("base", "learning_rate-0.001")]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = (folder / "sweep.json").read_bytes()
    for told, base, options in (
        ("another seeds", TINY, {"seeds": 2, "grid": grid}),
        ("another points", TINY, {"seeds": 3}),
        ("another gamma;", dataclasses.replace(TINY, gamma=0.9), {"seeds": 3, "grid": grid}),
    ):
        with pytest.raises(InputMismatchError, match=rf"holds a sweep with {told}"):
            swept_into(folder, base, **options)
    assert (folder / "sweep.json").read_bytes() == kept


def test_no_two_seeds_share_a_world_whatever_number_of_them_a_point_has(tmp_path):
    grid = write_grid(tmp_path, "n_envs: [2, 4]\nn_steps: [64]\n")
    swept = swept_into(tmp_path / "swept", seeds=2, grid=grid, base=dataclasses.replace(TINY, seed=7))
    assert swept.document["finished"] and swept.document["seeds"] == [7, 11] and swept.document["seed_stride"] == 4
    worlds = {}
    for path in (tmp_path / "swept").glob("*/training.json"):
        config = json.loads(path.read_text())["config"]
        assert path.parent.name.endswith(f"-seed{config['seed']}")
        point = path.parent.name.rpartition("-seed")[0]
        worlds.setdefault(point, []).extend(config["seed"] + i for i in range(config["n_envs"]))
    assert len(worlds) == 3 and all(len(found) == len({*found}) for found in worlds.values())
    wider = write_grid(tmp_path / "wider", "n_envs: [2, 4, 8]\nn_steps: [64]\n")
    with pytest.raises(InputMismatchError, match="holds a sweep with another seed_stride, seeds;"):
        swept_into(tmp_path / "swept", seeds=4, grid=wider, base=dataclasses.replace(TINY, seed=7))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "is no record of a sweep"),
        ('{"schema_version": 2}', "is no record of a sweep"),
        (
            '{"schema_version": 2, "config": [], "judged_by": {}, "seeds": [], "seed_stride": 2, "points": []}',
            "is no rec",
        ),
        ('{"schema_version": 1}', "is of another version"),
    ],
)
def test_what_is_no_record_of_a_sweep_is_one_sentence(text, told, tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(text)
    assert main(["sweep", "--run-dir", str(tmp_path), "--ray-address", "none", *flags()]) == 4
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and (tmp_path / "sweep.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_an_earlier_record_is_read_under_the_lock(tmp_path, monkeypatch):
    held, refuse = [], run._Record.refuse_other

    def noted(record):
        held.append((record.path.parent / ".lock").exists())
        refuse(record)

    monkeypatch.setattr(run._Record, "refuse_other", noted)
    assert swept_into(tmp_path, seeds=1).document["finished"] and held == [True]


def test_a_failed_trial_is_told_of_and_the_others_go_on(tmp_path, capsys):
    # the last one: a point after which others still have to be trained
    grid = write_grid(tmp_path, "learning_rate: [1.0e+30, 3.0e-3, 2.0e-3]\n")
    asked = ["sweep", "--seeds", "1", "--grid", grid, "--run-dir", str(tmp_path / "swept"), "--ray-address", "none"]
    assert main([*asked, *flags()]) == 1
    out, err = capsys.readouterr()
    trials = {one["point"]: one for one in record(tmp_path / "swept")["trials"]}
    assert [one["status"] for one in trials.values()] == ["finished", "failed", "finished"]
    failed = trials["learning_rate-1e+30" if "learning_rate-1e+30" in trials else "learning_rate-1e-30"]
    assert "diverged" in failed["reason"] and failed["figures"] is None
    assert f"roadsense: {failed['folder']}: {failed['reason']}" in err.splitlines()
    assert "| 0 of 1 " in out and not record(tmp_path / "swept")["finished"]


def test_an_error_that_nobody_foresaw_is_kept_and_the_trial_is_tried_again(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ValueError("no good\nat all")

    with monkeypatch.context() as patched:
        patched.setattr(sb3, "build_model", broken)
        first = swept_into(tmp_path, seeds=1)
    assert first.failed == ["base-seed0: ValueError: no good at all"]
    assert "in broken" in (tmp_path / "base-seed0" / "failure.txt").read_text()
    assert swept_into(tmp_path, seeds=1).document["finished"]
    assert not (tmp_path / "base-seed0" / "failure.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_stopped_or_killed_goes_on(number, tmp_path):
    longer = dataclasses.replace(TINY, total_timesteps=2560)
    command = ["sweep", "--seeds", "2", "--run-dir", str(tmp_path / "swept"), "--ray-address", "none", *flags(longer)]
    process = subprocess.Popen([sys.executable, "-m", "roadsense", *command], stderr=subprocess.PIPE, text=True)
    second = tmp_path / "swept" / "base-seed2"
    until = time.monotonic() + 120.0
    while not ((second / LAST).is_file() and read_facts(second / LAST)["timesteps"] > 0):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    states = [one["status"] for one in record(tmp_path / "swept")["trials"]]
    if number == signal.SIGINT:
        assert process.returncode == 75 and states == ["finished", "stopped"]
        assert "sweep stopped with 1 of 2 trials finished; the same command continues" in err.splitlines()[-1]
    else:
        assert process.returncode == -signal.SIGKILL and states == ["finished", "waiting"]
    first = (tmp_path / "swept" / "base-seed0" / "training.json").read_bytes()
    swept = swept_into(tmp_path / "swept", longer, seeds=2)
    assert swept.document["finished"] and [one["status"] for one in swept.document["trials"]] == ["finished"] * 2
    assert (tmp_path / "swept" / "base-seed0" / "training.json").read_bytes() == first
    assert len(result(second)["resumed_at"]) == 1 and result(second)["resumed_at"][0] > 0
    alone = trained(tmp_path / "alone", total_timesteps=2560, seed=2)
    assert result(second)["weights_digest"] == alone["weights_digest"]


def test_one_sweep_at_a_time_works_in_a_folder(tmp_path, monkeypatch):
    told = []

    def inside(*arguments):
        with pytest.raises(RoadsenseError, match=r"is at work in this run; .*another --run-dir") as error:
            swept_into(tmp_path, seeds=1)
        told.append(error.value)
        raise KeyboardInterrupt

    monkeypatch.setattr(sb3, "build_model", inside)
    with pytest.raises(StoppedError, match="0 of 1 trials finished"):
        swept_into(tmp_path, seeds=1)
    assert told


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("emulator_params: [ideal]", 2, "grid: emulator_params ideal would be judged on other episodes or radios"),
        ("gamma: [0.9, 0.9]", 1, "gamma lists 0.9 twice"),
        ("gama: [0.9]", 1, "did you mean 'gamma'?"),
    ],
)
def test_a_grid_that_cannot_be_starts_nothing(text, code, told, tmp_path, capsys):
    grid = write_grid(tmp_path, text)
    asked = ["sweep", "--grid", grid, "--run-dir", str(tmp_path / "swept"), "--ray-address", "none"]
    assert main([*asked, *flags()]) == code
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and not (tmp_path / "swept").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--seeds", "0"], "seeds is 0; it must be at least 1"),
        (["--at-once", "0"], "at_once is 0; it must be at least 1"),
        (
            ["--ray-address", "here"],
            "ray_address is 'here'; it must be local, none, auto or host:port, as `ray start --head` prints it",
        ),
        (["--grids", "ppo"], "sweep has no option '--grids'"),
        (["--resume", "runs/x"], "sweep has no option '--resume'"),
        (["--seed", str(2**32 - 10)], "seed is 4294967294; it must be"),
        (["--dataset-dir", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_usage_is_one_sentence_and_starts_nothing(given, told, tmp_path, capsys):
    code = main(["sweep", "--run-dir", str(tmp_path / "swept"), "--config", "quick", *given])
    err = capsys.readouterr().err
    assert code in (1, 2) and told in err and err.count("\n") == 1 and not (tmp_path / "swept").exists()


def test_without_ray_trials_run_one_after_another_and_a_cluster_is_out_of_reach(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(extras.MODULES, "ray", ("no_such_ray",))
    assert sweep(SweepConfig(run_dir=tmp_path / "swept", seeds=1), TINY, progress=False).document["finished"]
    assert "ray is not installed, trials run one after another in this process" in capsys.readouterr().err
    with pytest.raises(RoadsenseError, match="no_such_ray is not installed"):
        sweep(SweepConfig(run_dir=tmp_path / "other", seeds=1, ray_address="auto"), TINY, progress=False)
    assert not (tmp_path / "other").exists()


def test_a_folder_is_packed_and_unpacked_as_it_is(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    for name, text in {"training.json": "{}", LAST: "zip", "checkpoints/a": "a", ".lock": ""}.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(text)
    files = pack(there)
    assert {*files} == {"training.json", LAST, "checkpoints/a"} and pack(tmp_path / "nothing") == {}
    (here / "checkpoints").mkdir(parents=True)
    (here / "checkpoints" / "forgotten").write_text("")
    unpack(files, here)
    assert pack(here) == files
    assert json.loads((here / "training.json").read_text()) == {}


def test_what_is_unpacked_can_be_gone_on_with_at_any_moment(tmp_path, monkeypatch):
    """What a checkpoint counts on is there before it, and the file that says "finished" comes last."""
    order, replace = [], os.replace

    def noted(beside, path):
        order.append(os.path.basename(path))
        replace(beside, path)

    monkeypatch.setattr(os, "replace", noted)
    names = ["training.json", LAST, "checkpoints/best.zip", "checkpoints/experience-0.npz", "signature.json"]
    unpack(dict.fromkeys(names, b""), tmp_path)
    assert order[-2:] == ["last.zip", "training.json"]


def test_a_training_with_other_inputs_than_were_asked_for_is_no_result(two_by_two):
    folder, grid, _ = two_by_two
    point = read_grid(grid, TINY)[0]
    trial = trial_of(point, 0, folder, input_digests(point.config))
    assert trial.result() == result(folder / "base-seed0")
    other = dataclasses.replace(trial, inputs={**trial.inputs, "radio_digest": "0" * 64})
    with pytest.raises(InputMismatchError, match="was begun on another dataset or radio"):
        other.result()


def test_a_point_that_changes_nothing_is_named(tmp_path):
    swept = swept_into(tmp_path / "swept", seeds=1, grid=write_grid(tmp_path, "reminders: [7]\n"))
    assert swept.document["without_effect"] == ["reminders-7"]
    assert (
        swept.table.splitlines()[-1] == "reminders 7: has the base's weights with every seed, for it changes nothing."
    )
