"""``Convoy-v0``: one world of the convoy as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import HORIZON_STEPS, INFO_SCALARS
from roadsense.convoy.player import Player
from roadsense.convoy.reward import REWARD_TERMS
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.traffic.base import EGO, STEP_S

_FIRST = np.ones(1, np.bool_)


class ConvoyEnv(gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """DOCSTRING"""

    metadata = {"render_modes": ["ansi"], "render_fps": round(1 / STEP_S)}

    def __init__(
        self,
        *,
        dataset_dir: str | None = None,
        split: str = "train",
        scenario_list: Sequence[str] | None = None,
        scenario: str | None = None,
        radio: str | None = None,
        engine: str = "sumo",
        control: str = "brake",
        max_peers: int = 16,
        messages_per_peer: int = 1,
        horizon_steps: int = HORIZON_STEPS,
        reward: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.player = Player(
            1, dataset_dir=dataset_dir, split=split, scenario_list=scenario_list, scenario=scenario, radio=radio,
            engine=engine, control=control, max_peers=max_peers, messages_per_peer=messages_per_peer,
            horizon_steps=horizon_steps, reward=reward,
        )  # fmt: skip
        self.worlds = self.player.worlds
        self.observation_space = observation_space(max_peers * messages_per_peer)
        self.action_space = action_space(control)
        self._low = float(self.action_space.low[0])
        self._actions = np.zeros(1)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begins an episode; see the class for ``options``."""
        first = self._np_random is None
        super().reset(seed=seed)
        if seed is not None:
            self.player.reseed(0, seed)
        elif first:
            self.player.reseed(0, int(self.np_random.integers(2**31)))
        self.player.begin(_FIRST, options)
        return self._observation(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], SupportsFloat, bool, bool, dict[str, Any]]:
        """Applies an action for 0.1 s; values outside the action space are clipped, NaN is refused."""
        asked = float(action[0])
        if asked != asked:
            raise ValueError("the action is NaN; a policy must decide on a number.")
        self._actions[0] = min(max(asked, self._low), 1.0)
        self.worlds.step(self._actions)
        reason = int(self.worlds.records["end_reason"][0])
        return self._observation(), float(self.worlds.rewards[0]), reason == 1, reason > 1, self._info()

    def _observation(self) -> dict[str, NDArray[Any]]:
        seen = self.worlds.observation
        return {"ego": seen.ego[0].copy(), "peers": seen.peers[0].copy(), "peer_mask": seen.peer_mask[0].copy()}

    def _info(self) -> dict[str, Any]:
        record, radio = self.worlds.records[0], self.worlds.emulator.state
        info: dict[str, Any] = {name: record[name] for name in INFO_SCALARS}
        info["reward_terms"] = dict(zip(REWARD_TERMS, self.worlds.terms[0].tolist(), strict=True))
        info["beacons_received"] = radio.received[0, 1:].copy()
        info["beacons_lost"] = radio.lost[0, 1:].copy()
        return info

    def render(self) -> str | None:  # type: ignore[override]
        """One line of text: time, own speed, gap, request, hazard phase, peers heard."""
        if self.render_mode is None:
            gym.logger.warn('render() needs render_mode="ansi" at gym.make.')
            return None
        record, state = self.worlds.records[0], self.worlds.traffic.state
        heard = int(self.worlds.observation.peer_mask[0].sum())
        return (
            f"t={record['step'] * STEP_S:5.1f} s  v={state.speed_mps[0, EGO]:5.2f} m/s  gap={record['gap_m']:6.1f} m"
            f"  action={record['action']:5.2f}  hazard={('none yet', 'active', 'over')[record['hazard_phase']]}"
            f"  heard={heard}"
        )

    def close(self) -> None:
        """Gives the engine back; calling it again does nothing."""
        self.player.close()
