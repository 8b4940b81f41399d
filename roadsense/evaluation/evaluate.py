"""Evaluates policies over one fixed list of episodes, each policy on the same ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadsense.convoy.core import ConvoyWorlds, WorldsConfig
from roadsense.convoy.player import radios_of
from roadsense.convoy.source import open_source, room_for
from roadsense.errors import UsageError
from roadsense.evaluation.journal import Journal, Row
from roadsense.evaluation.metrics import EVENTS_VERSION, measure
from roadsense.evaluation.rollout import EVALUATION_SEED, episodes_of, play_all
from roadsense.evaluation.suites import Bucket, Suite, read_suite
from roadsense.evaluation.summary import summarise, tally
from roadsense.policies.base import BatchPolicy
from roadsense.policies.baselines import BASELINES, make_baseline
from roadsense.policies.runtime import Policy
from roadsense.progress import progress_bar
from roadsense.runs import environment, made_with
from roadsense.traffic.engines import choose_engine, make_traffic

LISTED_EPISODES = 100
"""How many episodes of a split are played where nobody says."""

_NATIVE_WORLDS = 256
"""Worlds of the native engine that are played together."""


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """Which list of episodes, and how it is played."""

    suite: str | None = None
    """A suite by name or file, instead of a split of a dataset; it states its episodes and radios itself."""
    dataset_dir: str | None = None
    """Root of a dataset; None: the built-in scenarios."""
    split: str = "eval"
    """Which of its lists is walked."""
    radio: str | None = None
    """Radio parameters instead of the dataset's."""
    episodes_per_bucket: int | None = None
    """At most so many episodes of each bucket of a suite, the first ones; None: all it states."""
    engine: str = "sumo"
    """Who moves the cars: ``sumo`` (the reference), ``native``, ``auto`` or ``traci``."""
    max_peers: int | None = None
    """Cars that a world has room for beside V001; None: as many as the scenarios list, at least 16 with a flow. It
    changes no result."""

    def __post_init__(self) -> None:
        if self.episodes_per_bucket is not None and self.episodes_per_bucket < 1:
            raise UsageError(f"episodes_per_bucket is {self.episodes_per_bucket}; it must be at least 1.")
        if self.suite is None and self.episodes_per_bucket is not None:
            raise UsageError("episodes_per_bucket goes with a suite; a split has no buckets.")
        for name in ("dataset_dir", "radio") if self.suite is not None else ():
            _refuse_beside_a_suite(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ListConfig):
    """What is evaluated on."""

    episodes: int | None = None
    """How many episodes of a split each policy plays; None: 100."""
    confirm: int = 0
    """So many episodes of each policy, evenly spread, are played once more on SUMO and must come out the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes is not None and self.episodes < 1:
            raise UsageError(f"episodes is {self.episodes}; it must be at least 1.")
        if self.confirm < 0:
            raise UsageError(f"confirm is {self.confirm}; it must be at least 0.")
        if self.suite is not None:
            _refuse_beside_a_suite("episodes", self.episodes)


def _refuse_beside_a_suite(name: str, value: object) -> None:
    if value is not None:
        raise UsageError(f"{name} does not go with a suite, which states that itself; leave one out.")


class EpisodeList:
    """The episodes that every policy plays.

    Attributes:
        episodes: in order.
        scenarios: all of them, each once.
        max_peers: room that worlds must have for them.
        buckets: of a suite; none of a split.
        identity: which list that is, for a result.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        self.suite: Suite | None = None
        self.buckets: Sequence[Bucket] = ()
        self.identity: dict[str, Any] = {"suite": None, "split": None, "dataset_digest": None}
        if config.suite is not None:
            self.suite = read_suite(config.suite, config.episodes_per_bucket)
            self.episodes, self.buckets = self.suite.episodes, self.suite.buckets
            spec = self.suite.spec
            self.identity["suite"] = {"name": spec.name, "version": spec.version, "digest": self.suite.digest}
        else:
            source = open_source(dataset_dir=config.dataset_dir, split=config.split)
            radios = radios_of(config.radio, source)
            count = LISTED_EPISODES if config.episodes is None else config.episodes
            self.episodes = list(itertools.islice(episodes_of(source, radios), count))
            self.identity["split"], self.identity["dataset_digest"] = config.split, source.digest
        digests = {episode.radio.name: episode.radio.digest for episode in self.episodes}
        self.identity |= {"radios": digests, "root_seed": EVALUATION_SEED, "episodes": len(self.episodes)}
        self.scenarios = list({id(one.scenario): one.scenario for one in self.episodes}.values())
        self.max_peers = room_for(self.scenarios, config.max_peers)
        self._bucket_of = {index: bucket.name for bucket in self.buckets for index in bucket.episodes}

    def row(self, policy: str, index: int, metrics: Any) -> Row:
        """The row of an episode's metrics."""
        return Row(policy, index, self.episodes[index].radio.name, self._bucket_of.get(index, ""), metrics)

    def close(self) -> None:
        """Removes what a suite wrote."""
        if self.suite is not None:
            self.suite.close()


@dataclass
class Evaluation:
    """Episodes and summaries by policy, in the order they were played."""

    config: EvaluationConfig
    identity: dict[str, Any] = field(default_factory=dict)
    engine: str = ""
    buckets: Sequence[Bucket] = ()
    rows: list[Row] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    """One a policy and radio."""
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: what it is, its figures over all episodes and by bucket."""

    def document(self) -> dict[str, Any]:
        """The evaluation as it goes into a JSON file."""
        return {
            "schema_version": 2,
            "config": dataclasses.asdict(self.config),
            **self.identity,
            "engine": self.engine,
            "events_version": EVENTS_VERSION,
            "environment": environment(),
            "policies": self.policies,
        }

    @property
    def problems(self) -> list[str]:
        """What makes the evaluation worth nothing, a sentence each: empty buckets, engines that disagree."""
        empty = [
            f"bucket {bucket['bucket']} has no valid episode of {name}; the suite needs more of it."
            for name, policy in self.policies.items()
            for bucket in policy["buckets"]
            if bucket["n"] == 0
        ]
        return [*empty, *self.disagreements]

    @property
    def disagreements(self) -> list[str]:
        """Episodes that came out otherwise on SUMO, a sentence each."""
        return [
            f"episode {episode} of {name} comes out otherwise on SUMO; do not trust the other engine."
            for name, policy in self.policies.items()
            for episode in policy["confirmed"]["differing"]
        ]

    @property
    def remarks(self) -> list[str]:
        """What has to be said of policies, a sentence each: episodes that one broke off, and those that are invalid."""
        found = []
        for name, policy in self.policies.items():
            failed, invalid = policy["failed_episodes"], policy["invalid_episodes"]
            if failed:
                found.append(f"{name} broke off {len(failed)} episodes, which count as collisions; {failed[0]}.")
            if invalid:
                found.append(f"{invalid} episodes of {name} are invalid, for two peers touched; they count in nothing.")
        return found


def _identity(policy: BatchPolicy) -> dict[str, Any]:
    """Which policy that was, apart from its name."""
    return {"control": policy.control, "privileged": policy.privileged,
            "messages_per_peer": policy.messages_per_peer, **policy.origin}  # fmt: skip


def find_policy(name_or_path: str) -> BatchPolicy:
    """A baseline by name, or a trained policy from its run folder or a file of any format.

    Raises:
        UsageError: it is neither.
    """
    if name_or_path in BASELINES or not Path(name_or_path).exists():
        return make_baseline(name_or_path)
    return Policy.load(Path(name_or_path))


def evaluate(
    policies: Sequence[BatchPolicy], config: EvaluationConfig, *, folder: Path | None = None, progress: bool = True
) -> Evaluation:
    """Plays every policy over the same episodes of the fixed list.

    Args:
        policies: whose names are the keys of the result.
        config: suite or split, and how it is played.
        folder: where episodes are kept as they end; an evaluation that was stopped goes on there.
        progress: whether to show a bar on stderr.

    Raises:
        UsageError: two policies have one name.
        InputMismatchError: the folder holds another evaluation.
        RoadsenseError: something cannot be played; see :class:`roadsense.convoy.env.ConvoyEnv`.
    """
    names = [policy.name for policy in policies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two policies are named {twice[0]!r}; name one once, or rename its folder.")
    listed = EpisodeList(config)
    try:
        engine = choose_engine(config.engine, listed.scenarios)
        identity = {**listed.identity, "engine": engine, "events_version": EVENTS_VERSION, "made_with": made_with(),
                    "policies": {policy.name: _identity(policy) for policy in policies}}  # fmt: skip
        journal = Journal(folder, identity)
        result = Evaluation(config, listed.identity, engine, listed.buckets)
        with progress_bar(len(policies) * len(listed.episodes), "episode", visible=progress) as bar, journal:
            for policy in policies:
                bar.set_description(policy.name, refresh=False)
                rows = journal.rows_of(policy.name)
                bar.update(len(rows))
                rest = range(len(rows), len(listed.episodes))
                for row in _played(policy, listed, rest, engine):
                    journal.add(row)
                    bar.update()
                    rows.append(row)
                result.rows += rows
                _conclude(result, policy, listed, rows)
    finally:
        listed.close()
    return result


def open_worlds(policy: BatchPolicy, engine: str, count: int, max_peers: int, max_frames: int = 0) -> ConvoyWorlds:
    """Worlds for a policy; with ``max_frames`` they keep what pictures need."""
    settings = WorldsConfig(
        control=policy.control, max_peers=max_peers, messages_per_peer=policy.messages_per_peer, max_frames=max_frames
    )
    return ConvoyWorlds(settings, make_traffic(engine, count, max_peers + 1))


def _played(policy: BatchPolicy, listed: EpisodeList, which: Sequence[int], engine: str) -> Iterator[Row]:
    """Rows of some of the listed episodes."""
    if not which:
        return
    count = min(_NATIVE_WORLDS, len(which)) if engine == "native" else 1
    worlds = open_worlds(policy, engine, count, listed.max_peers)
    try:
        traces = play_all(policy, worlds, (listed.episodes[index] for index in which))
        for index, trace in zip(which, traces, strict=True):
            yield listed.row(policy.name, index, measure(trace))
    finally:
        worlds.close()


def _conclude(result: Evaluation, policy: BatchPolicy, listed: EpisodeList, rows: Sequence[Row]) -> None:
    """Adds the figures of a policy's rows to a result."""
    config = result.config
    confirmed: list[int] = []
    differing: list[int] = []
    if config.confirm and result.engine != "sumo":
        step = max(1, len(rows) // config.confirm)
        confirmed = list(range(0, len(rows), step))[: config.confirm]
        again = _played(policy, listed, confirmed, "sumo")
        differing = [row.episode for row in again if not row.same_as(rows[row.episode])]
    radios = {row.radio: None for row in rows}
    by_radio = {
        radio: summarise(policy.name, [row.metrics for row in rows if row.radio == radio], radio) for radio in radios
    }
    result.summaries += by_radio.values()
    overall = summarise(policy.name, [row.metrics for row in rows])
    result.policies[policy.name] = {
        **_identity(policy),
        **(overall if len(by_radio) > 1 else next(iter(by_radio.values()))),
        "radios": by_radio,
        "buckets": [
            tally(bucket.name, [rows[index].metrics for index in bucket.episodes]) for bucket in listed.buckets
        ],
        "confirmed": {"engine": "sumo", "episodes": confirmed, "differing": differing},
    }
