"""Where a training's experience comes from: scenarios, radios, and the worlds that play them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roadsense.convoy.player import DEFAULT_RADIO, Player, radios_of
from roadsense.convoy.source import ScenarioSource, open_source, room_for
from roadsense.errors import InputMismatchError
from roadsense.runs import canonical_digest
from roadsense.traffic.engines import choose_engine
from roadsense.training.config import TrainConfig
from roadsense.training.folder import INPUTS

_FOLDERS = ("dataset_dir", "eval_dir", "init_from")
_RADIOS = ("radio", "emulator_params", "further_radios")
"""Each a file or the name of a profile, or several of them."""
_VALIDATED_TOGETHER = 32
"""Worlds of a validation where they cost no processes; the episodes are the same in any number of them."""


def _radios(config: TrainConfig, source: ScenarioSource) -> list[str]:
    """The radios an episode draws from: the configured one, else the dataset's, and all further ones."""
    return [str(config.emulator_params or source.params_file or DEFAULT_RADIO), *config.further_radios]


def input_digests(config: TrainConfig) -> dict[str, str | None]:
    """Digests of what the experience and the choice of the best checkpoint come from."""
    found: list[str | None] = []
    for dataset_dir, split in ((config.dataset_dir, "train"), (config.eval_dir or config.dataset_dir, "val")):
        source = open_source(dataset_dir=dataset_dir, split=split)
        digests = [radio.digest for radio in radios_of(_radios(config, source), source)]
        found += [source.digest, digests[0] if len(digests) == 1 else canonical_digest(digests)]
    return dict(zip(INPUTS, found, strict=True))


def refuse_other_inputs(config: TrainConfig, earlier: dict[str, Any] | None, inputs: dict[str, str | None]) -> None:
    """Refuses to go on with what an earlier call began on other scenarios or radios.

    Raises:
        InputMismatchError: they are others.
    """
    if earlier is not None and {key: earlier[key] for key in INPUTS} != inputs:
        told = "was begun on another dataset or radio"
        raise InputMismatchError(f"{Path(config.run_dir)}: {told}; name another run_dir or remove it.")


def play_arguments(config: TrainConfig, split: str) -> dict[str, Any]:
    """Arguments of a :class:`Player`, or of an environment, over the split that a configuration states.

    All of them are plain values: they survive JSON, and a process elsewhere makes the same worlds of them.
    """
    dataset_dir = config.dataset_dir if split == "train" else config.eval_dir or config.dataset_dir
    source = open_source(dataset_dir=dataset_dir, split=split)
    scenarios = source.all()
    return {
        "dataset_dir": dataset_dir, "split": split, "radio": _radios(config, source), "control": config.control,
        "engine": choose_engine(config.engine, scenarios), "max_peers": room_for(scenarios, config.max_peers),
        "messages_per_peer": config.messages_per_peer,
    }  # fmt: skip


def anywhere(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments for a process that works in another folder.

    Args:
        arguments: of :func:`play_arguments`, or the fields of a configuration; paths in them become absolute.
    """
    found = dict(arguments)
    for key in {*_FOLDERS} & found.keys():
        found[key] = found[key] and os.path.abspath(found[key])
    for key in {*_RADIOS} & found.keys():
        radio = found[key]
        found[key] = (
            _file_or_name(radio) if isinstance(radio, str) else radio and type(radio)(map(_file_or_name, radio))
        )
    return found


def _file_or_name(radio: str) -> str:
    return os.path.abspath(radio) if os.path.isfile(radio) else radio


def training_player(config: TrainConfig) -> Player:
    """The worlds a training learns in."""
    return Player(config.n_envs, **play_arguments(config, "train"))


def validation_player(config: TrainConfig) -> Player:
    """The worlds a training is judged in."""
    asked = play_arguments(config, "val")
    together = min(_VALIDATED_TOGETHER, config.eval_episodes) if asked["engine"] == "native" else 1
    return Player(together, **asked)
