"""The supervisor with a real child: exit codes, caps, signals, the spot notice, and what is kept each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roadsense.cli import VERBS, main
from roadsense.cloud.ledger import Ledger
from roadsense.cloud.results import RUNS, Places, keep, value_of
from roadsense.cloud.supervisor import JobConfig, Supervisor
from roadsense.errors import RoadsenseError, UsageError
from roadsense.files import write_json
from roadsense.runs import RunFolder
from roadsense.storage import download

from ..s3 import Server
from .metadata import MetadataServer

REPO = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("standin.py")
STORE = "s3://fleet/convoys"
CODE = """
import sys
from pathlib import Path
from roadsense.cloud import spot
from roadsense.cloud.budget import Meter
from roadsense.cloud.supervisor import JobConfig, Supervisor
config = JobConfig(**{values!r})
watch = spot.Watch(spot.metadata_url(), every_s=0.05)
job = Supervisor(sys.argv[1:], config, program=[sys.executable, {standin!r}], watch=watch)
if {late!r}:  # hours pass once there is a file of that name: how soon a child starts depends on the machine
    job.meter = Meter(config, clock=lambda: 3600 * config.max_hours * Path({late!r}).exists())
sys.exit(job.run())
"""


def start(
    tmp_path: Path, *command: str, prefix: tuple[str, ...] = (), late: str = "", **values: object
) -> subprocess.Popen[str]:
    """Starts the supervisor of a stand-in, in a folder of its own."""
    code = CODE.format(values={"store": STORE, **values}, standin=str(STANDIN), late=late)
    env = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *command], cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Waits for its end; returns exit code, stdout, stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def run(tmp_path: Path, *command: str, **values: object) -> tuple[int, str, str]:
    return end(start(tmp_path, *command, **values))


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Reads its output up to a line."""
    assert process.stdout is not None
    for read in process.stdout:
        if read == f"{line}\n":
            return
    pytest.fail(f"it ended without {line!r}: {process.stderr.read() if process.stderr else ''}")


def attempts(s3: Server) -> set[str]:
    """Names of runs below attempts/, without those of the attempts."""
    return {key.split("/", 3)[3] for key in s3.stored() if key.startswith("convoys/attempts/")}


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 75])
def test_the_verbs_own_code_is_handed_on_and_all_is_kept(s3: Server, tmp_path: Path, code: int) -> None:
    ended, out, err = run(tmp_path, "pipeline", "--code", str(code))
    assert (ended, out) == (code, "step 1\n"), err
    assert "convoys/datasets/d7/manifest.json" in s3.stored()
    finished = code in (0, 3)
    assert ("convoys/runs/s7/checksums.sha256" in s3.stored()) is finished
    assert ("runs/s7/.listing.sha256" in attempts(s3)) is not finished


def test_a_killed_verb_is_an_error_and_what_there_is_is_kept(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "runs" / "before").mkdir(parents=True)
    ended, _, err = run(tmp_path, "die")
    assert ended == 1 and "die was killed by SIGKILL" in err
    assert attempts(s3) == set()  # nothing was touched
    told = "nothing was kept, for nothing changed in runs, scenarios/datasets; a folder that only a file names is not"
    assert told in err


def test_the_cap_on_hours_stops_it_and_the_same_command_goes_on(s3: Server, tmp_path: Path) -> None:
    process = start(tmp_path, "pipeline", "--steps", "4000", late="now", usd_per_hour=0.5, max_usd=2.0)
    wait_for(process, "step 2")
    (tmp_path / "now").touch()
    ended, out, err = end(process)
    assert ended == 75 and out.endswith("saved\n"), err
    assert "at most 4 h, at worst 4 h × (0.5) USD/h = 2.00 USD" in err
    assert "the cap of 4 hours is reached; the work saves its state and stops" in err
    (url,) = {key.rpartition("/.listing")[0] for key in s3.stored() if key.endswith(".listing.sha256")}
    download(f"s3://fleet/{url}", tmp_path / "elsewhere" / "runs" / "s7")
    step = int((tmp_path / "elsewhere" / "runs" / "s7" / "checkpoints" / "last.txt").read_text())
    assert step >= 2
    ended, out, _ = run(tmp_path / "elsewhere", "pipeline", "--steps", str(step + 2))
    assert ended == 0 and out.splitlines() == [f"step {step + 1}", f"step {step + 2}"]


def test_the_cap_counts_earlier_attempts_of_the_same_command(s3: Server, tmp_path: Path) -> None:
    caps = {"max_hours": 1.0, "reserve_s": 10.0, "grace_s": 1.0}
    command = ["pipeline", "--steps", "1"]
    ledger = Ledger(STORE, command)
    ledger.begin("20260101T000000Z-a", 1.0)
    ledger.end("20260101T000000Z-a", 0.25, 75, "this spot machine will terminate")
    assert ledger.used_hours() == 0.25
    assert run(tmp_path, *command, **caps)[0] == 0
    used = ledger.used_hours()
    assert 0.25 < used < 0.35
    assert Ledger(STORE, ["pipeline", "--steps", "2"]).used_hours() == 0
    ledger.begin("20260102T000000Z-b", 0.75)  # and left no account: it counts with all that it was allowed
    ended, out, err = run(tmp_path, *command, **caps)
    assert (ended, out) == (1, "") and "the cap of 1 hours is reached, by 1.00 h of earlier attempts" in err


def test_the_account_says_what_it_took_and_why_it_ended(s3: Server, tmp_path: Path) -> None:
    run(tmp_path, "pipeline", "--code", "3", used_hours=0.5)
    begun, ended = (json.loads(s3.content(key)) for key in s3.stored() if "/jobs/" in key)
    assert begun == {"command": "pipeline --code 3", "hours": 4.0}
    assert ended["exit_code"] == 3 and ended["stopped"] is None and 0.5 < ended["hours"] < 0.6


def test_a_spot_notice_stops_it(s3: Server, tmp_path: Path, metadata: MetadataServer, monkeypatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    process = start(tmp_path, "pipeline", "--steps", "4000")
    wait_for(process, "step 2")
    metadata.notice = {"action": "terminate", "time": "2026-12-01T08:22:00Z"}
    ended, out, err = end(process)
    assert ended == 75 and out.endswith("saved\n")
    assert "this spot machine will terminate at 2026-12-01T08:22:00Z; the work saves its state and stops" in err
    assert "runs/s7/checkpoints/last.txt" in attempts(s3)


@pytest.mark.parametrize("prefix", [(), ("sh", "-c", '"$@" & pid=$!; echo $pid; wait $pid', "sh")])
def test_sigterm_reaches_the_verb_as_ctrl_c_also_where_a_shell_ignores_that(s3, tmp_path, prefix) -> None:
    process = start(tmp_path, "pipeline", "--steps", "4000", prefix=prefix)
    assert process.stdout is not None
    target = int(process.stdout.readline()) if prefix else process.pid
    wait_for(process, "step 1")
    os.kill(target, signal.SIGTERM)
    ended, out, err = end(process)
    assert ended == 75 and out.endswith("saved\n") and "stopped by SIGTERM" in err
    assert "runs/s7/checkpoints/last.txt" in attempts(s3)


def test_a_blocked_interrupt_as_under_ray_reaches_the_verb_all_the_same(s3: Server, tmp_path: Path) -> None:
    block = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT});"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = start(tmp_path, "pipeline", "--steps", "4000", prefix=(sys.executable, "-c", block))
    wait_for(process, "step 1")
    process.send_signal(signal.SIGTERM)
    ended, out, _ = end(process)
    assert ended == 75 and out.endswith("saved\n")


def test_ctrl_c_of_the_whole_group_interrupts_the_verb_once(s3: Server, tmp_path: Path) -> None:
    process = start(tmp_path, "pipeline", "--steps", "4000", prefix=("setsid",))
    wait_for(process, "step 1")
    os.killpg(process.pid, signal.SIGINT)
    ended, out, err = end(process)
    assert ended == 75 and out.endswith("saved\n") and "Traceback" not in err


def test_a_verb_that_hears_nothing_is_killed_and_its_checkpoint_is_kept(s3: Server, tmp_path: Path) -> None:
    process = start(tmp_path, "pipeline", "--steps", "4000", "--deaf", grace_s=0.5)
    wait_for(process, "step 2")
    process.send_signal(signal.SIGTERM)
    ended, _, err = end(process)
    assert ended == 75 and "it did not stop within 0.5 s and is killed; its last checkpoint counts" in err
    assert "runs/s7/checkpoints/last.txt" in attempts(s3)


def test_what_is_there_already_under_its_name_is_kept_beside_it(s3: Server, tmp_path: Path) -> None:
    s3.client.put_object(Bucket="fleet", Key="convoys/runs/s7/config.json", Body=b"of somebody else")
    ended, _, err = run(tmp_path, "pipeline")
    assert ended == 0 and "config.json: is there with another content" in err
    assert s3.content("convoys/runs/s7/config.json") == b"of somebody else"
    assert "runs/s7/checksums.sha256" in attempts(s3)


@pytest.mark.parametrize(("code", "expected"), [(0, 1), (3, 3)])
def test_results_that_could_not_be_kept_are_no_success(s3: Server, tmp_path: Path, code: int, expected: int) -> None:
    process = start(tmp_path, "pipeline", "--code", str(code), "--steps", "10")
    wait_for(process, "step 1")
    s3.remove_bucket()
    ended, _, err = end(process)
    assert ended == expected and "not kept: s3://fleet: there is no such bucket" in err
    assert "Traceback" not in err


def test_a_store_that_does_not_answer_is_found_before_the_start(s3: Server, tmp_path: Path) -> None:
    ended, out, err = run(tmp_path, "pipeline", store="s3://navy/convoys")
    assert (ended, out) == (1, "") and "there is no such bucket" in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_store_results_stay_here(tmp_path: Path) -> None:
    assert run(tmp_path, "pipeline", store=None)[:2] == (0, "step 1\n")
    assert (tmp_path / "runs" / "s7" / "STATUS").is_file()


@pytest.mark.parametrize("name", ["training.json", "sweep.json"])
def test_a_training_or_sweep_of_its_own_is_kept_by_its_name_once_it_is_finished(s3, tmp_path: Path, name: str) -> None:
    said: list[str] = []

    def kept(run: Path, attempt: str) -> set[str]:
        before = {*s3.stored()}
        assert keep({run: RUNS}, STORE, attempt, said.append) == []
        return {key.removeprefix("convoys/") for key in {*s3.stored()} - before}

    run = tmp_path / "mine"
    write_json(run / name, {"finished": False})
    assert kept(run, "a") == {f"attempts/a/runs/mine/{name}", "attempts/a/runs/mine/.listing.sha256"}
    write_json(run / name, {"finished": True})
    assert kept(run, "b") == {f"runs/mine/{name}", "runs/mine/.listing.sha256"}
    download(f"{STORE}/runs/mine", tmp_path / "back")
    assert json.loads((tmp_path / "back" / name).read_text()) == {"finished": True}
    write_json(run / name, {"finished": True, "of": "another one of that name"})
    assert kept(run, "c") == {f"attempts/c/runs/mine/{name}", "attempts/c/runs/mine/.listing.sha256"}
    stage = tmp_path / "stage"
    write_json(stage / name, {"finished": True})
    RunFolder(stage).set_status("running export")
    assert all(key.startswith("attempts/d/") for key in kept(stage, "d"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / name).write_text("{")
    assert all(key.startswith("attempts/e/") for key in kept(tmp_path / "damaged", "e"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"grace_s": 301.0}, "--grace-s is 301; give 0 to 300 s"),
        ({"used_hours": float("nan")}, "--used-hours is nan"),
    ],
)
def test_times_that_do_not_fit_are_refused(values: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        JobConfig(**values)


def test_hours_of_the_machine_before_the_job_count() -> None:
    with pytest.raises(
        RoadsenseError, match=r"the cap of 4 hours is reached, by 0.00 h of earlier attempts and 3.95 h"
    ):
        Supervisor(["pipeline"], JobConfig(used_hours=3.95))


def test_where_results_lie_is_read_from_the_command() -> None:
    command = ["train", "--run_dir=a/b", "--runs-dir", "c", "--datasets_dir", "d"]
    assert Places.of(command) == Places(runs_dir=Path("c"), datasets_dir=Path("d"), run_dir=Path("a/b"))
    assert Places.of(["pipeline"]) == Places(runs_dir=Path("runs"), datasets_dir=Path("scenarios/datasets"))
    assert value_of("--seed", ["pipeline", "--seed"], "none") == "none"


def test_a_dataset_that_was_there_is_kept_with_the_run_made_from_it(s3: Server, tmp_path: Path) -> None:
    assert run(tmp_path, "pipeline", store=None)[0] == 0
    assert run(tmp_path, "pipeline", "--code", "0")[0] == 0
    assert "convoys/datasets/d7/manifest.json" in s3.stored() and "convoys/runs/s7/STATUS" in s3.stored()


def test_flags_of_job_are_found_on_either_side_and_none_is_also_a_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["job", "run", "--max-hours", "0.01", "pipeline", "--seed", "7"],
        ["job", "run", "pipeline", "--max_hours=0.01", "--seed", "7"],
        ["job", "run", "--max-hours=0.01", "--", "pipeline", "--max-hours", "7"],
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("roadsense: --max-hours 0.01 leaves nothing")
    for verb, told in (("pipelin", "did you mean 'pipeline'?"), ("job", "known are:"), ("--sed", "known are:")):
        assert main(["job", "run", verb]) == 2
        assert capsys.readouterr().err.startswith(f"roadsense: job run needs a verb to run, not {verb!r}; {told}")
    own = flags_of(["job", "submit"], capsys) - {"--help"}
    assert {"--max-hours", "--store", "--address", "--cpus"} <= own
    for verb in VERBS.keys() - {"job", "store"}:
        assert not own & (flags_of([verb], capsys) - {"--help"}), verb


def flags_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    words = capsys.readouterr().out.replace("│", " ").replace(",", " ").split()
    return {word for word in words if word.startswith("--") and word.strip("-")}


@pytest.mark.proof
@pytest.mark.usefixtures("require_sumo")
def test_a_real_pipeline_is_stopped_goes_on_elsewhere_and_comes_back_whole(s3: Server, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    job = [sys.executable, "-m", "roadsense", "job", "run", "--max-hours", "1", "--store", STORE, "--"]
    command = [*job, "pipeline", "--preset", "quick", "--seed", "7"]
    (tmp_path / "first").mkdir()
    first = subprocess.Popen(command, cwd=tmp_path / "first", env=env, stderr=subprocess.PIPE, text=True)
    try:
        for line in first.stderr:
            if "train …" in line:
                break
        time.sleep(8)
        first.send_signal(signal.SIGTERM)
        said = first.communicate(timeout=120)[1]
    finally:
        first.kill()
    assert first.returncode == 75, said
    assert "the same command continues" in said
    (key,) = [key for key in s3.stored() if key.endswith("/STATUS")]
    prefix = key.removesuffix("/STATUS")
    run_id = prefix.rpartition("/")[2]
    download(f"s3://fleet/{prefix}", tmp_path / "second" / "runs" / run_id)
    done = subprocess.run(command, cwd=tmp_path / "second", env=env, timeout=540, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    download(f"{STORE}/runs/{run_id}", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "progress.json").read_text())["train"]["resumed_at"]
