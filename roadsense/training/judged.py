"""How a training's policies were judged so far, and which checkpoints are kept for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger

from roadsense.convoy.player import Player
from roadsense.files import write_bytes
from roadsense.policies.signature import Signature
from roadsense.training.checkpoints import BEST, keep_best
from roadsense.training.config import TrainConfig
from roadsense.training.undisturbed import undisturbed
from roadsense.training.validation import Validation, validate


@dataclass
class Judged:
    """The validations of a training so far."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    best: Validation | None = None

    @property
    def last_step(self) -> int:
        """Of the training, at the last validation; 0: there was none."""
        return int(self.documents[-1]["timesteps"]) if self.documents else 0

    def facts(self) -> dict[str, Any]:
        """What a checkpoint states of them."""
        return {"validations": self.documents, "best": None if self.best is None else list(self.best)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Takes over what a checkpoint states."""
        self.documents = list(facts["validations"])
        self.best = None if facts["best"] is None else Validation(*facts["best"])

    def judge(
        self, config: TrainConfig, player: Player, tensors: Mapping[str, NDArray[np.float32]], timesteps: int,
        logger: Logger, pack: Callable[[], bytes],
    ) -> None:  # fmt: skip
        """Judges the deterministic policy, and keeps its checkpoint if it is among the best so far.

        Ctrl-C waits from the verdict on until it is known to the training and lies in the run folder.

        Args:
            config: of the training.
            player: of the episodes.
            tensors: of the actor.
            timesteps: done so far.
            logger: is told the figures.
            pack: gives the checkpoint; called when the verdict is among the facts.
        """
        signature = Signature.of(tensors, config.widths, config.control, config.messages_per_peer)
        found, run_dir = validate(player, config.eval_episodes, tensors, signature, timesteps), Path(config.run_dir)
        with undisturbed():
            logger.record("val/collisions", found.collisions)
            logger.record("val/false_brakes_per_calm_km", found.false_brakes_per_calm_km)
            logger.record("val/average_reward", -found.minus_average_reward)
            self.documents.append(found.document())
            better = found.better_than(self.best)
            self.best = found if better else self.best
            content = pack()
            judged = [(one["timesteps"], Validation.of(one).merit) for one in self.documents]
            keep_best(run_dir, content, judged, config.keep_best)
            if better:  # last: whoever goes on from it after a kill finds the others in place
                write_bytes(run_dir / BEST, content)
