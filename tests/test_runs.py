import json
import subprocess

import pytest

from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.runs import COMPLETE, RunFolder, canonical_digest


@pytest.fixture
def run(tmp_path):
    return RunFolder.named(tmp_path / "runs", "mine")


@pytest.mark.parametrize("run_id", ["", "../up", "a/b", ".hidden", "-flag", "x" * 81, "a b"])
def test_ids_that_make_no_plain_folder_are_refused(tmp_path, run_id):
    with pytest.raises(UsageError, match=r"run id '.*' is not usable; take letters, digits"):
        RunFolder.named(tmp_path, run_id)


def test_a_run_begins_once_and_is_found_again(run):
    run.begin({"seed": 7, "preset": "quick"})
    before = (run.path / "environment.json").stat().st_mtime_ns
    run.begin({"preset": "quick", "seed": 7})
    assert (run.path / "environment.json").stat().st_mtime_ns == before
    assert json.loads((run.path / "environment.json").read_text())["versions"]["numpy"]


def test_another_configuration_is_refused_by_the_key_that_differs(run):
    run.begin({"seed": 7, "preset": "quick"})
    with pytest.raises(InputMismatchError, match="was begun with another seed; name another --run-id") as caught:
        run.begin({"seed": 8, "preset": "quick"})
    assert caught.value.exit_code == 4
    assert json.loads((run.path / "config.json").read_text())["seed"] == 7


def test_a_digest_does_not_depend_on_the_order_of_keys_and_does_on_values():
    assert canonical_digest({"a": 1, "b": [2, 3]}) == canonical_digest({"b": [2, 3], "a": 1})
    assert canonical_digest({"a": 1}) != canonical_digest({"a": 2})


def test_stages_and_status_are_remembered(run):
    run.begin({})
    assert run.status is None
    assert run.finished_stages() == {}
    run.set_status("running train")
    run.finish_stage("generate", {"seconds": 1.5})
    run.finish_stage("check", {"seconds": 2.5})
    again = RunFolder(run.path)
    assert again.status == "running train"
    assert again.finished_stages() == {"generate": {"seconds": 1.5}, "check": {"seconds": 2.5}}


def test_checksums_are_those_of_sha256sum(run):
    run.begin({"name": "ünïcode"})
    (run.path / "deep").mkdir()
    (run.path / "deep" / "file").write_bytes(b"\x00\xff")
    (run.path / ".hidden").write_text("of the moment")
    run.set_status(COMPLETE)
    run.write_checksums()
    run.verify()
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "checksums.sha256"], cwd=run.path, check=True)
    listed = (run.path / "checksums.sha256").read_text()
    assert "deep/file" in listed
    assert "hidden" not in listed


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_changed_or_missing_file_is_named(run, damage):
    run.begin({})
    run.write_checksums()
    if damage == "change":
        (run.path / "config.json").write_text("[]")
    else:
        (run.path / "config.json").unlink()
    with pytest.raises(InputMismatchError, match=r"config.json: is missing or has changed since the run was packaged"):
        run.verify()


def test_a_run_without_checksums_was_not_finished(run):
    with pytest.raises(RoadsenseError, match="the run was not finished"):
        run.verify()


def test_one_process_at_a_time(run):
    run.begin({})
    with run.locked(), pytest.raises(RoadsenseError, match="another process is at work in this run"), run.locked():
        pass
    with run.locked():
        pass
    assert not (run.path / ".lock").exists()
