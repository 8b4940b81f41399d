"""Generates a dataset: scenarios, radio parameters and the manifest that proves them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from roadsense.datasets.config import GenerateConfig
from roadsense.datasets.plan import Plan, draw_plan
from roadsense.datasets.road import Base, read_base
from roadsense.datasets.write import SCENARIO_FILES, write_scenario
from roadsense.episode_spec import HazardKind
from roadsense.errors import InputMismatchError, UsageError, nearest
from roadsense.espnow.profiles import params_path, read_params
from roadsense.files import cannot_write
from roadsense.manifest import MANIFEST_NAME, PARAMS_NAME, SPLITS, Dataset, file_digest, read_dataset, tree_digest
from roadsense.randomness import Purpose, derive_seed, generator
from roadsense.runs import canonical_digest, environment
from roadsense.scenario import EGO_ID
from roadsense.traffic.route import RouteCatalogue

_PROVENANCE = ("git_commit", "git_dirty", "sumo_version", "container_image", "generator")
"""Keys of a manifest that say how a dataset was made; two datasets that differ in these alone are the same."""


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a configuration names, read."""

    bases: list[Base]
    held_out: set[str]
    params: Path
    identity: str


def _read_inputs(config: GenerateConfig) -> _Inputs:
    catalogue = RouteCatalogue()
    bases = [read_base(name, catalogue) for name in config.base_scenarios]
    held_out = _held_out(config, bases)
    params = params_path(config.emulator_params)
    read_params(config.emulator_params)
    if params is None:
        raise UsageError(
            f"radio {config.emulator_params!r} has no file; generate with a profile, and ask for it when you play."
        )
    identity = config.dataset_id or f"s{config.seed}-{_config_digest(config, bases, params)[:10]}"
    return _Inputs(bases=bases, held_out=held_out, params=params, identity=identity)


def identify(config: GenerateConfig) -> tuple[str, dict[str, str]]:
    """The id a dataset would get, and the digests of what it would be made from; writes nothing.

    Raises:
        as :func:`generate`, where an input is missing or wrong.
    """
    inputs = _read_inputs(config)
    return inputs.identity, {
        "base_scenario_hash": _base_digest(inputs.bases),
        "emulator_params_hash": file_digest(inputs.params),
    }


def generate(config: GenerateConfig) -> Dataset:
    """Writes the dataset of ``config`` below its ``datasets_dir``, all of it or nothing.

    A dataset that is there already is left alone if it is the same, byte for byte.

    Raises:
        UsageError: a base scenario or a held-out road is unknown.
        ScenarioError: a base scenario cannot be read, or is too short.
        ParamsError: the radio parameters cannot be read.
        InputMismatchError: another dataset stands there under this name.
        RoadsenseError: the folder cannot be written.
    """
    inputs = _read_inputs(config)
    target = Path(config.datasets_dir) / inputs.identity
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{inputs.identity}.", dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error) from None
    try:
        beside.chmod(0o755)
        shutil.copyfile(inputs.params, beside / PARAMS_NAME)
        manifest = _manifest(beside, config, inputs)
        (beside / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            return _already_there(target, manifest)
        beside.rename(target)
    except OSError as error:
        raise cannot_write(target, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return read_dataset(target)


def _held_out(config: GenerateConfig, bases: list[Base]) -> set[str]:
    """Names of the roads that only ``eval`` drives on."""
    names = [base.name for base in bases]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UsageError(f"base scenario {min(repeated)!r} is named twice; name each road once.")
    held_out = set(config.held_out or names[-1:])
    for name in sorted(held_out - set(names)):
        raise UsageError(f"held-out road {name!r} is not among the base scenarios; {nearest(name, names)}")
    if held_out == set(names):
        raise UsageError(
            f"every road is held out for eval ({', '.join(names)}), so none is left to train on; name more base"
            " scenarios."
        )
    return held_out


def _config_digest(config: GenerateConfig, bases: list[Base], params: Path) -> str:
    return canonical_digest({
        "choices": config.choices(), "ranges": config.ranges.document(), "held_out": config.held_out,
        "base_scenarios": [base.name for base in bases], "base": _base_digest(bases), "params": file_digest(params),
    })  # fmt: skip


def _base_digest(bases: list[Base]) -> str:
    return tree_digest(
        (f"{base.name}/{file.relative_to(base.scenario.path).as_posix()}", file_digest(file))
        for base in bases
        for file in base.scenario.path.rglob("*")
        if file.is_file()
    )


def _kinds(config: GenerateConfig, count: int, draw: np.random.Generator) -> list[HazardKind]:
    """The hazards of a split: their shares hold exactly (to rounding), only their order is drawn."""
    low, high = config.ranges.hazard_share
    hazards = round(count * (low + draw.random() * (high - low)))
    stalled = round(hazards * config.stalled_share)
    kinds: list[HazardKind] = ["stalled_vehicle"] * stalled
    kinds += ["emergency_brake"] * (hazards - stalled)
    kinds += ["none"] * (count - hazards)
    return [kinds[place] for place in draw.permutation(count)]


def _peer_counts(config: GenerateConfig, count: int, draw: np.random.Generator) -> list[int]:
    """How many peers each scenario of a split has: every number equally often, in an order that is drawn."""
    low, high = config.ranges.peer_count
    counts: list[int] = []
    while len(counts) < count:
        counts += (low + draw.permutation(high - low + 1)).tolist()
    return counts[:count]


def _plans(config: GenerateConfig, split: str, roads: list[Base]) -> Iterator[tuple[Base, int, Plan]]:
    """(road, seed, plan) of every scenario of a split."""
    number, count = SPLITS.index(split), int(getattr(config, split))
    draw = generator(config.seed, Purpose.GENERATOR, number)
    kinds, peer_counts = _kinds(config, count, draw), _peer_counts(config, count, draw)
    for index in range(count):
        seed = derive_seed(config.seed, Purpose.GENERATOR, (number + 1 << 32) + index) >> 32
        base = roads[index % len(roads)]
        yield base, seed, draw_plan(config, base, peer_counts[index], kinds[index], seed)


def _write_split(
    folder: Path, config: GenerateConfig, split: str, roads: list[Base], held_out: set[str]
) -> list[dict[str, Any]]:
    entries = []
    for index, (base, seed, plan) in enumerate(_plans(config, split, roads)):
        road = re.sub(r"[^a-z0-9_.-]", "-", base.name.lower())
        scenario_id = f"{split}-{index:04d}-{road}"
        path = f"{split}/{scenario_id}"
        write_scenario(folder / path, base, plan)
        tags = [road, plan.kind]
        if base.name in held_out:
            tags.append("held-out")
        entries.append({
            "id": scenario_id, "seed": seed, "path": path, "base": base.name, "peer_count": len(plan.cars) - 1,
            "ego_id": EGO_ID, "ego_depart_s": 0, "parameters": plan.parameters, "tags": tags,
            "digest": tree_digest((f"{path}/{name}", file_digest(folder / path / name)) for name in SCENARIO_FILES),
        })  # fmt: skip
    return entries


def _manifest(folder: Path, config: GenerateConfig, inputs: _Inputs) -> dict[str, Any]:
    """Writes all scenarios into ``folder`` and returns the manifest of what then stands there."""
    seen = [base for base in inputs.bases if base.name not in inputs.held_out]
    roads = {"train": seen, "val": seen, "eval": inputs.bases}
    splits = {
        split: _write_split(folder, config, split, roads[split], inputs.held_out)
        for split in SPLITS
        if getattr(config, split)
    }
    files = [
        {"path": file.relative_to(folder).as_posix(), "sha256": file_digest(file), "bytes": file.stat().st_size}
        for file in folder.rglob("*")
        if file.is_file()
    ]
    files.sort(key=lambda file: str(file["path"]))
    made = environment()
    return {
        "schema_version": 1,
        "kind": "scenarios",
        "dataset_id": inputs.identity,
        "seed": config.seed,
        "base_scenarios": [base.name for base in inputs.bases],
        "base_scenario_hash": _base_digest(inputs.bases),
        "ranges": config.ranges.document(),
        "sumo_version": version("libsumo"),
        "git_commit": made["git_commit"],
        "git_dirty": made["git_dirty"],
        "emulator_params": PARAMS_NAME,
        "emulator_params_hash": file_digest(folder / PARAMS_NAME),
        "container_image": made["container_image"],
        "generator": {"name": "roadsense generate", "version": version("roadsense"), **config.choices()},
        "splits": splits,
        "files": files,
        "content_digest": tree_digest((str(file["path"]), str(file["sha256"])) for file in files),
    }


def _already_there(target: Path, manifest: dict[str, Any]) -> Dataset:
    """The dataset in the target folder, which must be the one that was asked for."""
    found = read_dataset(target)
    differing = sorted(
        key for key in {*found.manifest, *manifest} - {*_PROVENANCE} if found.manifest.get(key) != manifest.get(key)
    )
    if differing:
        raise InputMismatchError(
            f"{target}: holds another dataset (it differs in {', '.join(differing)}); name another dataset id or"
            " remove it."
        )
    found.verify()
    return found
