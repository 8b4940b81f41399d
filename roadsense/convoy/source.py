"""Which scenario an episode plays: random for training, a fixed list for everything else."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roadsense._data import scenarios_dir
from roadsense.convoy.world import MAX_PEERS
from roadsense.errors import UsageError, nearest
from roadsense.manifest import SPLITS, read_dataset
from roadsense.randomness import Purpose, generator
from roadsense.scenario import Scenario, read_scenario

log = logging.getLogger(__name__)

BUILT_IN = ("straight", "curve", "arterial")
"""Base scenarios played when nothing else is asked for; each has four peers."""


@dataclass
class ScenarioSource:
    """A list of scenarios and the order they are played in.

    Attributes:
        entries: (scenario id, directory) pairs.
        walk: True plays them in order, episode by episode; False draws one by the episode's seed.
        randomise_radio: whether radio parameters are drawn anew for every episode.
        params_file: radio parameters that belong to the scenarios, if any.
        digest: of the dataset they come from, if any.
    """

    entries: Sequence[tuple[str, Path]]
    walk: bool
    randomise_radio: bool = False
    params_file: Path | None = None
    digest: str | None = None
    _cache: dict[str, Scenario] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.entries:
            raise UsageError("there is no scenario to play; the list is empty.")
        self._paths = dict(self.entries)

    def pick(self, seed: int, episode_index: int) -> Scenario:
        """The scenario of an episode, by its place in the walk or by its seed."""
        if self.walk:
            choice = episode_index % len(self.entries)
        else:
            choice = int(generator(seed, Purpose.SCENARIO).integers(len(self.entries)))
        return self.named(self.entries[choice][0])

    def named(self, scenario_id: str) -> Scenario:
        """The scenario of that id; unknown ids are refused with the nearest one."""
        if scenario_id not in self._paths:
            raise UsageError(f"scenario_id {scenario_id!r} is unknown; {nearest(str(scenario_id), self._paths)}")
        if scenario_id not in self._cache:
            self._keep(read_scenario(self._paths[scenario_id], scenario_id))
        return self._cache[scenario_id]

    def _keep(self, played: Scenario) -> None:
        self._cache[played.scenario_id] = played
        if played.left_out:
            log.warning("%s: is played without what it states by %s.", played.source, ", ".join(played.left_out))

    def all(self) -> list[Scenario]:
        """Every scenario of the list, read."""
        return [self.named(name) for name, _ in self.entries]


def room_for(scenarios: Iterable[Scenario], max_peers: int | None = None) -> int:
    """Capacity of worlds that shall play these scenarios.

    Args:
        scenarios: what is played.
        max_peers: taken as it is where it is stated.

    Returns:
        As many peers as the most crowded scenario lists, for rows of padding cost time and mean nothing; the default
        capacity at least where a flow adds cars that no file lists.
    """
    if max_peers is not None:
        return max_peers
    listed = [(len(scenario.vehicles) - 1, scenario.has_flows) for scenario in scenarios]
    return max([1, *(peers for peers, _ in listed), *(MAX_PEERS for _, has_flows in listed if has_flows)])


def open_source(
    *,
    dataset_dir: str | None = None,
    split: str = "train",
    scenario_list: Sequence[str] | None = None,
    scenario: str | None = None,
) -> ScenarioSource:
    """Resolves the arguments of the environment to a source.

    Args:
        dataset_dir: root of a generated dataset; its files are hashed against the manifest first.
        split: ``train`` (drawn at random), ``val`` or ``eval`` (walked in order).
        scenario_list: ids to keep, in this order; they are walked.
        scenario: one scenario directory or ``.sumocfg`` file, instead of a dataset.

    Raises:
        UsageError: the arguments exclude each other, or an id or split is unknown.
        InputMismatchError: a file of the dataset has changed.
        ScenarioError: something cannot be read.
    """
    if dataset_dir is None and split not in SPLITS:
        raise UsageError(f"split {split!r} is unknown; {nearest(split, SPLITS)}")
    if scenario is not None:
        if dataset_dir is not None or scenario_list is not None:
            raise UsageError("scenario= excludes dataset_dir= and scenario_list=; give one or the other.")
        played = read_scenario(scenario)
        source = ScenarioSource([(played.scenario_id, played.path)], walk=True)
        source._keep(played)
        return source
    if dataset_dir is not None:
        dataset = read_dataset(dataset_dir)
        dataset.verify()
        source = ScenarioSource(
            dataset.split(split),
            walk=split != "train",
            randomise_radio=split == "train",
            params_file=dataset.params_file,
            digest=dataset.digest,
        )
    else:
        base = scenarios_dir() / "base"
        built_in = [(name, base / name) for name in BUILT_IN]
        source = ScenarioSource(built_in, walk=split != "train", randomise_radio=split == "train")
    if scenario_list is None:
        return source
    known = dict(source.entries)
    unknown = [name for name in scenario_list if name not in known]
    if unknown:
        raise UsageError(f"scenario_list names {unknown[0]!r}, which is unknown; {nearest(unknown[0], known)}")
    source.entries, source.walk = [(name, known[name]) for name in scenario_list], True
    source.__post_init__()
    return source
