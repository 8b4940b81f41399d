"""Plays episodes in a batch of worlds: which scenario, which seed, which radio. All shells stand on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.arguments import check_options, checked
from roadsense.convoy.core import HORIZON_STEPS, ConvoyWorlds, WorldsConfig
from roadsense.convoy.reward import RewardConfig
from roadsense.convoy.source import ScenarioSource, open_source
from roadsense.convoy.world import MAX_PEERS
from roadsense.episode_spec import EpisodeSpec
from roadsense.errors import UsageError, nearest
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params
from roadsense.randomness import Purpose, episode_seed, generator
from roadsense.scenario import Scenario
from roadsense.traffic.engines import choose_engine, make_traffic

DEFAULT_RADIO = "convoy"
"""Radio parameters where neither the caller nor the dataset states any."""


def _reward(constants: Mapping[str, float] | None) -> RewardConfig:
    known = RewardConfig.__dataclass_fields__
    for name in constants or {}:
        if name not in known:
            raise UsageError(f"reward constant {name!r} is unknown; {nearest(str(name), known)}")
    return RewardConfig(**(constants or {}))


Radio = str | Path | Sequence[str] | None
"""A radio, or several of which every episode draws one; None leaves it to the scenarios."""


def radios_of(radio: Radio, source: ScenarioSource) -> list[RadioParams]:
    """The radio parameters that are asked for, else those of the scenarios, else the default ones.

    Raises:
        UsageError: the list is empty.
        UsageError, ParamsError: see :func:`roadsense.espnow.profiles.read_params`.
    """
    if radio is None:
        radio = source.params_file or DEFAULT_RADIO
    names = [radio] if isinstance(radio, str | Path) else radio
    if not names:
        raise UsageError("radio is an empty list; name one radio or more.")
    known = {name: read_params(name) for name in dict.fromkeys(names)}
    return [known[name] for name in names]


def draw_radio(radios: Sequence[RadioParams], seed: int) -> RadioParams:
    """The radio of the episode of that seed."""
    if len(radios) == 1:
        return radios[0]
    return radios[int(generator(seed, Purpose.RADIO_PROFILE).integers(len(radios)))]


class Player:
    """Episodes for ``num_worlds`` worlds; arguments as in :class:`roadsense.convoy.env.ConvoyEnv`, and ``max_frames``
    as in :class:`roadsense.convoy.core.WorldsConfig`.

    Attributes:
        worlds: the batch it plays in.
        closed: whether the engine was given back.
        config: what all worlds share.
        source: where scenarios come from.
        radios: radio parameters; of several, every episode draws one by its seed.
        params: the first of them.
        seeds: seed of the running episode, by world.
        engine: who moves the cars, for ``"auto"`` who was chosen.
    """

    def __init__(
        self,
        num_worlds: int,
        *,
        dataset_dir: str | None = None,
        split: str = "train",
        scenario_list: Sequence[str] | None = None,
        scenario: str | None = None,
        radio: Radio = None,
        engine: str = "sumo",
        control: str = "brake",
        max_peers: int = MAX_PEERS,
        messages_per_peer: int = 1,
        horizon_steps: int = HORIZON_STEPS,
        reward: Mapping[str, float] | None = None,
        max_frames: int = 0,
    ) -> None:
        asked = checked(
            dataset_dir=dataset_dir, split=split, scenario_list=scenario_list, scenario=scenario, radio=radio,
            engine=engine, control=control, max_peers=max_peers, messages_per_peer=messages_per_peer,
            horizon_steps=horizon_steps, reward=reward,
        )  # fmt: skip
        shared = {name: asked[name] for name in ("control", "max_peers", "messages_per_peer", "horizon_steps")}
        self.config = WorldsConfig(**shared, reward=_reward(reward), max_frames=max_frames)
        self.source = open_source(dataset_dir=dataset_dir, split=split, scenario_list=scenario_list, scenario=scenario)
        scenarios = self.source.all()
        crowded, room = max(scenarios, key=lambda played: len(played.vehicles)), self.config.max_peers
        if len(crowded.vehicles) - 1 > room:
            raise UsageError(
                f"{crowded.path}: has {len(crowded.vehicles) - 1} peers, but max_peers is {room}; raise max_peers."
            )
        self.radios = radios_of(radio, self.source)
        self.params = self.radios[0]
        self.num_worlds = num_worlds
        self.engine = choose_engine(engine, scenarios)
        self.open()
        self.seeds = [0] * num_worlds
        self._roots = [0] * num_worlds
        self._played = [0] * num_worlds

    def open(self) -> None:
        """Starts the engine, again after a ``close``: ``worlds`` is then a new batch, seeds go on as they were."""
        engine = make_traffic(self.engine, self.num_worlds, self.config.max_peers + 1)
        self.worlds = ConvoyWorlds(self.config, engine)
        self.closed = False

    def reseed(self, world: int, root_seed: int, episode_index: int = 0) -> None:
        """Lets the next episode of a world be the ``episode_index``-th one of ``root_seed``."""
        self._roots[world], self._played[world] = root_seed, episode_index

    def begin(self, chosen: NDArray[np.bool_], options: Mapping[str, Any] | None = None) -> None:
        """Begins the next episode in every chosen world.

        Args:
            chosen: [world].
            options: ``scenario_id`` names the scenario, which shifts no draw; ``episode`` overrides ranges of its
                ``episode.json`` by dotted keys, as in ``{"hazard.rank": (1, 1)}``.

        Raises:
            UsageError: an option or a scenario is unknown.
            ScenarioError: a scenario cannot be played.
        """
        named, changes = check_options(options)
        scenarios: list[Scenario | None] = [None] * self.num_worlds
        specs: list[EpisodeSpec | None] = [None] * self.num_worlds
        radios: list[RadioParams | None] = [None] * self.num_worlds
        for world in np.flatnonzero(chosen).tolist():
            index = self._played[world]
            seed = episode_seed(self._roots[world], index)
            played = self.source.pick(seed, index) if named is None else self.source.named(named)
            scenarios[world], self.seeds[world], radios[world] = played, seed, draw_radio(self.radios, seed)
            if changes:
                specs[world] = played.episode.override(changes)
            self._played[world] = index + 1
        self.worlds.reset(scenarios, self.seeds, specs, radios, self.source.randomise_radio)

    def close(self) -> None:
        """Closes the engine; calling it again does nothing."""
        self.closed = True
        self.worlds.close()
