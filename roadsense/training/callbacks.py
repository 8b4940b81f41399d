"""What happens between updates: noise is annealed, progress shown, checkpoints saved, the best one found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from roadsense.progress import progress_bar


class AnnealNoise(BaseCallback):
    """Sets the logarithm of the exploration noise before every rollout, linear in the share of steps done.

    Args:
        start: at the first step.
        end: at the last.
        total_timesteps: of the whole training.
        from_step: where it begins to explore.
    """

    def __init__(self, start: float, end: float, total_timesteps: int, from_step: int = 0) -> None:
        super().__init__()
        self._start, self._end, self._total, self._from = start, end, total_timesteps, from_step

    def _on_rollout_start(self) -> None:
        share = min(1.0, (self.model.num_timesteps - self._from) / (self._total - self._from))
        log_std = self._start + (self._end - self._start) * share
        self.model.policy.log_std.data.fill_(log_std)  # type: ignore[operator]
        self.logger.record("rollout/noise_std", float(np.exp(log_std)))

    def _on_step(self) -> bool:
        return True


class ShowProgress(BaseCallback):
    """A bar on stderr, and the figures of a rollout that Stable-Baselines3 does not know of."""

    def __init__(self, total_timesteps: int, visible: bool) -> None:
        super().__init__()
        self._total, self._visible = total_timesteps, visible
        self._bar: Any = None

    def _on_training_start(self) -> None:
        self._bar = progress_bar(
            self._total, "step", visible=self._visible, initial=self.model.num_timesteps, desc="train", unit_scale=True
        )

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        episodes: list[Any] = list(self.model.ep_info_buffer or ())
        if episodes:
            self.logger.record("rollout/collision_share", float(np.mean([e["collision"] for e in episodes])))
            self._bar.set_postfix(reward=f"{np.mean([e['r'] for e in episodes]):.1f}", refresh=False)
        scale = self.training_env.get_attr("scale")[0]
        if scale is not None:
            self.logger.record("rollout/reward_scale", scale.std)

    def close(self) -> None:
        """Takes the bar away, also after a training that was stopped."""
        if self._bar is not None:
            self._bar.close()


class Every(BaseCallback):
    """Calls ``action`` after the update in which a multiple of ``period`` steps was passed.

    Between two rollouts and not inside one: there the weights belong to a whole update.
    """

    def __init__(self, period: int, action: Callable[[], None]) -> None:
        super().__init__()
        self._period, self._action = period, action
        self._done = 0

    def _on_training_start(self) -> None:
        self._done = self.model.num_timesteps // self._period

    def _on_rollout_start(self) -> None:
        passed = self.model.num_timesteps // self._period
        if passed > self._done:
            self._done = passed
            self._action()

    def _on_step(self) -> bool:
        return True


class BeforeRollout(BaseCallback):
    """Calls ``action`` before every rollout, the first one included."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self._action = action

    def _on_rollout_start(self) -> None:
        self._action()

    def _on_step(self) -> bool:
        return True
