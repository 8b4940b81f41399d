"""Checkpoints: one file each, Stable-Baselines3's own zip with the facts of the training put in as JSON."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.save_util import load_from_zip_file

from roadsense.errors import RoadsenseError
from roadsense.files import write_bytes
from roadsense.training.model import AnyPPO

FACTS_NAME, ARRAYS_NAME = "roadsense.json", "roadsense.npz"
LAST, BEST = "checkpoints/last.zip", "checkpoints/best.zip"


def save_checkpoint(
    path: Path, model: AnyPPO, facts: dict[str, Any], arrays: Mapping[str, NDArray[np.float32]] | None = None
) -> None:
    """Writes weights, optimiser, facts and further arrays in one piece, beside and renamed.

    Raises:
        RoadsenseError: it cannot be written; an older checkpoint is left as it was.
    """
    buffer = io.BytesIO()
    model.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(FACTS_NAME, json.dumps(facts, indent=2, allow_nan=False))
        if arrays is not None:
            with archive.open(ARRAYS_NAME, "w") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        RoadsenseError: it is missing, cut short, or not one of roadsense's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(FACTS_NAME))
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such checkpoint.") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise damaged(path, error) from None
    return dict(facts)


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
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


def damaged(path: Path, error: Exception | str) -> RoadsenseError:
    """The error for a file that is there and cannot be gone on from."""
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
