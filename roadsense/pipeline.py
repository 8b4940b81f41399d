"""One button: generate, check, train, evaluate, export, package, gate, report. A stopped run goes on where it was."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.convoy.player import DEFAULT_RADIO
from roadsense.convoy.source import BUILT_IN
from roadsense.datasets.config import GenerateConfig
from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError, UsageError, nearest
from roadsense.extras import require
from roadsense.files import refuse_unwritable, write_json, write_text
from roadsense.manifest import MANIFEST_NAME
from roadsense.runs import COMPLETE, PROGRESS, REJECTED, RunFolder, canonical_digest, environment
from roadsense.training.config import TrainConfig, read_train_config

POLICY = "trained"
"""Name of the trained policy in the results of its run."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much work a run is."""

    train: int
    """Scenarios of the split ``train``."""
    val: int
    """Scenarios of the split ``val``."""
    eval: int
    """Scenarios of the split ``eval``."""
    episodes: int
    """Episodes each policy is evaluated on."""
    replays: int
    """Worst episodes that its report shows."""
    confirm: int
    """Episodes of each policy and list that are played once more on SUMO, where the native engine played them."""
    episodes_per_bucket: int | None = None
    """At most so many episodes of each bucket of the gates' suites; None: all they state."""
    may_be_rejected: bool = False
    """Whether a run that fails its gates is no failure of the command."""


PRESETS = {
    "quick": Preset(
        train=32, val=16, eval=24, episodes=48, replays=2, confirm=1, episodes_per_bucket=1,
        may_be_rejected=True,
    ),
    "standard": Preset(train=640, val=60, eval=120, episodes=240, replays=10, confirm=20),
}  # fmt: skip
"""``quick`` shows that everything works, and is always rejected: its gates see too few episodes. ``standard`` trains
as long as it takes. Each trains by the training preset of its name."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """From scenarios to a packaged policy."""

    seed: int = 0
    """Root of all draws: scenarios, weights, exploration."""
    run_id: str | None = None
    """Name of the run's folder; none: made of seed, preset and configuration."""
    preset: str = "standard"
    """quick (three to four minutes on two cores) or standard (a quarter of an hour)."""
    base_scenarios: tuple[str, ...] = BUILT_IN
    """Roads: names of shipped base scenarios, or directories of others; the last one is held out for evaluation."""
    emulator_params: str = DEFAULT_RADIO
    """Radio parameters: a shipped name or a JSON file."""
    gates: str = "default"
    """Gates that it must pass: a shipped name or a YAML file."""
    total_timesteps: int | None = None
    """Steps of training instead of the preset's."""
    max_peers: int | None = None
    """Cars that a world has room for beside V001; none: as many as the scenarios list, at least 16 with a flow."""
    runs_dir: str = "runs"
    """Where runs lie."""
    datasets_dir: str = "scenarios/datasets"
    """Where datasets lie."""
    dry_run: bool = False
    """Verify every path and print the plan; write nothing."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"preset {self.preset!r} is unknown; {nearest(self.preset, PRESETS)}")

    @property
    def generate(self) -> GenerateConfig:
        """How its dataset is generated."""
        sizes = PRESETS[self.preset]
        return GenerateConfig(
            seed=self.seed, base_scenarios=self.base_scenarios, emulator_params=self.emulator_params,
            train=sizes.train, val=sizes.val, eval=sizes.eval, datasets_dir=self.datasets_dir,
        )  # fmt: skip


class Pipeline:
    """A run of the pipeline.

    Attributes:
        run: its folder.
        stages: name and work of every stage, in order; each returns what it wants recorded.

    Raises:
        UsageError, ScenarioError, ParamsError: an input is missing or wrong; nothing was written.
        RoadsenseError: a library that a stage needs is not installed.
    """

    def __init__(self, config: PipelineConfig) -> None:
        from roadsense.datasets.generate import identify
        from roadsense.evaluation.gates import read_gates

        require("train", "onnx")
        most = int(config.generate.ranges.peer_count[1])
        if config.max_peers is not None and config.max_peers < most:
            raise UsageError(f"max_peers is {config.max_peers}; scenarios are generated with up to {most} peers.")
        self.config = config
        self.sizes = PRESETS[config.preset]
        self.dataset_id, inputs = identify(config.generate)
        self.dataset_dir = Path(config.datasets_dir) / self.dataset_id
        train, gates = self.train_config("").document(), read_gates(config.gates)
        self.document: dict[str, Any] = {
            "schema_version": 1,
            "seed": config.seed,
            "preset": config.preset,
            "dataset_id": self.dataset_id,
            "inputs": inputs,
            "train": {key: value for key, value in train.items() if key not in ("run_dir", "dataset_dir", "eval_dir")},
            "evaluate": {"split": "eval", "episodes": self.sizes.episodes},
            "gates": {
                "name": gates.name,
                "version": gates.version,
                "digest": gates.digest,
                "episodes_per_bucket": self.sizes.episodes_per_bucket,
            },
        }
        run_id = config.run_id or f"s{config.seed}-{config.preset}-{canonical_digest(self.document)[:10]}"
        self.run = RunFolder.named(Path(config.runs_dir), run_id)
        self._say: Callable[[str], None] = lambda said: None
        self.stages: dict[str, Callable[[], dict[str, Any]]] = {
            "generate": self._generate, "check": self._check, "train": self._train, "evaluate": self._evaluate,
            "export": self._export, "package": self._package, "gate": self._gate, "report": self._report,
        }  # fmt: skip

    # ---------------------------------------------------------------- stages

    def _generate(self) -> dict[str, Any]:
        from roadsense.datasets.generate import generate

        dataset = generate(self.config.generate)
        before = self.run.finished_stages().get("generate", {}).get("dataset_digest", dataset.digest)
        if before != dataset.digest:
            raise InputMismatchError(
                f"{dataset.root}: is not the dataset that {self.run.path} was begun with; name another --run-id."
            )
        return {"dataset_dir": str(dataset.root), "dataset_digest": dataset.digest}

    def _check(self) -> dict[str, Any]:
        from roadsense.datasets.check import check

        result = check(self.dataset_dir, max_peers=self.config.max_peers)
        result.raise_problems()
        return {"scenarios": result.scenarios}

    def train_config(self, run_dir: str) -> TrainConfig:
        """How the policy is trained."""
        stated = {"seed": self.config.seed, "total_timesteps": self.config.total_timesteps,
                  "max_peers": self.config.max_peers}  # fmt: skip
        return read_train_config(
            self.config.preset, {**stated, "dataset_dir": str(self.dataset_dir), "run_dir": run_dir}
        )

    def _train(self) -> dict[str, Any]:
        from roadsense.training.sb3 import train

        result = train(self.train_config(str(self.run.path)))
        kept = (
            "timesteps",
            "weights_digest",
            "best",
            "explained_variance",
            "imitation_explained_variance",
            "resumed_at",
        )
        return {**{key: result[key] for key in kept}, "trained_with": result["made_with"]}

    def _evaluate(self) -> dict[str, Any]:
        from roadsense.evaluation.evaluate import EvaluationConfig, evaluate
        from roadsense.evaluation.journal import write_episodes
        from roadsense.evaluation.summary import table
        from roadsense.policies.baselines import BASELINES, make_baseline
        from roadsense.policies.runtime import Policy

        policies = [Policy.load(self.run.path, POLICY), *map(make_baseline, BASELINES)]
        asked = EvaluationConfig(
            dataset_dir=str(self.dataset_dir), split="eval", episodes=self.sizes.episodes, engine="auto",
            confirm=self.sizes.confirm, max_peers=self.config.max_peers,
        )  # fmt: skip
        result = evaluate(policies, asked)
        if result.problems:
            raise RoadsenseError(result.problems[0])
        write_episodes(self.run.path / "episodes.csv", result.rows)
        shown = table(result.summaries)
        write_text(self.run.path / "table.txt", shown + "\n")
        training = self.run.finished_stages()["train"]
        write_json(self.run.path / "metrics.json", {
            "schema_version": 1, "run_id": self.run.path.name, "policy": POLICY, "training": training,
            "evaluation": result.document(),
        })  # fmt: skip
        return {"episodes": self.sizes.episodes, "policies": [policy.name for policy in policies]}

    def _export(self) -> dict[str, Any]:
        from roadsense.export.package import ExportConfig, export_formats

        asked = ExportConfig(gates=self.config.gates, episodes_per_bucket=self.sizes.episodes_per_bucket)
        done = export_formats(self.run.path, asked, dataset_dir=str(self.dataset_dir), max_peers=self.config.max_peers)
        for said in [*done.refused, *(f"not exported: {one}" for one in done.absent), *done.remarks]:
            self._say(said)
        return {
            "files": [file.relative_to(self.run.path).as_posix() for file in done.files],
            "refused": done.refused, "absent": done.absent, "remarks": done.remarks,
        }  # fmt: skip

    def _package(self) -> dict[str, Any]:
        shutil.copyfile(self.dataset_dir / MANIFEST_NAME, self.run.path / MANIFEST_NAME)
        self.run.write_checksums()
        return {}

    def _gate(self) -> dict[str, Any]:
        from roadsense.evaluation.promotion import GateConfig, accepted, judge

        asked = GateConfig(
            gates=self.config.gates, confirm=self.sizes.confirm, episodes_per_bucket=self.sizes.episodes_per_bucket
        )
        verdicts = judge(self.run, asked, may_differ=(PROGRESS,))
        failed = [f"{verdict.group}: {verdict.name}" for verdict in verdicts if not verdict.passed]
        return {"accepted": accepted(verdicts), "gates": len(verdicts), "failed": failed}

    def _report(self) -> dict[str, Any]:
        from roadsense.evaluation.report import ReportConfig, make_report
        from roadsense.export.card.page import write_card, write_metadata

        make_report(self.run, ReportConfig(replays=self.sizes.replays))
        write_metadata(self.run.path)
        write_card(self.run.path)
        return {}

    # ---------------------------------------------------------------- the run

    def plan(self) -> str:
        """What a run would do, after all inputs were verified."""
        from roadsense.evaluation.gates import read_gates

        done = self.run.finished_stages()
        self.run.refuse_other(self.document)
        gates = read_gates(self.config.gates)
        for folder in (self.run.path, self.dataset_dir):
            refuse_unwritable(folder)
        notes = {
            "generate": f"{self.sizes.train} + {self.sizes.val} + {self.sizes.eval} scenarios -> {self.dataset_dir}",
            "check": "every scenario in SUMO",
            "train": f"{self.document['train']['total_timesteps']} steps, {self.document['train']['n_envs']} worlds",
            "evaluate": f"{self.sizes.episodes} episodes of eval for each policy",
            "export": "every format of this machine, compared with the network, played and timed",
            "package": f"-> {self.run.path}",
            "gate": f"{len(gates.gates)} gates, {' '.join(gates.needs())}",
            "report": f"report.html, {self.sizes.replays} replays, CARD.md",
        }
        lines = [f"{name:10} {note}{' (done)' if name in done else ''}" for name, note in notes.items()]
        return "\n".join(lines)

    def execute(self, say: Callable[[str], None]) -> None:
        """Runs every stage that is not finished yet.

        Args:
            say: shows one line of progress.

        Raises:
            InputMismatchError: the run was begun with other inputs, or a file of it or of the dataset has changed.
            StoppedError: Ctrl-C; the same call continues.
            RoadsenseError: a stage failed, or the folder cannot be written.
        """
        self._say = say
        if self.run.complete:
            self.run.refuse_other(self.document)
            self.run.verify()
            say(f"{self.run.path} is {self.run.status} already, made at commit {_short(self.run.commits())}")
            return
        self.run.begin(self.document)
        earlier, now = self.run.commits(), environment()["git_commit"]
        if earlier and earlier != [now]:
            say(f"begun at commit {_short(earlier)}, goes on at {_short([now])}; progress.json has it by stage")
        with self.run.locked():
            for number, (name, work) in enumerate(self.stages.items(), 1):
                # a dataset that is there is only verified, and one that was removed is made again, byte for byte
                done_before = name in self.run.finished_stages()
                if done_before and name != "generate":
                    say(f"[{number}/{len(self.stages)}] {name}: done before")
                    continue
                say(f"[{number}/{len(self.stages)}] {name} …")
                self.run.set_status(f"running {name}")
                begun = time.monotonic()
                try:
                    facts = work()
                except KeyboardInterrupt:
                    raise StoppedError(f"{self.run.path}: stopped in {name}; the same command continues.") from None
                if not done_before:
                    self.run.finish_stage(name, {"seconds": round(time.monotonic() - begun, 1), **facts})
            self.run.set_status(COMPLETE if self.run.finished_stages()["gate"]["accepted"] else REJECTED)
            self.run.write_checksums()

    @property
    def passed(self) -> bool:
        """Whether the finished run passed its gates, or need not."""
        return self.run.status == COMPLETE or self.sizes.may_be_rejected


def _short(commits: list[str]) -> str:
    return " and ".join(commit[:12] for commit in commits)


def run_pipeline(config: PipelineConfig) -> bool:
    """Runs the pipeline, or with ``dry_run`` shows its plan; returns whether the run passed its gates, or need not.

    Raises:
        RoadsenseError: see :meth:`Pipeline.execute`.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    pipeline = Pipeline(config)
    if config.dry_run:
        print(pipeline.plan())
        say("all inputs are there and readable; nothing was written")
        return True
    begun = time.monotonic()
    pipeline.execute(say)
    run = pipeline.run.path
    for name in ("table.txt", "gates.txt"):
        print((run / name).read_text(encoding="utf-8"))
    print(run)
    say(f"took {time.monotonic() - begun:.0f} s; {run}/report.html shows it all")
    return pipeline.passed
