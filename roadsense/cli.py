"""The command line: ``roadsense VERB``. Results go to stdout and files, everything else to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from roadsense.errors import (
    EXIT_ERROR,
    EXIT_GATE_FAILED,
    EXIT_INPUT_MISMATCH,
    EXIT_OK,
    EXIT_RESUMABLE,
    EXIT_USAGE,
    RoadsenseError,
    UsageError,
    nearest,
)
from roadsense.extras import available, missing, require

_Asked = TypeVar("_Asked")


def _parse(options: type[_Asked], verb: str, arguments: list[str], **kwargs: Any) -> _Asked:
    """The options of a verb.

    Raises:
        UsageError: an option is unknown, missing, or has an impossible value; one sentence.
    """
    known = [f"--{name}" for name in _flags(options)]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag.replace("--no-", "--", 1) not in (*known, "--help"):
            raise UsageError(f"{verb} has no option {argument!r}; {nearest(flag, known)}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=arguments, prog=f"roadsense {verb}", **kwargs)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        told = _told(said.getvalue()).removeprefix("Error parsing ").rstrip(".")
        raise UsageError(f"{verb}: {told}; `roadsense {verb} --help` shows all options.") from None


def _of(kind: type[_Asked], asked: Any) -> _Asked:
    """The part of a verb's options that is a configuration of its own."""
    options: Any = kind
    return kind(**{one.name: getattr(asked, one.name) for one in dataclasses.fields(options)})


def _told(frame: str) -> str:
    """What stands between the title and the next rule of a frame that tyro drew, on one line.

    Its edges are lines, | and -, or blanks, as the terminal allows.
    """
    lines = [line.strip("│|╭╮╰╯+ ") for line in frame.splitlines()]
    lines = [line for line in lines if line][1:]
    text = itertools.dropwhile(_is_rule, lines)
    return " ".join(itertools.takewhile(lambda line: not _is_rule(line), text))


def _is_rule(line: str) -> bool:
    return not line.strip("─-")


def _flags(options: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(options):
        nested: Any = field.default_factory
        if isinstance(nested, type) and dataclasses.is_dataclass(nested):
            yield from _flags(nested, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}".replace("_", "-")


def _generate(arguments: list[str]) -> None:
    """Writes a dataset of scenarios with the splits train, val and eval, and its manifest; prints where."""
    from roadsense.datasets.config import GenerateConfig
    from roadsense.datasets.generate import generate

    print(generate(_parse(GenerateConfig, "generate", arguments, description=_generate.__doc__)).root)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Drives every scenario of a dataset in SUMO and lists all problems; exit code 0 means there are none."""

    dataset_dir: tyro.conf.Positional[Path]
    """Root of the dataset."""
    max_peers: int | None = None
    """Cars that there is room for beside V001; none: as many as the scenarios list, at least 16 with a flow."""


def _check(arguments: list[str]) -> int:
    """Drives every scenario of a dataset in SUMO and lists all problems."""
    asked = _parse(Check, "check", arguments)
    from roadsense.datasets.check import check

    result = check(asked.dataset_dir, max_peers=asked.max_peers)
    for problem in result.problems:
        print(problem)
    if result.problems:
        print(f"{asked.dataset_dir}: {len(result.problems)} problems in {result.scenarios} scenarios", file=sys.stderr)
        return EXIT_INPUT_MISMATCH if result.changed_files else EXIT_ERROR
    print(f"{asked.dataset_dir}: all {result.scenarios} scenarios drive as stated")
    return EXIT_OK


def _pipeline(arguments: list[str]) -> int:
    """From scenarios to a packaged, judged policy with its evidence; goes on where it was stopped."""
    from roadsense.pipeline import PipelineConfig, run_pipeline

    passed = run_pipeline(_parse(PipelineConfig, "pipeline", arguments))
    return EXIT_OK if passed else EXIT_GATE_FAILED


def _evaluate(arguments: list[str]) -> int:
    """Plays policies over a fixed list of episodes and shows them in one table."""
    from roadsense.evaluation.evaluate import EvaluationConfig, evaluate, find_policy
    from roadsense.evaluation.journal import write_episodes
    from roadsense.evaluation.summary import table
    from roadsense.files import refuse_unwritable, write_json, write_text

    @dataclass(frozen=True, kw_only=True)
    class Evaluate(EvaluationConfig):
        """Plays policies over a fixed list of episodes and shows them in one table."""

        policy: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
        """Baselines by name, trained policies by run folder or ONNX file."""
        json: Path | None = None
        """Where to write all figures."""
        csv: Path | None = None
        """Where to write one row an episode."""
        out: Path | None = None
        """A folder for all of it, where an evaluation that was stopped goes on."""

    asked = _parse(Evaluate, "evaluate", arguments)
    names = list(itertools.chain.from_iterable(asked.policy))
    if not names:
        raise UsageError("evaluate: --policy needs the name or path of a policy, or several.")
    policies = [find_policy(name) for name in names]
    for file in (asked.json, asked.csv):
        if file is not None and file.is_dir():
            raise UsageError(f"{file}: is a folder; name a file.")
        if file is not None:
            refuse_unwritable(file)
    config = _of(EvaluationConfig, asked)
    result = evaluate(policies, config, folder=asked.out)
    shown = table(result.summaries)
    print(shown)
    if asked.json is not None:
        write_json(asked.json, result.document())
    if asked.csv is not None:
        write_episodes(asked.csv, result.rows)
    if asked.out is not None:
        write_text(asked.out / "table.txt", shown + "\n")
        write_json(asked.out / "evaluation.json", result.document())
    for said in [*result.remarks, *result.problems]:
        print(f"roadsense: {said}", file=sys.stderr)
    return EXIT_ERROR if result.problems else EXIT_OK


def _replay(arguments: list[str]) -> None:
    """Plays one episode again and writes it as one HTML page to look at."""
    from roadsense.evaluation.evaluate import ListConfig
    from roadsense.evaluation.replay import replay
    from roadsense.files import refuse_unwritable

    @dataclass(frozen=True, kw_only=True)
    class Replay(ListConfig):
        """Plays one episode again and writes it as one HTML page to look at."""

        episode: tyro.conf.Positional[str]
        """<policy>:<number>; the policy as in evaluate, the number counts from 0 along the list."""
        html: Path
        """Where to write the page."""

    asked = _parse(Replay, "replay", arguments)
    if asked.html.is_dir():
        raise UsageError(f"{asked.html}: is a folder; name a file.")
    refuse_unwritable(asked.html)
    config = _of(ListConfig, asked)
    replay(asked.episode, config, asked.html)
    print(asked.html)


def _taken(flag: str, arguments: list[str], default: str) -> tuple[str, list[str]]:
    """Value of a flag, given as two words or with "=", and the other arguments.

    Raises:
        UsageError: it has no value.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag and equals:
            return value, arguments[:place] + arguments[place + 1 :]
        if name == flag:
            if place + 1 == len(arguments):
                raise UsageError(f"{flag} needs a value, a preset or a YAML file.")
            return arguments[place + 1], arguments[:place] + arguments[place + 2 :]
    return default, arguments


def _train(arguments: list[str]) -> None:
    """Trains a policy on a dataset: --config (a preset or YAML file) first, then every other flag over it."""
    from roadsense.training.config import TrainConfig, read_train_config

    preset, rest = _taken("--config", arguments, "standard")
    about = "Trains a policy. --config PRESET|FILE.yaml (quick, standard) is read first, every flag below goes over it."
    config = _parse(TrainConfig, "train", rest, default=read_train_config(preset), description=about)
    from roadsense.training.sb3 import train

    with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of workers that were lost
        train(config)
    print(config.run_dir)


def _export(arguments: list[str]) -> int:
    """Writes a run's policy in other formats, each proven equal to the network, or not kept."""
    require("train", "onnx")
    from roadsense.export.package import ExportConfig, export_run

    @dataclass(frozen=True, kw_only=True)
    class Export(ExportConfig):
        """Writes a run's policy in other formats, each proven equal to the network, or not kept.

        parity.json says what was found, latency.json how long a decision takes, CARD.md what it all comes to.
        """

        run: tyro.conf.Positional[Path]
        """The run folder."""

    asked = _parse(Export, "export", arguments)
    config = _of(ExportConfig, asked)
    done = export_run(asked.run, config)
    for path in done.exported.files:
        print(path)
    failed = [*done.exported.refused, *(done.exported.absent if config.formats else [])]
    for said in [*done.exported.refused, *(f"not exported: {one}." for one in done.exported.absent), *done.remarks]:
        print(f"roadsense: {said}", file=sys.stderr)
    return EXIT_ERROR if failed else EXIT_OK


def _gate(arguments: list[str]) -> int:
    """Judges a run: plays its suites, answers every gate, and writes the verdict into the run."""
    from roadsense.evaluation.gates import table
    from roadsense.evaluation.promotion import GateConfig, accepted, judge_run

    @dataclass(frozen=True, kw_only=True)
    class Gate(GateConfig):
        """Plays the suites of a run's gates and answers every gate; exit code 3 where one fails."""

        run: tyro.conf.Positional[Path]
        """The run folder."""

    asked = _parse(Gate, "gate", arguments)
    config = _of(GateConfig, asked)
    verdicts = judge_run(asked.run, config)
    print(table(verdicts))
    if available("train", "onnx"):
        from roadsense.export.card.page import renew_card

        renew_card(asked.run)
    print(f"roadsense report {asked.run} shows it as one page", file=sys.stderr)
    return EXIT_OK if accepted(verdicts) else EXIT_GATE_FAILED


def _report(arguments: list[str]) -> None:
    """Writes report.html into a run: verdict, figures, and its worst episodes to look at."""
    from roadsense.evaluation.report import ReportConfig, write_report

    @dataclass(frozen=True, kw_only=True)
    class Report(ReportConfig):
        """Writes report.html into a run: verdict, figures, and its worst episodes to look at."""

        run: tyro.conf.Positional[Path]
        """The run folder."""

    asked = _parse(Report, "report", arguments)
    config = _of(ReportConfig, asked)
    print(write_report(asked.run, config))


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Plays radio parameters with 2 to 8 cars, estimates them again, and judges all figures as one family."""

    verify: str
    """Parameters: a profile, a degradation, or a JSON file."""
    json: Path | None = None
    """Where to write all figures."""


def _calibrate(arguments: list[str]) -> int | None:
    """Fits radio parameters to logs of boards; with --verify PARAMS, proves that the emulator plays what they say."""
    if any(argument.partition("=")[0] == "--verify" for argument in arguments):
        return _verify(arguments)
    from roadsense.espnow.calibration.calibrate import CalibrationConfig, calibrate

    calibrate(_parse(CalibrationConfig, "calibrate", arguments, description=_calibrate.__doc__))
    return EXIT_OK


def _verify(arguments: list[str]) -> int:
    asked = _parse(Verify, "calibrate", arguments)
    from roadsense.espnow.profiles import read_params
    from roadsense.espnow.verification.verify import table, verify
    from roadsense.files import refuse_unwritable, write_json

    params = read_params(asked.verify)
    if asked.json is not None and asked.json.is_dir():
        raise UsageError(f"{asked.json}: is a folder; name a file.")
    if asked.json is not None:
        refuse_unwritable(asked.json)
    verdict = verify(params, progress=True)
    print(table(verdict))
    if asked.json is not None:
        write_json(asked.json, verdict.document())
    return EXIT_GATE_FAILED if verdict.outside else EXIT_OK


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "generate": _generate, "check": _check, "train": _train, "evaluate": _evaluate, "replay": _replay, "gate": _gate,
    "report": _report, "export": _export, "pipeline": _pipeline, "calibrate": _calibrate,
}  # fmt: skip
"""Each verb parses its own arguments, imports what it needs only then, and may return an exit code."""


def _usage() -> str:
    lines = ["usage: roadsense VERB [options]; --help after a verb shows its options.", ""]
    return "\n".join([*lines, *(f"  {name:9} {verb.__doc__}" for name, verb in VERBS.items())])


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read the output has gone, as head does; nothing is left to say to him
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if given else sys.stderr)
        return EXIT_OK if given else EXIT_USAGE
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        print(f"roadsense: there is no verb {verb!r}; {nearest(verb, VERBS)}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return VERBS[verb](rest) or EXIT_OK
    except RoadsenseError as error:
        print(f"roadsense: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"roadsense: {verb} was stopped; the same command does it again.", file=sys.stderr)
        return EXIT_RESUMABLE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("roadsense"):
            raise
        print(f"roadsense: {missing(error.name)}", file=sys.stderr)
        return EXIT_ERROR
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"roadsense: {place}{error.strerror or error}; free space or choose other folders.", file=sys.stderr)
        return EXIT_ERROR
