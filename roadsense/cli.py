"""The command line: ``roadsense VERB``. Results go to stdout and files, everything else to stderr."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
from roadsense.options import parse, parted, subset


def _generate(arguments: list[str]) -> None:
    """Writes a dataset of scenarios with the splits train, val and eval, and its manifest; prints where."""
    from roadsense.datasets.config import GenerateConfig
    from roadsense.datasets.generate import generate

    print(generate(parse(GenerateConfig, "generate", arguments, description=_generate.__doc__)).root)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Drives every scenario of a dataset in SUMO and lists all problems; exit code 0 means there are none."""

    dataset_dir: tyro.conf.Positional[Path]
    """Root of the dataset."""
    max_peers: int | None = None
    """Cars that there is room for beside V001; none: as many as the scenarios list, at least 16 with a flow."""


def _check(arguments: list[str]) -> int:
    """Drives every scenario of a dataset in SUMO and lists all problems."""
    asked = parse(Check, "check", arguments)
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

    passed = run_pipeline(parse(PipelineConfig, "pipeline", arguments))
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
        """Baselines by name, trained policies by run folder or file (.onnx, model.c, .plan)."""
        json: Path | None = None
        """Where to write all figures."""
        csv: Path | None = None
        """Where to write one row an episode."""
        out: Path | None = None
        """A folder for all of it, where an evaluation that was stopped goes on."""

    asked = parse(Evaluate, "evaluate", arguments)
    names = list(itertools.chain.from_iterable(asked.policy))
    if not names:
        raise UsageError("evaluate: --policy needs the name or path of a policy, or several.")
    policies = [find_policy(name) for name in names]
    for file in (asked.json, asked.csv):
        if file is not None and file.is_dir():
            raise UsageError(f"{file}: is a folder; name a file.")
        if file is not None:
            refuse_unwritable(file)
    config = subset(EvaluationConfig, asked)
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

    asked = parse(Replay, "replay", arguments)
    if asked.html.is_dir():
        raise UsageError(f"{asked.html}: is a folder; name a file.")
    refuse_unwritable(asked.html)
    config = subset(ListConfig, asked)
    replay(asked.episode, config, asked.html)
    print(asked.html)


def _taken(
    flag: str, arguments: list[str], default: str, what: str = "a preset or a YAML file"
) -> tuple[str, list[str]]:
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
                raise UsageError(f"{flag} needs a value, {what}.")
            return arguments[place + 1], arguments[:place] + arguments[place + 2 :]
    return default, arguments


def _train(arguments: list[str]) -> None:
    """Trains a policy on a dataset: --config (a preset or YAML file) first, then every other flag over it."""
    from roadsense.training.config import TrainConfig, read_train_config

    resumed, others = _taken("--resume", arguments, "", "the folder of a training that was begun")
    if resumed:
        return _resume(resumed, others)
    preset, rest = _taken("--config", arguments, "standard")
    about = (
        "Trains a policy. --config PRESET|FILE.yaml (quick, standard) is read first, every flag below goes over it. "
        "--resume RUN instead of all of them goes on with a training that was stopped or killed, to the same weights "
        "(with rllib-ppo: to weights that are the same for every continuation)."
    )
    config = parse(TrainConfig, "train", rest, default=read_train_config(preset), description=about)
    _learn(config)
    print(config.run_dir)


def _learn(config: Any, begun: bool = False) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells there of processes that were lost
        if config.algorithm == "rllib-ppo":
            require("train", "ray")
            from roadsense.training import rllib_train

            rllib_train.train(config)
        else:
            from roadsense.training import sb3

            sb3.train(config, begun=begun)


def _resume(run: str, others: list[str]) -> None:
    if others:
        new = ", which begins a new one" if any(one.startswith("--init") for one in others) else ""
        raise UsageError(f"train: --resume goes on as the training was configured; leave out {' '.join(others)}{new}.")
    from roadsense.training.folder import begun_config

    config, finished = begun_config(Path(run))
    if finished:
        print(f"roadsense: {run}: is trained to its end already, nothing is left to do", file=sys.stderr)
    else:
        _learn(config, begun=True)
    print(run)


def _sweep(arguments: list[str]) -> int:
    """Trains over seeds and a grid of configurations, on all CPUs that there are, and compares them in one table."""
    from roadsense.training.config import TrainConfig, read_train_config
    from roadsense.training.sweep.options import SweepConfig

    own, others = parted(SweepConfig, arguments)
    about = (
        f"{_sweep.__doc__} Every option of `roadsense train` can be given as well: with it, what the trainings have in "
        "common. The same command goes on with a sweep that was stopped."
    )
    config = parse(SweepConfig, "sweep", [*own, *({"-h", "--help"} & {*others})], description=about)
    preset, rest = _taken("--config", others, "standard")
    base = parse(TrainConfig, "sweep", rest, default=read_train_config(preset))
    require("train")
    from roadsense.training.sweep.run import sweep

    with contextlib.redirect_stdout(sys.stderr):  # Ray tells there of processes that were lost
        done = sweep(config, base)
    print(done.table)
    for said in done.failed:
        print(f"roadsense: {said}", file=sys.stderr)
    return EXIT_ERROR if done.failed else EXIT_OK


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

    asked = parse(Export, "export", arguments)
    config = subset(ExportConfig, asked)
    done = export_run(asked.run, config)
    for path in done.files:
        print(path)
    for said in [*done.refused, *(f"not exported: {one}" for one in done.absent), *done.remarks]:
        print(f"roadsense: {said}", file=sys.stderr)
    return EXIT_ERROR if done.refused or (config.formats and done.absent) else EXIT_OK


def _gate(arguments: list[str]) -> int:
    """Judges a run: plays its suites, answers every gate, and writes the verdict into the run."""
    from roadsense.evaluation.gates import table
    from roadsense.evaluation.promotion import GateConfig, accepted, judge_run

    @dataclass(frozen=True, kw_only=True)
    class Gate(GateConfig):
        """Plays the suites of a run's gates and answers every gate; exit code 3 where one fails."""

        run: tyro.conf.Positional[Path]
        """The run folder."""

    asked = parse(Gate, "gate", arguments)
    config = subset(GateConfig, asked)
    verdicts = judge_run(asked.run, config)
    print(table(verdicts))
    if available("train", "onnx"):
        from roadsense.export.card.page import renew_card

        try:
            renew_card(asked.run)
        except RoadsenseError as error:
            print(f"roadsense: no card was written, {error}", file=sys.stderr)
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

    asked = parse(Report, "report", arguments)
    config = subset(ReportConfig, asked)
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

    calibrate(parse(CalibrationConfig, "calibrate", arguments, description=_calibrate.__doc__))
    return EXIT_OK


def _verify(arguments: list[str]) -> int:
    asked = parse(Verify, "calibrate", arguments)
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


def _store(arguments: list[str]) -> int | None:
    """Runs and datasets to and from S3: put, get, list; nothing is overwritten, and all is verified."""
    from roadsense.cloud.verbs import store

    return store(arguments)


def _job(arguments: list[str]) -> int | None:
    """Runs a verb on rented machines, within caps on hours and money: run, submit, follow."""
    from roadsense.cloud.verbs import job

    return job(arguments, VERBS.keys() - {"job"})


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "generate": _generate, "check": _check, "train": _train, "sweep": _sweep, "evaluate": _evaluate, "replay": _replay,
    "gate": _gate, "report": _report, "export": _export, "pipeline": _pipeline, "calibrate": _calibrate,
    "store": _store, "job": _job,
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
