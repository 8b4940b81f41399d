"""A rollout of PPO out of fragments: what Stable-Baselines3's buffer would hold, had it driven the worlds itself.

Workers decide without torch and know no critic, so values and log-probabilities are computed here, with the weights a
fragment was driven with. Where workers wait for updates these are the present ones. Asynchronously they drive the next
rollout while this one is learned from: its weights are one update old, never more, and a copy of them is kept.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roadsense.convoy.observation import Observation
from roadsense.convoy.world import EndReason, is_truncation
from roadsense.training.config import TrainConfig
from roadsense.training.fragments import Fragment
from roadsense.training.model import weights_of
from roadsense.training.remote import RemoteVecEnv
from roadsense.training.state import Arrays

_ROWS = 4096
"""Observations that go through the networks together."""

Figures = dict[str, Any]


class Collector:
    """Fills rollouts from workers.

    Args:
        config: of the training.
        env: worlds of workers.

    Attributes:
        version: updates that the present weights went through.
    """

    def __init__(self, config: TrainConfig, env: RemoteVecEnv) -> None:
        self.config, self.env, self.version = config, env, 0
        self._staleness: list[int] = []
        self._waited_s = 0.0
        self._ahead: dict[str, Tensor] | None = None  # of the policy that drives what nobody gathered yet

    def _launch(self, model: Any, version: int) -> None:
        """Lets workers begin with a rollout by what the model's weights are now."""
        std = float(model.policy.log_std.detach().exp())
        self.env.launch(weights_of(model, self.config, version, std), model.n_steps)

    def collect(self, model: Any, callback: Any, buffer: Any) -> bool:
        """Fills the buffer; an update follows. As ``collect_rollouts`` of Stable-Baselines3.

        Returns:
            False where a callback ends the training.
        """
        model.policy.set_training_mode(False)
        buffer.reset()
        callback.on_rollout_start()
        begun = time.perf_counter()
        if self._ahead is None:
            self._launch(model, self.version)
        fragment, drove, self._ahead = self.env.gather(), self._ahead, None
        waited_s = time.perf_counter() - begun
        steps_after = model.num_timesteps + fragment.raw.size
        if self.config.asynchronous and steps_after < model._total_timesteps:
            self._launch(model, self.version)
            self._ahead = {name: value.clone() for name, value in model.policy.state_dict().items()}
        self._note(model, fragment, waited_s)
        with _in_place(model.policy, drove):
            rewards, last_values = self._fill(model, fragment, buffer)
        ended = fragment.ends.mask(*fragment.raw.shape)
        if not self._tell(model, callback, fragment, rewards, ended):
            return False
        model._last_obs, model._last_episode_starts = fragment.last._asdict(), ended[-1]
        buffer.compute_returns_and_advantage(last_values=last_values, dones=ended[-1])
        callback.update_locals(locals())
        callback.on_rollout_end()
        self.version += 1
        return True

    def figures(self) -> Figures:
        """What the workers did so far."""
        known = self._staleness or [0]
        return {
            "count": self.config.workers,
            "asynchronous": self.config.asynchronous,
            "redone": dict(self.env.workers.faults),
            "staleness": {"most": max(known), "mean": float(np.mean(known))},
            "waited_s": round(self._waited_s, 2),
        }

    def arrays(self) -> Arrays:
        """What :meth:`restore` needs beside :meth:`figures`; of a rollout that is driven ahead, the weights."""
        ahead = {} if self._ahead is None else self._ahead
        return {
            "workers.staleness": np.array(self._staleness, np.int64),
            **{f"ahead.{name}": value.numpy().copy() for name, value in ahead.items()},
        }

    def restore(self, figures: Figures, arrays: Mapping[str, NDArray[Any]], model: Any) -> None:
        """Goes on from there, with worlds that stand where they stood; what was driven ahead is driven again."""
        self._staleness = arrays["workers.staleness"].tolist()
        self.version, self._waited_s = len(self._staleness), float(figures["waited_s"])
        self.env.workers.faults.update(figures["redone"])
        self._ahead = {
            name.removeprefix("ahead."): torch.from_numpy(array.copy())
            for name, array in arrays.items() if name.startswith("ahead.")
        } or None  # fmt: skip
        if self._ahead is not None:
            with _in_place(model.policy, self._ahead):
                self._launch(model, self.version - 1)

    def _note(self, model: Any, fragment: Fragment, waited_s: float) -> None:
        self._staleness.append(self.version - fragment.version)
        self._waited_s += waited_s
        model.logger.record("workers/staleness", self._staleness[-1])
        model.logger.record("workers/redone", sum(self.env.workers.faults.values()))
        model.logger.record("workers/waited_s", waited_s)

    def _fill(self, model: Any, fragment: Fragment, buffer: Any) -> tuple[NDArray[np.float32], Tensor]:
        """Returns rewards [step, world] as the critic learns them, and its values after the last step."""
        ended, ends = fragment.ends.mask(*fragment.raw.shape), fragment.ends
        rewards = fragment.rewards.astype(np.float32)
        if self.env.scale is not None:  # in the order in which they would come in process
            for step, (now, done) in enumerate(zip(fragment.rewards, ended, strict=True)):
                rewards[step] = self.env.scale(now, done)
        cut = is_truncation(ends.reason)
        with torch.no_grad():
            last_values = model.policy.predict_values(_tensors(fragment.last))
            if cut.any():
                beyond = model.policy.predict_values(_tensors(Observation._make(array[cut] for array in ends.seen)))
                rewards[ends.step[cut], ends.world[cut]] += model.gamma * beyond.numpy()[:, 0]
            values, log_probs = _judged(model.policy, fragment)
        for name, array in fragment.seen._asdict().items():
            buffer.observations[name][:] = array
        buffer.actions[:], buffer.rewards[:] = fragment.raw[..., None], rewards
        buffer.episode_starts[0], buffer.episode_starts[1:] = model._last_episode_starts, ended[:-1]
        buffer.values[:], buffer.log_probs[:] = values, log_probs
        buffer.pos, buffer.full = len(rewards), True
        return rewards, last_values

    def _tell(
        self, model: Any, callback: Any, fragment: Fragment, rewards: NDArray[np.float32], ended: NDArray[np.bool_]
    ) -> bool:
        """Tells callbacks step by step what happened, as they would hear of it in process."""
        happened = _infos(fragment)
        for step in range(len(rewards)):
            model.num_timesteps += self.env.num_envs
            infos = happened.get(step, [])
            callback.update_locals({"rewards": rewards[step], "dones": ended[step], "infos": infos, "n_steps": step})
            if not callback.on_step():
                return False
            model._update_info_buffer(infos)
        return True


def _infos(fragment: Fragment) -> dict[int, list[dict[str, Any]]]:
    """Of the episodes that ended, by step: what :class:`roadsense.training.vec_env.ConvoyVecEnv` says of them."""
    found: dict[int, list[dict[str, Any]]] = {}
    ends = fragment.ends
    for step, reason, total, length in zip(ends.step, ends.reason, ends.total, ends.length, strict=True):
        episode = {"r": float(total), "l": int(length), "collision": bool(reason == EndReason.COLLISION)}
        found.setdefault(int(step), []).append({"TimeLimit.truncated": bool(is_truncation(reason)), "episode": episode})
    return found


def _judged(policy: Any, fragment: Fragment) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values and log-probabilities of all steps, [step, world]."""
    shape = fragment.raw.shape
    seen = Observation._make(array.reshape(fragment.raw.size, *array.shape[2:]) for array in fragment.seen)
    raw = torch.from_numpy(fragment.raw.reshape(-1, 1))
    values, log_probs = np.zeros(fragment.raw.size, np.float32), np.zeros(fragment.raw.size, np.float32)
    for first in range(0, len(raw), _ROWS):
        rows = slice(first, first + _ROWS)
        value, log_prob, _ = policy.evaluate_actions(_tensors(Observation._make(a[rows] for a in seen)), raw[rows])
        values[rows], log_probs[rows] = value.numpy()[:, 0], log_prob.numpy()
    return values.reshape(shape), log_probs.reshape(shape)


def _tensors(observation: Observation) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in observation._asdict().items()}


@contextlib.contextmanager
def _in_place(policy: Any, state: dict[str, Tensor] | None) -> Iterator[None]:
    """The policy has those weights meanwhile; None: its own."""
    if state is None:
        yield
        return
    own = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.load_state_dict(state)
    try:
        yield
    finally:
        policy.load_state_dict(own)
