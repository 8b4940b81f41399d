"""Checkpoints of RLlib trainings: what ``Algorithm.save_to_path`` writes, in one file with the facts and the actor."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm
from safetensors import SafetensorError
from safetensors.numpy import load, save

from roadsense.errors import RoadsenseError
from roadsense.policies.signature import WEIGHTS_NAME
from roadsense.training.checkpoints import add_facts, damaged

_RLLIB = "rllib/"
"""Folder inside the file with what RLlib wrote."""

_PLAIN = {
    ("collections", "OrderedDict"), ("collections", "deque"), ("collections", "defaultdict"),
    ("numpy", "dtype"), ("numpy", "ndarray"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"), ("numpy._core.numeric", "_frombuffer"),
}  # fmt: skip
"""All that the state of an algorithm is made of, beside what pickle needs no import for."""


def pack_algorithm(
    algorithm: Algorithm, facts: dict[str, Any], arrays: Mapping[str, NDArray[Any]],
    tensors: Mapping[str, NDArray[np.float32]],
) -> bytes:  # fmt: skip
    """A checkpoint as it is written: an algorithm's state, the facts of the training and the actor.

    Args:
        algorithm: RLlib's.
        facts: as JSON.
        arrays: further ones, by name.
        tensors: of the actor: whoever wants the policy alone needs no RLlib.
    """
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        algorithm.save_to_path(folder)
        add_facts(archive, facts, arrays)
        archive.writestr(WEIGHTS_NAME, save(dict(tensors)))
        for file in sorted(Path(folder).rglob("*")):
            # how to make the classes anew is pickled code; this library makes them from the facts
            if file.is_file() and file.name != Algorithm.CLASS_AND_CTOR_ARGS_FILE_NAME:
                archive.write(file, _RLLIB + file.relative_to(folder).as_posix())
    return content.getvalue()


def read_actor(path: Path) -> dict[str, NDArray[np.float32]]:
    """The actor of a checkpoint.

    Raises:
        RoadsenseError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(load(archive.read(WEIGHTS_NAME)))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from None


def restore_algorithm(path: Path, algorithm: Algorithm) -> None:
    """Puts a checkpoint's weights, optimiser and figures into an algorithm of the same configuration.

    RLlib reads its state with pickle, which can run code. So every file that came out of the checkpoint, whatever the
    checkpoint called it, is looked through first; one that is neither JSON nor a pickle of numbers, arrays and
    containers is refused, and nothing of it has been run then.

    Raises:
        RoadsenseError: it cannot be read, or holds other things than a state.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.startswith(_RLLIB)]
            archive.extractall(folder, members)
            for file in Path(folder).rglob("*"):
                if file.is_file() and file.suffix != ".json":
                    _refuse_code(path, file.read_bytes())
            algorithm.restore_from_path(str(Path(folder) / _RLLIB))
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise RoadsenseError(f"{path}: cannot be restored ({told}); remove it to train anew.") from None


def _refuse_code(path: Path, pickled: bytes) -> None:
    try:
        _Plain(io.BytesIO(pickled)).load()
    except Exception as error:  # bytes that are no pickle raise whatever they happen to spell
        raise damaged(path, error) from None


class _Plain(pickle.Unpickler):
    """Reads data and imports nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a state")
        return super().find_class(module, name)
