"""The command line: ``roadsense VERB``. Results go to stdout and files, everything else to stderr."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from roadsense.errors import EXIT_OK, RoadsenseError


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

    def run(self) -> None:
        from roadsense.evaluation.evaluate import EvaluationConfig, evaluate, find_policy
        from roadsense.evaluation.summary import table, write_episodes
        from roadsense.files import write_json

        policies = [find_policy(name) for name in self.policy]
        config = EvaluationConfig(
            dataset_dir=self.dataset_dir, split=self.split, episodes=self.episodes, radio=self.radio
        )
        result = evaluate(policies, config)
        print(table(result.summaries))
        if self.json is not None:
            write_json(self.json, result.document())
        if self.csv is not None:
            write_episodes(self.csv, result.rows)


Verb = Annotated[Evaluate, tyro.conf.subcommand("evaluate")] | Annotated[None, tyro.conf.subcommand("version")]


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    verb = tyro.cli(Verb, args=arguments, prog="roadsense")
    try:
        if verb is None:
            from roadsense import __version__

            print(__version__)
        else:
            verb.run()
    except RoadsenseError as error:
        print(f"roadsense: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
