import json
import shutil
import subprocess

import pytest

from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.runs import COMPLETE, RunFolder, canonical_digest, git_state


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
    stages = again.finished_stages()
    assert {name: facts["seconds"] for name, facts in stages.items()} == {"generate": 1.5, "check": 2.5}


def test_every_stage_records_the_commit_it_was_made_with(run, monkeypatch):
    run.begin({})
    assert run.commits() == []
    for stage, commit in (("generate", "a" * 40), ("check", "a" * 40), ("train", "b" * 40)):
        monkeypatch.setattr("roadsense.runs.git_state", lambda folder, commit=commit: (commit, True))
        run.finish_stage(stage, {})
    assert run.commits() == ["a" * 40, "b" * 40]
    made = run.finished_stages()["train"]["made_with"]
    assert (made["git_commit"], made["git_dirty"]) == ("b" * 40, True) and made["versions"]["numpy"]


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


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose package ``mine`` is tracked; returns it and a function that calls git in it."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "a@b")
    monkeypatch.setenv("ROADSENSE_GIT_COMMIT", "c" * 40 + "-dirty")
    root = tmp_path / "checkout"

    def git(*arguments):
        command = ["git", "-C", root, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (root / "mine").mkdir(parents=True)
    (root / "mine" / "__init__.py").write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return root, git


def test_the_state_of_a_checkout_is_its_commit_and_whether_anything_differs(checkout):
    root, git = checkout
    commit = git("rev-parse", "HEAD")
    assert git_state(root / "mine") == (commit, False)
    (root / "notes.txt").write_text("beside the code")
    assert git_state(root / "mine") == (commit, False)
    (root / "params").mkdir()
    (root / "params" / "new.json").write_text("{}")
    assert git_state(root / "mine") == (commit, True)
    (root / "params" / "new.json").unlink()
    (root / "mine" / "__init__.py").write_text("changed = True")
    assert git_state(root / "mine") == (commit, True)


def test_the_commit_of_a_checkout_that_only_holds_the_installed_package_is_not_ours(checkout):
    root, _ = checkout
    installed = root / ".venv" / "roadsense"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == ("c" * 40, True)


def test_git_that_does_not_answer_is_no_traceback(checkout, monkeypatch):
    def hang(command, **kwargs):
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", hang)
    assert git_state(checkout[0] / "mine") == ("c" * 40, True)


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "progress.json"])
def test_a_damaged_record_of_a_run_is_one_sentence(run, name, content):
    run.begin({"seed": 7})
    (run.path / name).write_text(content)
    read = {"config.json": lambda: run.begin({"seed": 7}), "progress.json": run.finished_stages}[name]
    with pytest.raises(RoadsenseError, match=rf"{name}: .*; restore it, or remove the run and begin again") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_stages_that_are_no_objects_and_checksums_that_are_none_are_one_sentence(run):
    run.begin({})
    (run.path / "progress.json").write_text('{"train": 5}')
    with pytest.raises(RoadsenseError, match=r"progress.json: does not hold an object a stage"):
        run.commits()
    (run.path / "checksums.sha256").write_bytes(b"garbage \xff\n")
    with pytest.raises(RoadsenseError, match=r"checksums.sha256: is no list of checksums \('garbage"):
        run.verify()


def test_a_run_that_recorded_no_commits_is_shown_all_the_same(run):
    run.begin({})
    (run.path / "progress.json").write_text('{"generate": {"seconds": 1.0}}')
    assert run.commits() == ["unknown"]


@pytest.mark.parametrize("facts", ['{"made_with": 5}', '{"trained_with": 5}', '{"trained_with": ["a"]}'])
def test_a_stage_that_says_nonsense_of_its_making_is_one_sentence(run, facts):
    run.begin({})
    (run.path / "progress.json").write_text(f'{{"train": {facts}}}')
    with pytest.raises(RoadsenseError, match=r"progress.json: does not hold an object a stage"):
        run.commits()
