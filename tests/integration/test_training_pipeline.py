"""The whole way, by the commands a user gives: scenarios, check, training, evaluation, export, package."""

import csv
import dataclasses
import json
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.manifest import read_dataset
from roadsense.pipeline import PRESETS
from roadsense.policies.baselines import BASELINES
from roadsense.policies.runtime import Policy
from roadsense.runs import RunFolder

pytestmark = pytest.mark.usefixtures("require_sumo")

FEW = ("--total-timesteps", "4096")
CONTRACT = {
    "model.zip", "metrics.json", "manifest.json", "config.json", "policy.safetensors", "model.onnx", "signature.json",
    "episodes.csv", "parity.json", "command.txt", "environment.json", "STATUS", "checksums.sha256", "gates.json",
    "gates.txt", "suites", "report.html", "replays", "latency.json", "CARD.md", "metadata.json",
}  # fmt: skip
UNPROVEN = ("--no-closed-loop", "--no-latency")
PIPELINE = ("pipeline", "--seed", "3", "--preset", "quick", *FEW)


def roadsense(folder, *arguments, **kwargs):
    """The command, as a process of its own in ``folder``."""
    command = [sys.executable, "-m", "roadsense", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, **kwargs)


def start(folder, *arguments):
    def heed_ctrl_c():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it puts into the background ignore it

    command = [sys.executable, "-m", "roadsense", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )


def the_run(folder):
    (run,) = (folder / "runs").iterdir()
    return run


def wait_for_status(folder, status):
    """Waits until the only run below ``folder`` has that STATUS."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [file.read_text().strip() for file in folder.glob("runs/*/STATUS")]
        if found == [status]:
            return
        time.sleep(0.05)
    raise AssertionError(f"STATUS never was {status!r}")


def test_a_road_with_a_flow_is_checked_and_trained_on(busy_base, tmp_path, capsys):
    """Cars that no file lists need room too, and the next one may come as one goes."""
    assert main(["generate", "--base-scenarios", str(busy_base), "curve", "--train", "4", "--val", "2", "--eval", "2",
                 "--datasets-dir", str(tmp_path / "data")]) == 0  # fmt: skip
    dataset_dir = capsys.readouterr().out.strip()
    assert main(["check", dataset_dir]) == 0
    assert "all 8 scenarios drive as stated" in capsys.readouterr().out
    assert main(["check", dataset_dir, "--max-peers", "8"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"/train/\S+: back\.\d+ makes 9 cars beside V001, but max_peers is 8; raise max_peers", said)
    train = ["train", "--dataset-dir", dataset_dir, "--run-dir", str(tmp_path / "run"), "--total-timesteps", "2048",
             "--n-envs", "2", "--n-steps", "512", "--eval-episodes", "2"]  # fmt: skip
    assert main(train) == 0
    assert json.loads((tmp_path / "run" / "training.json").read_text())["timesteps"] == 2048


def test_the_verbs_one_after_the_other(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    assert main(["generate", "--seed", "4", "--train", "6", "--val", "3", "--eval", "6",
                 "--datasets-dir", str(data)]) == 0  # fmt: skip
    dataset_dir = capsys.readouterr().out.strip()
    assert main(["check", dataset_dir]) == 0
    capsys.readouterr()
    flags = ["--dataset_dir", dataset_dir, "--eval_dir", dataset_dir, "--seed", "3", "--emulator_params", "drive",
             "--total-timesteps", "2048", "--n-envs", "2", "--eval-every", "1024", "--eval-episodes", "3"]  # fmt: skip
    assert main(["train", "--config", "quick", "--run_dir", str(run), *flags]) == 0
    assert capsys.readouterr().out.strip() == str(run)
    trained = json.loads((run / "training.json").read_text())
    assert trained["dataset_digest"] == read_dataset(dataset_dir).digest
    assert trained["config"]["emulator_params"] == "drive"
    assert {found["episodes"] for found in trained["validations"]} == {3}
    assert (run / "checkpoints" / "best.zip").is_file()

    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--policy", str(run), "none", "--dataset-dir", dataset_dir, "--split", "eval",
                 "--episodes", "6", "--json", str(figures)]) == 0  # fmt: skip
    assert "collisions in hazards" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert found["dataset_digest"] == read_dataset(dataset_dir).digest
    assert [one["episodes"] for one in found["policies"].values()] == [6, 6]

    assert main(["export", str(run), "--formats", "onnx", *UNPROVEN]) == 0
    assert Policy.load(run / "model.onnx").signature.weights_digest == trained["weights_digest"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which a short pipeline ran to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    done = roadsense(folder, *PIPELINE)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_its_evidence(finished):
    folder, done = finished
    run = the_run(folder)
    assert {file.name for file in run.iterdir()} >= CONTRACT
    assert (run / "STATUS").read_text() == "rejected\n"  # and still the exit code is 0: quick is to see that all works
    assert done.stdout.splitlines()[-1] == f"runs/{run.name}"
    assert (run / "command.txt").read_text() == f"roadsense {' '.join(PIPELINE)}\n"
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=run, check=True)
    listed = {line.split("  ", 1)[1] for line in (run / "checksums.sha256").read_text().splitlines()}
    present = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    assert listed == present - {"checksums.sha256"}

    config = json.loads((run / "config.json").read_text())
    dataset = folder / "scenarios" / "datasets" / config["dataset_id"]
    assert (run / "manifest.json").read_bytes() == (dataset / "manifest.json").read_bytes()
    size = sum(file.stat().st_size for file in run.rglob("*") if "checkpoints" not in file.parts)
    assert size < 20e6


def test_a_run_states_its_figures_with_their_provenance(finished):
    run = the_run(finished[0])
    metrics = json.loads((run / "metrics.json").read_text())
    policies = metrics["evaluation"]["policies"]
    names = {"trained", *BASELINES}
    assert set(policies) == names
    assert all(one["invalid_episodes"] == 0 for one in policies.values())
    assert policies["none"]["collisions"]["count"] > policies["oracle"]["collisions"]["count"]
    assert policies["none"]["hazards_happened"] == policies["none"]["hazards_planned"] > 0
    assert metrics["training"]["explained_variance"]["n"] > 0
    assert metrics["evaluation"]["split"] == "eval"
    assert metrics["evaluation"]["dataset_digest"] == json.loads((run / "manifest.json").read_text())["content_digest"]
    with open(run / "episodes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48 * len(names)
    by_policy = {name: [(row["scenario_id"], row["seed"]) for row in rows if row["policy"] == name] for name in names}
    assert all(found == by_policy["none"] for found in by_policy.values())  # paired
    parity = json.loads((run / "parity.json").read_text())
    assert parity["observations"]["suites"]["matrix"]["episodes"] == 432
    for name in ("safetensors", "onnx", "fp16"):
        assert parity["formats"][name]["passed"] and parity["formats"][name]["observations"] > 10_000, name
    driven = parity["formats"]["onnx"]["closed_loop"]
    assert driven["passed"] and driven["episodes"] == 432
    assert parity["formats"]["tensorrt"]["available"] or parity["formats"]["tensorrt"]["why"]
    timed = json.loads((run / "latency.json").read_text())
    assert timed["formats"]["onnx"]["measured"] and timed["bounds"]


def test_a_run_is_judged_and_shown(finished):
    """On few episodes of every bucket, which its gates say is too few."""
    run = the_run(finished[0])
    found = json.loads((run / "gates.json").read_text())
    assert found["accepted"] is False
    verdicts = {f"{one['group']}: {one['name']}": one for one in found["verdicts"]}
    assert verdicts["integrity: files are those that were packaged"]["passed"]
    assert verdicts["coverage: every bucket of matrix has its hazards"]["n"] == 432
    safety = verdicts["safety: collisions in hazards, upper bound"]
    assert safety["n"] == 216 and "at least 3000 are needed" in safety["why"]
    assert json.loads((run / "suites" / "matrix.json").read_text())["config"]["episodes_per_bucket"] == 1
    recorded = json.loads((run / "progress.json").read_text())["gate"]
    assert recorded["accepted"] is False and "safety: collisions in hazards, upper bound" in recorded["failed"]
    page = (run / "report.html").read_text()
    assert "<b>rejected</b>" in page and page.count(">replay</a>") == 2 == len(list((run / "replays").iterdir()))
    assert "comes out otherwise" not in page
    assert (run / "gates.txt").read_text() in finished[1].stdout


def test_a_rejected_run_is_exit_code_3_where_it_must_not_be(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    monkeypatch.setitem(PRESETS, "quick", dataclasses.replace(PRESETS["quick"], may_be_rejected=False))
    assert main([*PIPELINE]) == 3
    assert "is rejected already" in capsys.readouterr().err


def test_a_finished_run_says_where_it_is(finished):
    folder, first = finished
    run = the_run(folder)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    again = roadsense(folder, *PIPELINE)
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert f"{run.relative_to(folder)} is rejected already" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_run_killed_before_its_checksums_is_finished_by_the_same_command(finished):
    folder, _ = finished
    listing = the_run(folder) / "checksums.sha256"
    listing.unlink()
    assert roadsense(folder, *PIPELINE).returncode == 0
    subprocess.run(["sha256sum", "--quiet", "-c", listing.name], cwd=listing.parent, check=True)


def test_going_on_at_another_commit_is_said_and_recorded_stage_by_stage(finished, monkeypatch, capsys):
    folder, _ = finished
    run = the_run(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("roadsense.runs.git_state", lambda folder: ("d" * 40, False))
    kept = {name: (run / name).read_bytes() for name in ("progress.json", "checksums.sha256")}
    stages = json.loads(kept["progress.json"])
    (run / "checksums.sha256").unlink()
    (run / "progress.json").write_text(json.dumps({name: stages[name] for name in stages if name != "package"}))
    try:
        assert main([*PIPELINE]) == 0
        begun = stages["generate"]["made_with"]["git_commit"]
        assert f"begun at commit {begun[:12]}, goes on at dddddddddddd" in capsys.readouterr().err
        found = json.loads((run / "progress.json").read_text())
        assert [facts["made_with"]["git_commit"] for facts in found.values()] == [begun] * 7 + ["d" * 40]
        assert main([*PIPELINE]) == 0
        assert f"is rejected already, made at commit {begun[:12]} and dddddddddddd" in capsys.readouterr().err
    finally:
        for name, whole in kept.items():
            (run / name).write_bytes(whole)


def test_other_inputs_under_the_same_name_are_refused(finished):
    folder, _ = finished
    run = the_run(folder)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    changed = roadsense(folder, *PIPELINE, "--run-id", run.name, "--emulator-params", "drive")
    assert changed.returncode == 4
    assert f"runs/{run.name}: was begun with another dataset_id, inputs" in changed.stderr
    assert changed.stderr.count("\n") == 1
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_changed_file_of_a_finished_run_is_found(finished):
    folder, _ = finished
    metrics = the_run(folder) / "metrics.json"
    whole = metrics.read_bytes()
    try:
        metrics.write_bytes(whole.replace(b"0", b"1", 1))
        found = roadsense(folder, *PIPELINE)
        assert found.returncode == 4
        assert "metrics.json: is missing or has changed since the run was packaged" in found.stderr
    finally:
        metrics.write_bytes(whole)


def test_a_stopped_and_a_killed_run_go_on_where_they_were(tmp_path):
    stopped = start(tmp_path, *PIPELINE, "--total-timesteps", "8192")
    wait_for_status(tmp_path, "running train")
    while not [log for log in tmp_path.glob("runs/*/training.csv") if log.read_text().count("\n") > 1]:
        time.sleep(0.05)  # until the first update is done
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 75
    assert "the same command continues" in said.splitlines()[-1]
    run = the_run(tmp_path)
    assert Policy.load(run).act_many is not None  # Ctrl-C left a policy that loads
    with RunFolder(run).locked():
        second = roadsense(tmp_path, *PIPELINE, "--total-timesteps", "8192")
        assert second.returncode == 1
        assert "another process is at work in this run" in second.stderr

    killed = start(tmp_path, *PIPELINE, "--total-timesteps", "8192")
    wait_for_status(tmp_path, "running evaluate")
    killed.kill()
    killed.communicate(timeout=60)
    trained = json.loads((run / "training.json").read_text())
    assert len(trained["resumed_at"]) == 1

    last = roadsense(tmp_path, *PIPELINE, "--total-timesteps", "8192")
    assert last.returncode == 0, last.stderr
    assert "[3/8] train: done before" in last.stderr
    assert json.loads((run / "training.json").read_text()) == trained
    assert (run / "STATUS").read_text() == "rejected\n"
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=run, check=True)


def test_a_dry_run_verifies_everything_and_writes_nothing(tmp_path):
    shown = roadsense(tmp_path, *PIPELINE, "--dry-run")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [
        "generate", "check", "train", "evaluate", "export", "package", "gate", "report",
    ]  # fmt: skip
    assert "4096 steps" in shown.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--base-scenarios", "straight", "nowhere"), 2, "'nowhere' is neither a shipped one nor a directory"),
        (("--emulator-params", "nowhere.json"), 1, "nowhere.json: cannot be read (No such file or directory)"),
        (("--gates", "strict"), 2, "list of gates 'strict' is unknown"),
        (("--preset", "quik"), 2, "preset 'quik' is unknown; did you mean 'quick'?"),
        (("--run-id", "../up"), 2, "run id '../up' is not usable"),
        (("--runs", "x"), 2, "has no option '--runs'; did you mean '--runs-dir'?"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_wrong_inputs_are_one_sentence_and_leave_nothing(tmp_path, flags, code, message, dry, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pipeline", "--preset", "quick", *flags, *dry]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file")
    for dry in ((), ("--dry-run",)):
        assert main([*PIPELINE, *dry]) == 1
        err = capsys.readouterr().err
        assert re.fullmatch(r"roadsense: runs/s3-quick-\w+: cannot be written.*\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_full_disk_is_one_sentence(tmp_path):
    """Files may not grow beyond 64 KiB: the manifest cannot be written."""

    def no_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    full = roadsense(tmp_path, *PIPELINE, preexec_fn=no_room)
    assert full.returncode == 1
    assert "cannot be written (File too large)" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    assert list((tmp_path / "scenarios" / "datasets").iterdir()) == []
    assert (the_run(tmp_path) / "STATUS").read_text() == "running generate\n"


def test_exporting_a_packaged_run_again_keeps_its_checksums_true(finished):
    run = the_run(finished[0])
    before = (run / "model.onnx").read_bytes()
    (run / "model.onnx").unlink()
    assert main(["export", str(run), "--formats", "onnx", *UNPROVEN]) == 0
    assert (run / "model.onnx").read_bytes() == before
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=run, check=True)


def test_exporting_does_not_sign_what_was_changed(finished, capsys):
    run = the_run(finished[0])
    metrics, whole, signed = run / "metrics.json", (run / "metrics.json").read_bytes(), run / "checksums.sha256"
    before = signed.read_bytes()
    try:
        metrics.write_bytes(whole.replace(b"0", b"1", 1))
        assert main(["export", str(run), *UNPROVEN]) == 4
        assert "metrics.json: is missing or has changed" in capsys.readouterr().err
    finally:
        metrics.write_bytes(whole)
    assert signed.read_bytes() == before


def test_actions_of_the_packaged_policy_need_no_torch(finished):
    run = the_run(finished[0])
    code = (
        "import sys; import numpy as np; from roadsense.policies.runtime import Policy;"
        "from roadsense.convoy.observation import Observation;"
        "found = [Policy.load(path).act_many(Observation.zeros(2, 3)) for path in sys.argv[1:]];"
        "print(np.abs(found[0] - found[1]).max(), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(run), str(run / "model.onnx")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert float(shown[0]) <= 1e-5
    assert shown[1] == "False"
    assert np.isfinite(float(shown[0]))
