"""The folder a training leaves its result in, and what an earlier call left there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from roadsense.errors import InputMismatchError
from roadsense.files import write_bytes, write_json
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, Signature
from roadsense.runs import canonical_digest, read_record
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.model import AnyPPO, actor_tensors

MODEL_NAME = "model.zip"
RESULT_NAME = "training.json"
INPUTS = ("dataset_digest", "radio_digest", "eval_dataset_digest", "eval_radio_digest")
"""Keys of the digests of what a training comes from, in its result and in its checkpoints."""
EXPLAINED = ("explained_variance", "imitation_explained_variance")
"""Columns of the shares of variance that were explained: of returns by the critic, of the teacher's actions by the
student on what it had not learned from yet."""


def write_policy(run_dir: Path, model: AnyPPO, config: TrainConfig) -> Signature:
    """Writes ``policy.safetensors`` (the actor alone) and ``signature.json``; the same weights give the same bytes."""
    tensors = actor_tensors(model)
    signature = Signature.of(tensors, config.widths, config.control, config.messages_per_peer)
    write_bytes(run_dir / WEIGHTS_NAME, to_safetensors(tensors))  # no metadata: two keys of it would shuffle the bytes
    write_json(run_dir / SIGNATURE_NAME, signature.document())
    return signature


def earlier_state(config: TrainConfig) -> dict[str, Any] | None:
    """The configuration and state an earlier call left in the run folder, if any."""
    run_dir = Path(config.run_dir)
    result, last = run_dir / RESULT_NAME, run_dir / LAST
    if result.is_file():
        found = read_record(result)
    elif last.is_file():
        found = read_facts(last)
    else:
        return None
    known = {"config", "made_with", "timesteps", "resumed_at", *INPUTS} <= found.keys()
    if not known or not isinstance(found["config"], dict):
        raise InputMismatchError(f"{run_dir}: holds a training of another version; name another run_dir or remove it.")
    before, now = dict(found["config"]), config.document()
    for one in (before, now):
        one.pop("run_dir", None)  # a folder may be moved
    if canonical_digest(before) != canonical_digest(now):
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise InputMismatchError(
            f"{run_dir}: holds a training with another {', '.join(changed)}; name another run_dir or remove it."
        )
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Last value and medians of the finite ones."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return {"n": 0, "last": None, "median": None, "median_last_quarter": None}
    return {
        "n": len(known),
        "last": known[-1],
        "median": float(np.median(known)),
        "median_last_quarter": float(np.median(known[-max(1, len(known) // 4) :])),
    }
