import csv
import json
import shutil

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.evaluation.evaluate import EvaluationConfig, evaluate
from roadsense.evaluation.journal import EPISODES_NAME, HEAD, IDENTITY_NAME, Journal, read_episodes
from roadsense.policies.baselines import make_baseline

from .test_suites import file_of

pytestmark = pytest.mark.usefixtures("require_sumo")


def suite_config(tmp_path, **changes):
    return EvaluationConfig(suite=file_of(tmp_path), engine="native", max_peers=2, **changes)


def texts(result):
    return [row.cells() for row in result.rows]


class Stopping:
    """A policy that is stopped by Ctrl-C after some decisions."""

    def __init__(self, name, decisions):
        self._inner, self._left = make_baseline(name), decisions
        self.name, self.control, self.privileged = name, self._inner.control, self._inner.privileged
        self.messages_per_peer, self.origin = 1, {}

    def reset(self, chosen, seeds):
        self._inner.reset(chosen, seeds)

    def act_many(self, observation, truth):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._inner.act_many(observation, truth)


class Broken(Stopping):
    """Gives no number in one world from its 30th decision on."""

    def act_many(self, observation, truth):
        actions = super().act_many(observation, truth)
        if self._left < 10_000 - 30:
            actions[0] = np.nan
        return actions


def test_a_suite_gives_one_row_an_episode_and_figures_by_radio_and_bucket(tmp_path):
    result = evaluate([make_baseline("none"), make_baseline("oracle")], suite_config(tmp_path), progress=False)
    assert len(result.rows) == 2 * 36
    assert [(one["policy"], one["radio"]) for one in result.summaries] == [
        ("none", "ideal"), ("none", "convoy"), ("oracle", "ideal"), ("oracle", "convoy")
    ]  # fmt: skip
    found = result.document()
    assert found["suite"]["name"] == "small" and len(found["suite"]["digest"]) == 64
    none = found["policies"]["none"]
    assert [bucket["n"] for bucket in none["buckets"]] == [3] * 12
    assert none["collisions"]["n"] == 36 and none["radios"]["ideal"]["collisions"]["n"] == 18
    assert none["collisions"]["count"] == sum(bucket["collisions"] for bucket in none["buckets"]) > 20
    assert found["policies"]["oracle"]["collisions"]["count"] == 0
    assert result.problems == []
    # without assistance the radio changes nothing
    ideal = [row.metrics for row in result.rows if row.policy == "none" and row.radio == "ideal"]
    convoy = [row.metrics for row in result.rows if row.policy == "none" and row.radio == "convoy"]
    assert [one.min_gap_m for one in ideal] == [one.min_gap_m for one in convoy]


def test_room_for_more_cars_changes_nothing(tmp_path):
    asked = [EvaluationConfig(suite=file_of(tmp_path), engine="native", max_peers=room) for room in (None, 2, 9)]
    found = [evaluate([make_baseline("v2v_rule")], config, progress=False) for config in asked]
    assert texts(found[0]) == texts(found[1]) == texts(found[2])


def test_a_sample_on_sumo_agrees(tmp_path):
    result = evaluate([make_baseline("v2v_tuned")], suite_config(tmp_path, confirm=4), progress=False)
    confirmed = result.policies["v2v_tuned"]["confirmed"]
    assert confirmed == {"engine": "sumo", "episodes": [0, 9, 18, 27], "differing": []}


def test_engines_that_disagree_are_named(tmp_path, monkeypatch):
    from roadsense.traffic import native

    advance = native.NativeTraffic.advance

    def pushed(self, next_speeds, steered, active):
        advance(self, next_speeds, steered, active)
        self.state.speed_mps[:, 1] += 1e-12

    monkeypatch.setattr(native.NativeTraffic, "advance", pushed)
    result = evaluate([make_baseline("v2v_tuned")], suite_config(tmp_path, confirm=2), progress=False)
    assert len(result.problems) == 2 and "comes out otherwise on SUMO" in result.problems[0]


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path):
    whole = evaluate([make_baseline("none"), make_baseline("v2v_tuned")], suite_config(tmp_path), progress=False)
    folder = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            [make_baseline("none"), Stopping("v2v_tuned", 270)], suite_config(tmp_path), folder=folder, progress=False
        )
    kept = len((folder / EPISODES_NAME).read_text().splitlines()) - 1
    assert 36 <= kept < 72
    with (folder / EPISODES_NAME).open("a") as file:
        file.write("v2v_tuned,99,torn")  # as a killed process leaves it
    resumed = evaluate(
        [make_baseline("none"), make_baseline("v2v_tuned")], suite_config(tmp_path), folder=folder, progress=False
    )
    assert texts(resumed) == texts(whole)
    assert resumed.summaries == whole.summaries
    with (folder / EPISODES_NAME).open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == HEAD and rows[1:] == texts(whole)


def of_row(number, damaged):
    return lambda lines: [*lines[:number], damaged(lines[number]), *lines[number + 1 :]]


DAMAGES = {
    "a cut row": of_row(5, lambda line: line[: len(line) // 2] + b"\n"),
    "a row without its last columns": of_row(5, lambda line: line.rsplit(b",", 2)[0] + b"\n"),
    "a row that goes on in the next": of_row(5, lambda line: line[:-1]),
    "zeros as a power cut leaves them": of_row(5, lambda line: b"\0" * (len(line) - 1) + b"\n"),
    "zeros within a text": of_row(5, lambda line: line.replace(b"ideal", b"ide\0l", 1)),
    "no text at all": of_row(5, lambda line: b"\xff\xfe" + line),
    "a quote that never ends": of_row(5, lambda line: b'"' + line),
    "no truth value": of_row(5, lambda line: line.replace(b"True", b"Tr", 1)),
    "a torn last row": lambda lines: [*lines[:6][:-1], lines[5][:-2]],
}


@pytest.fixture(scope="module")
def kept(require_sumo, tmp_path_factory):
    """A folder with twelve episodes, the texts of these, and its configuration."""
    root = tmp_path_factory.mktemp("kept")
    config = suite_config(root, episodes_per_bucket=1)
    result = evaluate([make_baseline("none")], config, folder=root / "out", progress=False)
    return root / "out", texts(result), config


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_before_a_damaged_one_are_kept(kept, tmp_path, damage):
    folder, rows, _ = kept
    lines = (folder / EPISODES_NAME).read_bytes().splitlines(keepends=True)
    identity = json.loads((folder / IDENTITY_NAME).read_text())
    (tmp_path / IDENTITY_NAME).write_text(json.dumps(identity))
    path = tmp_path / EPISODES_NAME
    path.write_bytes(b"".join(DAMAGES[damage](lines)))
    with pytest.raises(RoadsenseError, match=r"episodes\.csv: is no list of episodes .*; judge the run again"):
        read_episodes(path)
    assert [row.cells() for row in Journal(tmp_path, identity).rows_of("none")] == rows[:4]
    assert path.read_bytes() == b"".join(lines[:5])


def test_what_comes_from_a_damaged_row_on_is_played_again(kept, tmp_path):
    folder, rows, config = kept
    shutil.copytree(folder, tmp_path / "out")
    path = tmp_path / "out" / EPISODES_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(DAMAGES["zeros as a power cut leaves them"](lines)))
    again = evaluate([make_baseline("none")], config, folder=tmp_path / "out", progress=False)
    assert texts(again) == rows
    assert path.read_bytes() == b"".join(lines)


def test_another_evaluation_in_the_folder_is_refused(tmp_path):
    folder = tmp_path / "out"
    evaluate([make_baseline("none")], suite_config(tmp_path), folder=folder, progress=False)
    with pytest.raises(InputMismatchError, match=r"another evaluation \(it differs in policies\)"):
        evaluate([make_baseline("oracle")], suite_config(tmp_path), folder=folder, progress=False)
    (folder / "identity.json").unlink()
    with pytest.raises(InputMismatchError, match="not what it was made from"):
        evaluate([make_baseline("none")], suite_config(tmp_path), folder=folder, progress=False)


def test_as_many_episodes_of_another_split_are_another_evaluation(tmp_path):
    val, walked = (EvaluationConfig(split=split, episodes=2, engine="native") for split in ("val", "eval"))
    evaluate([make_baseline("none")], val, folder=tmp_path, progress=False)
    with pytest.raises(InputMismatchError, match=r"another evaluation \(it differs in split\)"):
        evaluate([make_baseline("none")], walked, folder=tmp_path, progress=False)


def test_an_action_that_is_no_number_fails_its_episode_and_no_other(tmp_path):
    result = evaluate([Broken("oracle", 10_000)], suite_config(tmp_path), progress=False)
    (summary,) = [result.policies["oracle"]]
    failed = [row for row in result.rows if row.metrics.failure]
    assert len(failed) == 1 and len(result.rows) == 36
    assert failed[0].metrics.failure == "the action at step 30 is not a number"
    assert summary["failed_episodes"] == [
        f"{failed[0].metrics.scenario_id} seed {failed[0].metrics.seed}: the action at step 30 is not a number"
    ]
    assert summary["collisions"]["count"] == 1  # a policy that gives up is not safe


def test_a_bucket_whose_hazard_never_happened_is_named(tmp_path):
    result = evaluate([make_baseline("none")], suite_config(tmp_path), progress=False)
    result.policies["none"]["buckets"][3]["n"] = 0
    assert result.problems == [
        "bucket peers=1 rank=1 release=released radio=convoy has no valid episode of none; the suite needs more of it."
    ]


def test_what_a_suite_states_cannot_be_asked_for(tmp_path):
    for name, value in (("episodes", 3), ("radio", "ideal"), ("dataset_dir", "x")):
        with pytest.raises(UsageError, match=f"{name} does not go with a suite"):
            EvaluationConfig(suite="matrix", **{name: value})


def test_the_command_writes_a_folder(tmp_path, capsys):
    asked = ["evaluate", "--suite", file_of(tmp_path), "--engine", "native", "--policy", "none", "oracle",
             "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(asked) == 0
    first = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "episodes.csv", "evaluation.json", "identity.json", "table.txt"
    }  # fmt: skip
    assert (tmp_path / "out" / "table.txt").read_text() == first
    assert main(asked) == 0  # all is known already
    assert capsys.readouterr().out == first
    assert main(["evaluate", "--suite", "matrx", "--policy", "none"]) == 2
    assert "did you mean 'matrix'" in capsys.readouterr().err


def test_fewer_episodes_of_each_bucket_are_the_first_ones_and_another_suite(tmp_path):
    suite = file_of(tmp_path)
    whole, fewer, more = (
        evaluate([make_baseline("none")], EvaluationConfig(suite=suite, engine="native", **stated), progress=False)
        for stated in ({}, {"episodes_per_bucket": 1}, {"episodes_per_bucket": 99})
    )
    firsts = {bucket.episodes[0] for bucket in whole.buckets}
    assert [row.cells()[2:] for row in fewer.rows] == [row.cells()[2:] for row in whole.rows if row.episode in firsts]
    assert fewer.identity["suite"]["digest"] != whole.identity["suite"]["digest"] == more.identity["suite"]["digest"]
    with pytest.raises(UsageError, match="episodes_per_bucket is 0; it must be at least 1"):
        EvaluationConfig(suite=suite, episodes_per_bucket=0)
    with pytest.raises(UsageError, match="goes with a suite; a split has no buckets"):
        EvaluationConfig(episodes_per_bucket=1)


def test_policies_may_be_named_one_by_one_or_together(tmp_path, capsys):
    asked = ["evaluate", "--suite", file_of(tmp_path), "--engine", "native", "--episodes-per-bucket", "1"]
    shown = []
    for policies in (["--policy", "none", "oracle"], ["--policy", "none", "--policy", "oracle"]):
        assert main([*asked, *policies]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "\nnone " in shown[0] and "\noracle " in shown[0]
