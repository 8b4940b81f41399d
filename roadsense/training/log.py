"""One line of figures for each update, beside the model."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat

from roadsense.files import cannot_write, write_text

LOG_NAME = "training.csv"
TENSORBOARD_DIR = "tensorboard"

COLUMNS = {
    "timesteps": "time/total_timesteps",
    "seconds": "",
    "steps_per_s": "time/fps",
    "episode_reward": "rollout/ep_rew_mean",
    "episode_steps": "rollout/ep_len_mean",
    "collision_share": "rollout/collision_share",
    "explained_variance": "train/explained_variance",
    "value_loss": "train/value_loss",
    "policy_loss": "train/policy_gradient_loss",
    "approx_kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "noise_std": "rollout/noise_std",
    "learning_rate": "train/learning_rate",
    "reward_scale": "rollout/reward_scale",
    "imitation_loss": "train/imitation_loss",
    "imitation_explained_variance": "train/imitation_explained_variance",
    "staleness": "workers/staleness",
    "redone": "workers/redone",
    "waited_s": "workers/waited_s",
}
"""Columns of ``training.csv`` and the figures of Stable-Baselines3 they hold; episodes are the last hundred.

A round of DAgger fills only what it has; its episodes are those that the student ended in it. The last three are of PPO
with workers: age of the rollout's weights in updates, fragments redone so far, and how long it was waited for [s]."""


class UpdateLog(KVWriter):
    """Appends to ``training.csv`` and keeps the rows.

    Args:
        path: of the file, which is written anew: what it holds may have been cut off, or be done again.
        earlier: :meth:`array` of the part of the training that is done.
    """

    def __init__(self, path: Path, earlier: NDArray[np.void] | None = None) -> None:
        self._path = path
        self._begun = time.perf_counter()
        self.rows = [] if earlier is None else [dict(zip(COLUMNS, row, strict=True)) for row in earlier.tolist()]
        self._before_s = self.rows[-1]["seconds"] if self.rows else 0.0
        write_text(path, _as_csv(self.rows, header=True))

    @property
    def seconds(self) -> float:
        """Spent on this training so far, earlier parts included."""
        return float(self._before_s + time.perf_counter() - self._begun)

    def array(self) -> NDArray[np.void]:
        """The rows so far, to the bit, which the file does not hold."""
        return np.array([tuple(row[name] for name in COLUMNS) for row in self.rows], [(name, "f8") for name in COLUMNS])

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        row = {name: float(key_values.get(key, math.nan)) for name, key in COLUMNS.items()}
        row["timesteps"], row["seconds"] = float(step), round(self.seconds, 3)
        if self.rows and self.rows[-1]["timesteps"] == row["timesteps"]:
            return  # a validation after the last update, which has its row
        self.rows.append(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_as_csv([row], header=False))
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def close(self) -> None:
        """Nothing is held open."""


def _as_csv(rows: list[dict[str, float]], header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(["" if math.isnan(row[name]) else f"{row[name]:.6g}" for name in COLUMNS] for row in rows)
    return text.getvalue()


def open_logger(run_dir: Path, updates: UpdateLog, tensorboard: bool) -> Logger:
    """The logger of Stable-Baselines3 over ``training.csv`` and, if asked for, TensorBoard."""
    outputs: list[KVWriter] = [updates]
    if tensorboard:
        outputs.append(TensorBoardOutputFormat(str(run_dir / TENSORBOARD_DIR)))
    return Logger(str(run_dir), outputs)
