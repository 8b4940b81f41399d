"""Evaluates policies over one fixed list of episodes, each policy on the same ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadsense.convoy.player import Player
from roadsense.convoy.world import MAX_PEERS
from roadsense.errors import UsageError
from roadsense.evaluation.metrics import EpisodeMetrics, measure
from roadsense.evaluation.rollout import EVALUATION_SEED, play
from roadsense.evaluation.summary import summarise
from roadsense.policies.base import Policy
from roadsense.policies.baselines import BASELINES, make_baseline
from roadsense.policies.runtime import load_policy
from roadsense.progress import progress_bar
from roadsense.runs import environment


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated on."""

    dataset_dir: str | None = None
    """Root of a dataset; None: the built-in scenarios."""
    split: str = "eval"
    """Which of its lists is walked."""
    episodes: int = 100
    """How many episodes each policy plays."""
    radio: str | None = None
    """Radio parameters instead of the dataset's."""
    engine: str = "sumo"
    """Who moves the cars: ``sumo`` (the reference), ``native``, ``auto`` or ``traci``."""
    max_peers: int = MAX_PEERS
    """Cars that a world has room for beside V001."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise UsageError(f"episodes is {self.episodes}; it must be at least 1.")


@dataclass
class Evaluation:
    """Episodes and summaries by policy, in the order they were played."""

    config: EvaluationConfig
    dataset_digest: str | None = None
    radio: str = ""
    radio_digest: str = ""
    engine: str = ""
    rows: list[tuple[str, EpisodeMetrics]] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The evaluation as it goes into a JSON file."""
        return {
            "schema_version": 1,
            "config": dataclasses.asdict(self.config),
            "dataset_digest": self.dataset_digest,
            "radio": self.radio,
            "radio_digest": self.radio_digest,
            "engine": self.engine,
            "root_seed": EVALUATION_SEED,
            "environment": environment(),
            "policies": {summary["policy"]: summary for summary in self.summaries},
        }


def _identity(policy: Policy) -> dict[str, Any]:
    """Which policy that was, apart from its name."""
    return {"control": policy.control, "privileged": policy.privileged,
            "messages_per_peer": policy.messages_per_peer, **policy.origin}  # fmt: skip


def find_policy(name_or_path: str) -> Policy:
    """A baseline by name, or a trained policy from its run folder or ONNX file.

    Raises:
        UsageError: it is neither.
    """
    if name_or_path in BASELINES or not Path(name_or_path).exists():
        return make_baseline(name_or_path)
    return load_policy(Path(name_or_path))


def evaluate(policies: Sequence[Policy], config: EvaluationConfig, *, progress: bool = True) -> Evaluation:
    """Plays every policy over the same episodes of the fixed list.

    Args:
        policies: whose names are the keys of the result.
        config: dataset, split, number of episodes.
        progress: whether to show a bar on stderr.

    Raises:
        UsageError: two policies have one name.
        RoadsenseError: something cannot be played; see :class:`roadsense.convoy.env.ConvoyEnv`.
    """
    names = [policy.name for policy in policies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two policies are named {twice[0]!r}; name one once, or rename its folder.")
    result = Evaluation(config)
    with progress_bar(len(policies) * config.episodes, "episode", visible=progress) as bar:
        for policy in policies:
            bar.set_description(policy.name, refresh=False)
            player = Player(
                1, dataset_dir=config.dataset_dir, split=config.split, radio=config.radio, engine=config.engine,
                control=policy.control, max_peers=config.max_peers,
                messages_per_peer=policy.messages_per_peer,
            )  # fmt: skip
            try:
                result.dataset_digest = player.source.digest
                result.radio, result.radio_digest = player.params.name, player.params.digest
                result.engine = player.engine
                traces = play(policy, player, config.episodes, on_episode=lambda: bar.update() and None)
                episodes = [measure(trace) for trace in traces]
            finally:
                player.close()
            result.rows += [(policy.name, episode) for episode in episodes]
            result.summaries.append({**_identity(policy), **summarise(policy.name, episodes)})
    return result
