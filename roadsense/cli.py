"""The command line: ``roadsense VERB``. Results go to stdout and files, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from roadsense.errors import EXIT_OK, EXIT_USAGE, RoadsenseError, nearest


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Plays policies over a fixed list of episodes and shows them in one table."""

    policy: tuple[str, ...]
    """Baselines by name, trained policies by run folder or ONNX file."""
    dataset_dir: str | None = None
    """Root of a dataset; without it the built-in scenarios are played."""
    split: str = "eval"
    """Which list of the dataset."""
    episodes: int = 100
    """Episodes of each policy."""
    radio: str | None = None
    """Radio parameters instead of the dataset's."""
    json: Path | None = None
    """Where to write all figures."""
    csv: Path | None = None
    """Where to write one row an episode."""


def _evaluate(arguments: list[str]) -> None:
    asked = tyro.cli(Evaluate, args=arguments, prog="roadsense evaluate")
    from roadsense.evaluation.evaluate import EvaluationConfig, evaluate, find_policy
    from roadsense.evaluation.summary import table, write_episodes
    from roadsense.files import write_json

    policies = [find_policy(name) for name in asked.policy]
    config = EvaluationConfig(
        dataset_dir=asked.dataset_dir, split=asked.split, episodes=asked.episodes, radio=asked.radio
    )
    result = evaluate(policies, config)
    print(table(result.summaries))
    if asked.json is not None:
        write_json(asked.json, result.document())
    if asked.csv is not None:
        write_episodes(asked.csv, result.rows)


def _train(arguments: list[str]) -> None:
    """Trains a policy: ``--config`` (a preset or YAML file) first, then every other flag over it."""
    from roadsense.training.config import TrainConfig, read_train_config

    preset = "standard"
    if "--config" in arguments[:-1]:
        place = arguments.index("--config")
        preset = arguments[place + 1]
        arguments = arguments[:place] + arguments[place + 2 :]
    about = "Trains a policy. --config PRESET|FILE.yaml (quick, standard) comes first, every flag below goes over it."
    config = tyro.cli(
        TrainConfig, args=arguments, default=read_train_config(preset), prog="roadsense train", description=about
    )
    from roadsense.training.sb3 import train

    train(config)
    print(config.run_dir)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Writes model.onnx into a run folder."""

    run: tyro.conf.Positional[Path]
    """The run folder."""


def _export(arguments: list[str]) -> None:
    asked = tyro.cli(Export, args=arguments, prog="roadsense export")
    from roadsense.export.onnx import export_onnx

    print(export_onnx(asked.run))


VERBS: dict[str, Callable[[list[str]], Any]] = {"train": _train, "evaluate": _evaluate, "export": _export}
"""Each verb parses its own arguments and imports what it needs only then."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: roadsense {{{','.join(VERBS)}}} [options]; --help after a verb shows its options.")
        return EXIT_OK if given else EXIT_USAGE
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        print(f"roadsense: there is no verb {verb!r}; {nearest(verb, VERBS)}", file=sys.stderr)
        return EXIT_USAGE
    try:
        VERBS[verb](rest)
    except RoadsenseError as error:
        print(f"roadsense: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
