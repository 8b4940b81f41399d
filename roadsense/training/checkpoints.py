"""Checkpoints: one file each, Stable-Baselines3's own zip with the facts of the training put in as JSON."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.save_util import load_from_zip_file

from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.files import write_bytes
from roadsense.training.model import AnyPPO

FACTS_NAME, ARRAYS_NAME = "roadsense.json", "roadsense.npz"
LAST, BEST = "checkpoints/last.zip", "checkpoints/best.zip"
FORMAT = 2
"""Of checkpoints; raised whenever one of another version could not be gone on from to the same bits."""
_STEP_NAME = "step-{:010d}.zip"
_KEY = "checkpoint_format"


def pack_checkpoint(model: AnyPPO, facts: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> bytes:
    """A checkpoint as it is written: weights, optimiser, facts and further arrays."""
    buffer = io.BytesIO()
    model.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        add_facts(archive, facts, arrays)
    return buffer.getvalue()


def add_facts(archive: zipfile.ZipFile, facts: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None) -> None:
    """Puts facts and further arrays into a checkpoint."""
    archive.writestr(FACTS_NAME, json.dumps({_KEY: FORMAT, **facts}, indent=2, allow_nan=False))
    if arrays is not None:
        with archive.open(ARRAYS_NAME, "w") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def save_checkpoint(
    path: Path, model: AnyPPO, facts: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Writes weights, optimiser, facts and further arrays in one piece, beside and renamed.

    Raises:
        RoadsenseError: it cannot be written; an older checkpoint is left as it was.
    """
    write_bytes(path, pack_checkpoint(model, facts, arrays))


def keep_best(run_dir: Path, content: bytes, judged: Sequence[tuple[int, Any]], keep: int) -> None:
    """Keeps the checkpoint that was judged last if it is among the best, and removes those that no longer are.

    Written before anything is removed, so a kill leaves one too many and never one too few.

    Args:
        run_dir: of the training.
        content: of that checkpoint.
        judged: step and merit of all in the order of judgement; the lowest merit is best, of equals the first.
        keep: how many are kept.
    """
    folder = (run_dir / LAST).parent
    best = {_STEP_NAME.format(step) for step, _ in sorted(judged, key=lambda one: one[1])[:keep]}
    newest = _STEP_NAME.format(judged[-1][0])
    if newest in best:
        write_bytes(folder / newest, content)
    for file in folder.glob(_STEP_NAME.partition("{")[0] + "*.zip"):
        if file.name not in best:
            file.unlink(missing_ok=True)


def sweep(run_dir: Path, names: Iterable[str]) -> None:
    """Removes what a killed process had written beside its files and could not rename any more."""
    folder = (run_dir / LAST).parent
    for beside in itertools.chain(folder.glob(".*"), *(run_dir.glob(f".{name}.*") for name in names)):
        beside.unlink(missing_ok=True)


def read_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        RoadsenseError: it is missing, cut short, or not one of roadsense's.
        InputMismatchError: a version with other checkpoints wrote it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = dict(json.loads(archive.read(FACTS_NAME)))
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such checkpoint.") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from None
    if facts.get(_KEY) != FORMAT:
        raise InputMismatchError(
            f"{path}: is a checkpoint of another version (format {facts.get(_KEY, 1)}, not {FORMAT}); use the version "
            "that made it, or train anew."
        )
    return facts


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The further arrays of a checkpoint.

    Raises:
        RoadsenseError: it has none, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(ARRAYS_NAME)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise damaged(path, error) from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What is missing or unfit meanwhile, is so in that checkpoint.

    Raises:
        RoadsenseError: it is.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None


def damaged(path: Path, error: Exception | str) -> RoadsenseError:
    """The error for a checkpoint that is not whole."""
    return RoadsenseError(f"{path}: is not a whole checkpoint ({error}); remove it to train anew.")


def restore_model(path: Path, model: AnyPPO) -> None:
    """Puts a checkpoint's weights and optimiser into a model of the same configuration; unpickles nothing."""
    try:
        _, parameters, _ = load_from_zip_file(path, load_data=False)
        model.set_parameters(parameters, exact_match=True)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise RoadsenseError(f"{path}: cannot be restored ({error}); remove it to train anew.") from None
    except UnpicklingError:  # torch says on several lines how to load it all the same
        raise damaged(path, "it holds other things than weights") from None
