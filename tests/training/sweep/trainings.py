"""Trainings that tests sweep: under a second each, on the native engine."""

import json
from pathlib import Path

from roadsense.training.config import TrainConfig

TINY = TrainConfig(
    algorithm="ppo", engine="native", total_timesteps=768, n_envs=2, n_steps=128, batch_size=128, n_epochs=2,
    learning_rate=3e-3, phi_widths=(6, 6), head_widths=(6,), critic_widths=(6,), eval_every=512, eval_episodes=2,
    checkpoint_every=256, tensorboard=False,
)  # fmt: skip


def flags(config: TrainConfig = TINY) -> list[str]:
    """The command line that asks for a configuration."""
    found = ["--config", "quick"]
    for key, value in config.document().items():
        if key in ("run_dir", "seed") or value is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        elif value != []:
            found += [flag, *map(str, value if isinstance(value, list) else [value])]
    return found


def write_grid(folder: Path, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.yaml").write_text(text)
    return str(folder / "grid.yaml")


def record(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


def result(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())
