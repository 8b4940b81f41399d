"""Plays a policy over a fixed list of episodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player, draw_radio
from roadsense.convoy.source import ScenarioSource
from roadsense.convoy.trace import EpisodeTrace, TraceRecorder
from roadsense.episode_spec import EpisodeSpec
from roadsense.espnow.params import RadioParams
from roadsense.policies.base import BatchPolicy, Truth
from roadsense.randomness import episode_seed
from roadsense.scenario import Scenario

EVALUATION_SEED = 2_000_000_011
"""Root of the seeds of evaluation episodes, apart from any a training would be given."""


class Episode(NamedTuple):
    """All that an episode follows from."""

    scenario: Scenario
    seed: int
    radio: RadioParams
    spec: EpisodeSpec | None = None
    """Ranges of its draws; None: the scenario's own."""
    randomise_radio: bool = False


def episodes_of(
    source: ScenarioSource,
    radios: Sequence[RadioParams],
    root_seed: int = EVALUATION_SEED,
    changes: Mapping[str, object] | None = None,
) -> Iterator[Episode]:
    """The endless list of a source's episodes.

    Episode k plays the k-th scenario of the list (around again past its end) under the k-th seed below ``root_seed``,
    so every policy meets the same episodes. ``changes`` replace ranges of all scenarios, by dotted keys.
    """
    for index in itertools.count():
        seed = episode_seed(root_seed, index)
        scenario = source.pick(seed, index)
        spec = scenario.episode.override(changes) if changes else None
        yield Episode(scenario, seed, draw_radio(radios, seed), spec, source.randomise_radio)


def play(
    policy: BatchPolicy,
    player: Player,
    episodes: int,
    *,
    root_seed: int = EVALUATION_SEED,
    changes: Mapping[str, object] | None = None,
    observations: bool = False,
    on_episode: Callable[[], None] | None = None,
) -> Iterator[EpisodeTrace]:
    """Yields the traces of the first ``episodes`` of :func:`episodes_of`; further arguments as for :func:`play_all`."""
    stated = itertools.islice(episodes_of(player.source, player.radios, root_seed, changes), episodes)
    return play_all(policy, player.worlds, stated, observations=observations, on_episode=on_episode)


def play_all(
    policy: BatchPolicy,
    worlds: ConvoyWorlds,
    episodes: Iterable[Episode],
    *,
    observations: bool = False,
    picture: bool = False,
    on_episode: Callable[[], None] | None = None,
) -> Iterator[EpisodeTrace]:
    """Yields the traces of episodes, in their order whatever the number of worlds.

    A decision that is no number ends its episode; the trace then says so in ``failure``.

    Args:
        policy: whose actions are applied; it must fit the worlds' ``control``.
        worlds: to play in.
        episodes: what to play.
        observations: whether traces keep what the policy saw.
        picture: whether they keep what drawing needs; the worlds must keep frames.
        on_episode: called once for each finished episode.
    """
    recorder = TraceRecorder(worlds, observations, picture)
    truth = Truth(worlds.records, worlds.traffic.state, worlds.emulator.state) if policy.privileged else None
    running = np.full(worlds.num_worlds, -1)
    done: dict[int, EpisodeTrace] = {}
    coming, following, wanted = iter(episodes), 0, 0
    seeds = np.zeros(worlds.num_worlds, np.uint64)
    while True:
        fresh = {int(world): episode for world, episode in zip(np.flatnonzero(running < 0), coming, strict=False)}
        if fresh:
            _begin(worlds, fresh)
            chosen = np.zeros(worlds.num_worlds, np.bool_)
            for world, episode in fresh.items():
                running[world], chosen[world], seeds[world] = following, True, episode.seed
                following += 1
            recorder.begin(chosen)
            policy.reset(chosen, seeds)
        active = running >= 0
        if not active.any():
            return
        actions = policy.act_many(worlds.observation, truth)
        failed = active & np.isnan(actions)
        worlds.step(np.where(failed, 0.0, actions), active & ~failed)
        recorder.record(active & ~failed)
        for ended in np.flatnonzero(active & (failed | (worlds.records["end_reason"] > 0))).tolist():
            trace = recorder.trace(ended)
            if failed[ended]:
                trace = trace._replace(failure=f"the action at step {trace.num_steps} is not a number")
            done[int(running[ended])] = trace
            running[ended] = -1
            if on_episode is not None:
                on_episode()
        while wanted in done:
            yield done.pop(wanted)
            wanted += 1


def _begin(worlds: ConvoyWorlds, fresh: Mapping[int, Episode]) -> None:
    """Begins episodes in worlds."""
    for randomise in {episode.randomise_radio for episode in fresh.values()}:
        chosen = [fresh.get(world) for world in range(worlds.num_worlds)]
        chosen = [one if one is not None and one.randomise_radio == randomise else None for one in chosen]
        worlds.reset(
            [one.scenario if one is not None else None for one in chosen],
            [one.seed if one is not None else 0 for one in chosen],
            [one.spec if one is not None else None for one in chosen],
            [one.radio if one is not None else None for one in chosen],
            randomise,
        )


def record_observations(policy: BatchPolicy, player: Player, episodes: int) -> Observation:
    """What a policy saw in the first ``episodes`` of its list, decision after decision along the leading axis."""
    return observations_of(play(policy, player, episodes, observations=True))


def observations_of(traces: Iterable[EpisodeTrace]) -> Observation:
    """What the policy saw in traces that keep it, decision after decision along the leading axis."""
    seen: list[Observation] = []
    for trace in traces:
        assert trace.ego is not None and trace.peers is not None and trace.peer_mask is not None
        decisions = slice(0, trace.num_steps)
        seen.append(Observation(trace.ego[decisions], trace.peers[decisions], trace.peer_mask[decisions]))
    return Observation(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))
