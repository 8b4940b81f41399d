"""A training under way: its checkpoints, its validations, and how it goes on where it was stopped."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadsense.convoy.observation import layout_hash
from roadsense.convoy.player import Player
from roadsense.files import cannot_write, write_bytes
from roadsense.training.checkpoints import BEST, LAST, pack_checkpoint, read_arrays, read_facts, restore_model
from roadsense.training.config import TrainConfig
from roadsense.training.dagger import Imitation
from roadsense.training.folder import MODEL_NAME, write_policy, write_result
from roadsense.training.judged import Judged
from roadsense.training.log import UpdateLog
from roadsense.training.model import AnyPPO, actor_tensors
from roadsense.training.remote import RemoteVecEnv
from roadsense.training.reward_scale import RewardScale
from roadsense.training.state import (
    Arrays,
    explorer_state,
    pending_figures,
    random_state,
    restore_explorer,
    restore_pending,
    restore_random,
)
from roadsense.training.vec_env import ConvoyVecEnv


@dataclass
class Training:
    """A training under way."""

    config: TrainConfig
    env: ConvoyVecEnv | RemoteVecEnv
    model: AnyPPO
    updates: UpdateLog
    val_player: Player
    inputs: dict[str, str | None]
    imitation: Imitation | None
    made_with: list[dict[str, Any]]
    """Commit and versions, from each step on at which it was begun or taken up again."""
    init_weights_digest: str | None = None
    """Of the actor it was begun with, where that was a given one."""
    resumed_at: list[int] = field(default_factory=list)
    judged: Judged = field(default_factory=Judged)
    boundary: bytes | None = None
    """The checkpoint of the last boundary between two rollouts of PPO: whoever stops inside of one goes on there."""

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint states beside weights and optimiser."""
        scale = self.env.scale
        return {
            "config": self.config.document(),
            "seeds": {"root": self.config.seed, "episodes_begun": self.env.played},
            "made_with": self.made_with,
            "layout_hash": layout_hash(self.config.messages_per_peer),
            "init_weights_digest": self.init_weights_digest,
            **self.inputs,
            "timesteps": self.model.num_timesteps,
            "reward_scale": None if scale is None else scale.state(),
            "resumed_at": self.resumed_at,
            **self.judged.facts(),
            "workers": self.env.collector.figures() if isinstance(self.env, RemoteVecEnv) else None,
        }

    def arrays(self) -> Arrays:
        """And what the next bit depends on beside them."""
        return {
            "log": self.updates.array(),
            **random_state(),
            **pending_figures(self.model.logger),
            **(self.env.collector.arrays() if isinstance(self.env, RemoteVecEnv) else {}),
            **(explorer_state(self.model, self.env) if self.env.scale is not None else {}),
            **(self.imitation.average.arrays() if self.imitation is not None and self.env.scale is None else {}),
        }

    def at_boundary(self) -> None:
        """Keeps a checkpoint at hand; the first one is written, so that a kill costs no configuration."""
        self.boundary = pack_checkpoint(self.model, self.facts(), self.arrays())
        if not (self.run_dir / LAST).is_file():
            self._write_last(self.boundary)

    def keep_boundary(self) -> None:
        """Writes the last boundary, if there was one; what was begun after it is done again."""
        if self.boundary is not None:
            self._write_last(self.boundary)

    def save_last(self) -> None:
        self._write_last(pack_checkpoint(self.model, self.facts(), self.arrays()))

    def _write_last(self, content: bytes) -> None:
        """Experience goes first and what is forgotten goes last: at any kill the checkpoint finds what it needs."""
        if self.imitation is not None:
            self.imitation.save()
        write_bytes(self.run_dir / LAST, content)
        if self.imitation is not None:
            self.imitation.forget()

    @property
    def imitates(self) -> bool:
        """Whether DAgger is not through yet."""
        return self.model.num_timesteps < self.config.dagger_steps

    def validate(self) -> None:
        """Judges the deterministic policy and keeps it if it is the best so far."""
        model, steps = self.model, self.model.num_timesteps
        if self.judged.last_step == steps:
            return
        with self._policy_in_place():
            self.judged.judge(
                self.config, self.val_player, actor_tensors(model), steps, model.logger,
                lambda: pack_checkpoint(model, self.facts()),
            )  # fmt: skip

    def _policy_in_place(self) -> contextlib.AbstractContextManager[None]:
        """The model's weights are the policy's meanwhile; of DAgger, the mean."""
        imitates = self.imitation is not None and self.env.scale is None
        return self.imitation.average.in_place() if self.imitation and imitates else contextlib.nullcontext()

    def resume(self, facts: dict[str, Any], arrays: Arrays) -> None:
        """Takes the last checkpoint over, of which these are the facts and arrays."""
        restore_model(self.run_dir / LAST, self.model)
        self.model.num_timesteps = int(facts["timesteps"])
        self.judged.restore(facts)
        self.resumed_at = [*facts["resumed_at"], self.model.num_timesteps]
        self.made_with = [*facts["made_with"], {**self.made_with[0], "from_step": self.model.num_timesteps}]
        self.init_weights_digest = facts["init_weights_digest"]
        if self.imitation is not None:
            steps = min(self.model.num_timesteps, self.config.dagger_steps)
            self.imitation.restore(steps // self.imitation.experience.round_size)
        if facts["reward_scale"] is None:
            assert self.imitation is not None
            self.imitation.average.restore(arrays)
            self.env.resume_at(facts["seeds"]["episodes_begun"])
        else:
            self.explore_at_last()
            assert self.env.scale is not None
            self.env.scale.restore(facts["reward_scale"])
            restore_explorer(arrays, self.model, self.env)
        if isinstance(self.env, RemoteVecEnv):
            self.env.collector.restore(facts["workers"], arrays, self.model)
        restore_pending(arrays, self.model.logger)
        restore_random(arrays)

    def explore_at_last(self) -> None:
        """Goes over from DAgger to PPO, whose critic wants rewards of one size."""
        self.env.scale = RewardScale(self.config.n_envs, self.config.gamma, self.config.reward_clip)

    def stop(self) -> bool:
        """Leaves the last boundary and its policy in the run folder; what was begun after it is done again.

        Returns:
            Whether there was one.
        """
        last = self.run_dir / LAST
        self.keep_boundary()
        if not last.is_file():
            return False
        facts = read_facts(last)
        restore_model(last, self.model)
        self.model.num_timesteps = int(facts["timesteps"])
        if self.imitation is not None and facts["reward_scale"] is None:
            self.imitation.average.restore(read_arrays(last))
            self.env.scale = None
        with self._policy_in_place():
            write_policy(self.run_dir, actor_tensors(self.model), self.config)
        return True

    def finish(self) -> dict[str, Any]:
        """Leaves the best policy in the run folder, and what the training looked like."""
        best, facts = self.run_dir / BEST, self.facts()
        restore_model(best, self.model)
        try:
            write_bytes(self.run_dir / MODEL_NAME, best.read_bytes())
        except OSError as error:
            raise cannot_write(self.run_dir / MODEL_NAME, error) from None
        signature = write_policy(self.run_dir, actor_tensors(self.model), self.config)
        result = write_result(self.run_dir, facts, self.judged.best, signature, self.updates.rows, self.updates.seconds)
        if self.imitation is not None:
            self.imitation.forget(all_rounds=True)
        return result
