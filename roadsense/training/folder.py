"""The folder a training leaves its result in, and what an earlier call left there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from roadsense.convoy.observation import layout_hash
from roadsense.errors import InputMismatchError, UsageError
from roadsense.files import json_number, write_bytes, write_json
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, Signature
from roadsense.runs import canonical_digest, read_record
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.config import TrainConfig, decisive, recorded_config
from roadsense.training.validation import Validation

MODEL_NAME = "model.zip"
RESULT_NAME = "training.json"
INPUTS = ("dataset_digest", "radio_digest", "eval_dataset_digest", "eval_radio_digest")
"""Keys of the digests of what a training comes from, in its result and in its checkpoints."""
EXPLAINED = ("explained_variance", "imitation_explained_variance")
"""Columns of the shares of variance that were explained: of returns by the critic, of the teacher's actions by the
student on what it had not learned from yet."""


def write_policy(run_dir: Path, tensors: dict[str, NDArray[np.float32]], config: TrainConfig) -> Signature:
    """Writes ``policy.safetensors`` (the actor alone) and ``signature.json``; the same weights give the same bytes."""
    signature = Signature.of(tensors, config.widths, config.control, config.messages_per_peer)
    write_bytes(run_dir / WEIGHTS_NAME, to_safetensors(tensors))  # no metadata: two keys of it would shuffle the bytes
    write_json(run_dir / SIGNATURE_NAME, signature.document())
    return signature


def find_state(run_dir: Path) -> dict[str, Any] | None:
    """The configuration and state that an earlier call left in a run folder, if any.

    Raises:
        InputMismatchError: a version did that this one cannot go on from.
        RoadsenseError: it cannot be read.
    """
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
    if not found.get("finished"):
        _refuse_other_layout(found, last)
    return found


def _refuse_other_layout(found: dict[str, Any], last: Path) -> None:
    here = layout_hash(int(found["config"].get("messages_per_peer", 1)))
    if found.get("layout_hash") != here:
        raise InputMismatchError(
            f"{last}: is a checkpoint of observation layout {str(found.get('layout_hash'))[:12]}, this version gives "
            f"{here[:12]}; use the version that made it, or train anew."
        )


def begun_config(run_dir: Path) -> tuple[TrainConfig, bool]:
    """How the training in a run folder was configured, and whether it is finished.

    Raises:
        UsageError: there is none that could be gone on with.
        InputMismatchError: another version configured it.
    """
    found = find_state(run_dir)
    if found is None:
        raise UsageError(f"{run_dir}: has no {LAST} to resume from; give the folder of a training, or begin one anew.")
    config = recorded_config({**found["config"], "run_dir": str(run_dir)}, run_dir)
    return config, bool(found.get("finished"))


def earlier_state(config: TrainConfig) -> dict[str, Any] | None:
    """What :func:`find_state` finds in the run folder of a configuration, which must be the same one.

    Raises:
        InputMismatchError: it is another one.
    """
    run_dir = Path(config.run_dir)
    found = find_state(run_dir)
    if found is None:
        return None
    before, now = decisive(found["config"]), decisive(config.document())
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


def write_result(
    run_dir: Path,
    facts: dict[str, Any],
    best: Validation | None,
    signature: Signature,
    rows: Sequence[dict[str, float]],
    seconds: float,
) -> dict[str, Any]:
    """Writes ``training.json``: what a finished training came from and looked like.

    Args:
        run_dir: its folder.
        facts: of its last checkpoint.
        best: the validation that chose its policy.
        signature: of that policy.
        rows: of its log.
        seconds: spent on it.
    """
    result = {
        "finished": True,
        **{key: facts[key] for key in ("config", "made_with", *INPUTS, "timesteps", "resumed_at", "validations")},
        "init_weights_digest": facts.get("init_weights_digest"),
        "best": best.document() if best else None,
        "workers": facts.get("workers"),
        "weights_digest": signature.weights_digest,
        "seconds": round(seconds, 2),
        "steps_per_s": round(facts["timesteps"] / seconds, 1),
        **{name: summary([row[name] for row in rows]) for name in EXPLAINED},
        "curve": {name: [json_number(row[name]) for row in rows]
                  for name in ("timesteps", "episode_reward", "collision_share", *EXPLAINED,
                               "approx_kl", "noise_std", "steps_per_s", "imitation_loss")},
    }  # fmt: skip
    write_json(run_dir / RESULT_NAME, result)
    return result
