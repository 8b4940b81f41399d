"""Weights that a new training begins with, from an earlier one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from stable_baselines3.common.save_util import load_from_zip_file
from torch import Tensor

from roadsense.convoy.observation import layout_hash
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.policies.signature import weights_digest
from roadsense.training.checkpoints import damaged, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.folder import MODEL_NAME
from roadsense.training.model import AnyPPO, actor_tensors

_NOISE = "log_std"
"""Exploration belongs to the training and not to the weights."""


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    """What two trainings must agree on for one to begin with the other's weights."""
    names = ("control", "messages_per_peer", "phi_widths", "head_widths", "critic_widths")
    recurrent = config["algorithm"] == "recurrent-ppo"
    return {**{name: config[name] for name in names}, "lstm_width": config["lstm_width"] if recurrent else None}


def initial_weights(config: TrainConfig, earlier: dict[str, Any] | None) -> dict[str, Tensor] | None:
    """The weights of actor and critic that ``config.init_from`` names, a run folder or one of its checkpoints.

    Nothing is unpickled.

    Args:
        config: of the training.
        earlier: what its last checkpoint states, if it is under way. It does without the model then, which may be gone.

    Returns:
        None where none are named or needed.

    Raises:
        UsageError: there is no such model.
        InputMismatchError: it reads another observation, or its layers have other widths.
        RoadsenseError: it cannot be read.
    """
    if config.init_from is None or (earlier is not None and not Path(config.init_from).exists()):
        return None
    path = Path(config.init_from)
    path = path / MODEL_NAME if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path}: no such model; --init-from takes the folder of a finished training or a checkpoint.")
    facts = read_facts(path)
    try:
        theirs, layout = _shape(facts["config"]), facts["layout_hash"]
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from None
    ours = _shape(config.document())
    other = [name for name in ours if theirs[name] != ours[name]]
    if other:
        what = ", ".join(f"{name} {theirs[name]} and not {ours[name]}" for name in other)
        raise InputMismatchError(f"{path}: has {what}; train with the same, or begin without --init-from.")
    if layout != layout_hash(config.messages_per_peer):
        raise InputMismatchError(
            f"{path}: reads observation layout {layout[:12]}, this version gives "
            f"{layout_hash(config.messages_per_peer)[:12]}; begin without --init-from."
        )
    try:
        _, parameters, _ = load_from_zip_file(path, load_data=False)
        tensors = dict(parameters["policy"])
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from None
    except UnpicklingError:
        raise damaged(path, "it holds other things than weights") from None
    return tensors


def put_initial(
    config: TrainConfig, tensors: dict[str, Tensor] | None, model: AnyPPO, earlier: dict[str, Any] | None
) -> str | None:
    """Begins with those weights, if there are any; further arguments as for :func:`initial_weights`.

    Returns:
        The digest of the actor, which is the ``weights_digest`` of the training it comes from.

    Raises:
        InputMismatchError: the training under way was begun with others.
    """
    if tensors is None:
        return None
    try:
        model.policy.load_state_dict({**tensors, _NOISE: model.policy.state_dict()[_NOISE]})
    except RuntimeError as error:
        raise RoadsenseError(f"{config.init_from}: its weights do not fit ({' '.join(str(error).split())}).") from None
    digest = weights_digest(actor_tensors(model))
    if earlier is not None and digest != earlier["init_weights_digest"]:
        told = f"was begun with other weights than {config.init_from} holds now"
        raise InputMismatchError(f"{config.run_dir}: {told}; --resume goes on all the same.")
    return digest
