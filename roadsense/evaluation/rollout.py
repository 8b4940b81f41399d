"""Plays a policy over a fixed list of episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player
from roadsense.convoy.trace import EpisodeTrace, TraceRecorder
from roadsense.policies.base import Policy, Truth

EVALUATION_SEED = 2_000_000_011
"""Root of the seeds of evaluation episodes, apart from any a training would be given."""


def play(
    policy: Policy,
    player: Player,
    episodes: int,
    *,
    root_seed: int = EVALUATION_SEED,
    observations: bool = False,
    on_episode: Callable[[], None] | None = None,
) -> Iterator[EpisodeTrace]:
    """Yields the traces of episodes 0 … ``episodes`` − 1, in that order whatever the number of worlds.

    Episode k plays the k-th scenario of the player's list (around again past its end) under the k-th seed below
    ``root_seed``, so every policy meets the same episodes.

    Args:
        policy: whose actions are applied; it must fit the player's ``control``.
        player: worlds to play in.
        episodes: how many.
        root_seed: changes all episodes.
        observations: whether traces keep what the policy saw.
        on_episode: called once for each finished episode.
    """
    worlds = player.worlds
    recorder = TraceRecorder(worlds, observations)
    truth = Truth(worlds.records, worlds.traffic.state) if policy.privileged else None
    running = np.full(worlds.num_worlds, -1)
    done: dict[int, EpisodeTrace] = {}
    following = wanted = 0
    while wanted < episodes:
        fresh = np.zeros(worlds.num_worlds, np.bool_)
        for world in np.flatnonzero(running < 0):
            if following < episodes:
                player.reseed(int(world), root_seed, following)
                running[world], fresh[world] = following, True
                following += 1
        if fresh.any():
            player.begin(fresh)
            recorder.begin(fresh)
            policy.reset(fresh, np.array(player.seeds, np.uint64))
        active = running >= 0
        worlds.step(policy.act(worlds.observation, truth), active)
        recorder.record(active)
        for world in np.flatnonzero(active & (worlds.records["end_reason"] > 0)):
            done[int(running[world])] = recorder.trace(int(world))
            running[world] = -1
            if on_episode is not None:
                on_episode()
        while wanted in done:
            yield done.pop(wanted)
            wanted += 1


def record_observations(policy: Policy, player: Player, episodes: int) -> Observation:
    """What a policy saw in the first ``episodes`` of its list, decision after decision along the leading axis."""
    seen: list[Observation] = []
    for trace in play(policy, player, episodes, observations=True):
        assert trace.ego is not None and trace.peers is not None and trace.peer_mask is not None
        decisions = slice(0, trace.num_steps)
        seen.append(Observation(trace.ego[decisions], trace.peers[decisions], trace.peer_mask[decisions]))
    return Observation(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))
