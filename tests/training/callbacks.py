"""Callbacks that tests disturb a training with."""

from stable_baselines3.common.callbacks import BaseCallback


class At(BaseCallback):
    """Does something once a step number is reached."""

    def __init__(self, step, action):
        super().__init__()
        self.at, self.action = step, action

    def _on_step(self):
        if self.num_timesteps >= self.at:
            self.action(self.model)
        return True
