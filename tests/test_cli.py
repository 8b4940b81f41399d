"""The command line: exit codes, one sentence on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save

from roadsense.cli import VERBS, main
from roadsense.errors import EXIT_ERROR, EXIT_INPUT_MISMATCH, EXIT_OK, EXIT_USAGE
from roadsense.files import write_bytes, write_json
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, Signature, Widths


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Runs a command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(list(arguments))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else EXIT_ERROR
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write_run(folder: Path, layout: str | None = None) -> Path:
    """A run folder with a network of zeros, made for observation layout ``layout`` (default: the present one)."""
    import numpy as np

    from roadsense.policies.weights import parameter_shapes

    tensors = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(Widths()).items()}
    document = Signature.of(tensors, Widths(), "brake", 1).document()
    write_bytes(folder / WEIGHTS_NAME, save(tensors))
    write_json(folder / SIGNATURE_NAME, document if layout is None else {**document, "layout_hash": layout})
    return folder


def last_line(err: str) -> str:
    """What stands on stderr, where nothing else does but a progress bar."""
    lines = [line.rpartition("episode/s]")[2] for line in err.splitlines()]
    (line,) = [line for line in lines if line.strip()]
    return line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluat"], "roadsense: there is no verb 'evaluat'; did you mean 'evaluate'?"),
        (
            ["evaluate", "--policy", "none", "--polcy", "x"],
            "roadsense: evaluate has no option '--polcy'; did",
        ),
        (["train", "--sed", "3"], "roadsense: train has no option '--sed'; did you mean '--seed'?"),
        (["evaluate", "--polcy", "none"], "roadsense: evaluate has no option '--polcy'; did you mean '--policy'?"),
        (["generate", "--ranges.tua", "1", "2"], "roadsense: generate has no option '--ranges.tua'; did you mean '--r"),
        (["evaluate", "--policy", "v2v_rul"], "roadsense: policy 'v2v_rul' is unknown; did you mean 'v2v_rule'?"),
        (["evaluate", "--policy", "nosuch"], "roadsense: policy 'nosuch' is unknown; known are: a_req, always_brake,"),
        (
            ["evaluate", "--policy", "none", "--split", "evl"],
            "roadsense: split 'evl' is unknown; did you mean 'eval'?",
        ),
    ],
)
def test_what_does_not_exist_is_a_usage_error_that_names_the_nearest(said, arguments, sentence):
    code, out, err = said(*arguments)
    assert code == EXIT_USAGE == 2
    assert last_line(err).startswith(sentence)
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate"], "roadsense: evaluate: --policy needs the name or path of a policy, or several."),
        (
            ["train", "--seed", "abc"],
            "roadsense: train: --seed: invalid literal for int() with base 10: 'abc'; `roadsense",
        ),
        (["generate", "--ranges.tau", "1"], "roadsense: generate: Missing value for argument '--ranges.tau'"),
        (["export", "a", "b"], "roadsense: export: Unrecognized options: b; `roadsense export --help` shows all"),
    ],
)
def test_an_option_without_its_value_is_one_sentence(said, arguments, sentence):
    code, out, err = said(*arguments)
    assert code == EXIT_USAGE
    assert last_line(err).startswith(sentence)
    assert out == ""


def test_without_a_verb_the_verbs_are_listed(said):
    code, out, err = said()
    assert code == EXIT_USAGE
    code, helped, _ = said("--help")
    assert code == EXIT_OK
    for text in (out + err, helped):
        assert all(verb in text for verb in VERBS)
        assert text.count("\n") == 2 + len(VERBS)
        assert "None" not in text  # every verb says what it does


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_a_help(said, verb):
    code, out, _ = said(verb, "--help")
    assert code == EXIT_OK
    assert f"roadsense {verb}" in out


def test_inputs_that_do_not_match_are_refused_with_their_own_code(said, tmp_path):
    run = write_run(tmp_path / "run", layout="0" * 64)
    code, out, err = said("evaluate", "--policy", str(run), "--episodes", "1")
    assert code == EXIT_INPUT_MISMATCH == 4
    said_so = f"roadsense: {run / SIGNATURE_NAME}: the model reads observation layout 000000000000, this version gives"
    assert last_line(err).startswith(said_so)
    assert out == ""
    write_run(run)
    (run / WEIGHTS_NAME).write_bytes((run / WEIGHTS_NAME).read_bytes()[:-4] + b"\0\0\0\1")
    code, _, err = said("evaluate", "--policy", str(run), "--episodes", "1")
    assert code == EXIT_INPUT_MISMATCH
    assert "other weights than its signature states" in last_line(err)


def test_a_file_that_is_not_there_is_an_error_with_its_name(said, tmp_path):
    for arguments in (
        ["evaluate", "--policy", "none", "--dataset-dir", str(tmp_path / "gone")],
        ["evaluate", "--policy", "none", "--radio", str(tmp_path / "gone.json")],
        ["evaluate", "--policy", str(tmp_path)],
        ["export", str(tmp_path)],
    ):
        code, out, err = said(*arguments)
        assert code == EXIT_ERROR, arguments
        assert last_line(err).startswith(f"roadsense: {tmp_path}")
        assert out == ""


@pytest.mark.usefixtures("require_sumo")
def test_the_table_goes_to_stdout_and_the_figures_to_the_files(said, tmp_path):
    run = write_run(tmp_path / "run")
    figures, rows = tmp_path / "figures.json", tmp_path / "rows.csv"
    code, out, err = said(
        "evaluate", "--policy", "none", str(run), "--episodes", "2", "--json", str(figures), "--csv", str(rows)
    )
    assert code == EXIT_OK, err
    assert {line.split()[0] for line in out.splitlines() if line.strip()} >= {"none", "run"}
    assert set(json.loads(figures.read_text())["policies"]) == {"none", "run"}
    assert len(rows.read_text().splitlines()) == 1 + 2 * 2


def test_the_program_hands_its_code_on_and_takes_underscores_in_options(tmp_path):
    command = [sys.executable, "-m", "roadsense", "evaluate", "--policy", "none", "--dataset_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (EXIT_ERROR, "")
    assert last_line(done.stderr).startswith(f"roadsense: {tmp_path / 'manifest.json'}: no such file")


@pytest.mark.parametrize("form", [["--config=quik"], ["--config", "quik"]])
def test_a_preset_may_be_given_either_way(said, form: list[str]) -> None:
    assert said("train", *form)[::2] == (EXIT_USAGE, "roadsense: preset 'quik' is unknown; did you mean 'quick'?\n")


def test_a_flag_without_its_value_is_one_sentence(said) -> None:
    assert said("train", "--config")[::2] == (
        EXIT_USAGE,
        "roadsense: --config needs a value, a preset or a YAML file.\n",
    )


@pytest.mark.parametrize(
    ("without", "arguments", "extra"),
    [
        ("torch", ["train", "--config", "quick", "--run-dir", "{}/run"], "train"),
        ("ray", ["train", "--config", "rllib", "--run-dir", "{}/run"], "ray"),
        ("torch", ["export", "{}"], "train"),
        ("stable_baselines3", ["pipeline", "--preset", "quick", "--runs-dir", "{}/runs"], "train"),
        ("onnx", ["pipeline", "--preset", "quick", "--dry-run"], "train"),
        ("onnxruntime", ["pipeline", "--preset", "quick"], "onnx"),
        ("safetensors", ["evaluate", "--policy", "{}", "--episodes", "1"], "onnx"),
    ],
)
def test_a_part_that_is_not_installed_is_one_sentence_before_anything_is_written(
    without: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "made")
    before = sorted(tmp_path.rglob("*"))
    code = f"import sys; sys.modules[{without!r}] = None; from roadsense.cli import main; sys.exit(main(sys.argv[1:]))"
    given = [argument.format(tmp_path / "made") for argument in arguments]
    run = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    told = f'roadsense: {without} is not installed; install it with: pip install "roadsense[{extra}]".\n'
    assert (run.returncode, run.stdout, run.stderr) == (EXIT_ERROR, "", told)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_policy_must_be_named(said) -> None:
    code, _, err = said("evaluate", "--policy")
    assert code == EXIT_USAGE and err.startswith("roadsense: evaluate: --policy needs the name or path of a policy")


@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_where_figures_cannot_be_written_is_found_before_anything_is_played(said, flag: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, wrong, told in (
        (tmp_path, EXIT_USAGE, "is a folder; name a file."),
        (tmp_path / "file" / "deeper" / "figures", EXIT_ERROR, "cannot be written (Not a directory)"),
    ):
        code, out, err = said("evaluate", "--policy", "none", "--episodes", "100000", flag, str(place))
        assert (code, out) == (wrong, "")
        assert err.startswith(f"roadsense: {place}: {told}") and err.count("\n") == 1
    said("evaluate", "--policy", "nobody", flag, str(tmp_path / "new" / "figures"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_too_little_room_is_found_before_anything_is_generated(said, tmp_path: Path) -> None:
    where = ["--runs-dir", str(tmp_path / "runs"), "--datasets-dir", str(tmp_path / "data")]
    for more in ([], ["--dry-run"]):
        code, _, err = said("pipeline", "--preset", "quick", "--max-peers", "2", *where, *more)
        assert (code, err) == (EXIT_USAGE, "roadsense: max_peers is 2; scenarios are generated with up to 8 peers.\n")
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_any_more_is_no_traceback():
    command = [sys.executable, "-m", "roadsense", "--help"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered) as started:
        started.stdout.close()
        said = started.stderr.read()
    assert (started.returncode, said) == (1, "")
