"""A policy from its C source, compiled for this machine."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.manifest import file_digest
from roadsense.policies.base import Truth
from roadsense.policies.c_source import HEADER_NAME, REFUSED, SOURCE_NAME, render
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature, read_signature

_STANDARD = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")

_BATCH = f"""#include "{HEADER_NAME}"
void act_on_all(const float *ego, const float *peers, const signed char *mask, int rows, int worlds, float *actions)
{{
    for (int w = 0; w < worlds; w++)
        actions[w] = roadsense_act(ego + (long)w * ROADSENSE_NUM_EGO, peers + (long)w * rows * ROADSENSE_NUM_PEER,
                                   mask + (long)w * rows, rows);
}}
"""


def host_compiler() -> list[str]:
    """The command of this machine's C compiler: that of ``CC``, else cc, gcc or clang.

    Raises:
        RoadsenseError: there is none.
    """
    stated = shlex.split(os.environ.get("CC", ""))
    for command in [stated] if stated else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise RoadsenseError(
        f"no C compiler found ({stated[0] if stated else 'cc, gcc, clang'}); install gcc or name one in CC."
    )


def run_compiler(arguments: list[str], folder: Path, compiler: list[str] | None = None) -> None:
    """Compiles in ``folder``, strictly by the standard.

    Raises:
        RoadsenseError: there is no compiler, or it refuses.
    """
    command = [*(compiler or host_compiler()), *_STANDARD, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        raise RoadsenseError(f"{shlex.join(command)}: failed ({reason}); export again or use another compiler.")


class CompiledPolicy(Policy):
    """The exported network, compiled for this machine.

    Args:
        name: of the policy in results.
        signature: of the network.
        header: text of ``model.h``.
        source: text of ``model.c``. Its code runs in this process.
        origin: what a result names it by.
    """

    def __init__(self, name: str, signature: Signature, header: str, source: str, origin: dict[str, str]) -> None:
        super().__init__(name, signature, origin)
        with tempfile.TemporaryDirectory(prefix="roadsense-c-") as made:
            folder = Path(made)
            for file, text in ((HEADER_NAME, header), (SOURCE_NAME, source), ("batch.c", _BATCH)):
                (folder / file).write_text(text, encoding="utf-8")
            run_compiler(["-O2", "-fPIC", "-shared", "-o", "model.so", SOURCE_NAME, "batch.c"], folder)
            self._library = ctypes.CDLL(str(folder / "model.so"))
        self._act = self._library.act_on_all
        pointer = ctypes.c_void_p
        self._act.argtypes = [pointer, pointer, pointer, ctypes.c_int, ctypes.c_int, pointer]
        self._act.restype = None

    def act_many(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN where the C refuses the observation."""
        worlds, rows = observation.peer_mask.shape
        ego = np.ascontiguousarray(observation.ego, np.float32)
        peers = np.ascontiguousarray(observation.peers, np.float32)
        mask = np.ascontiguousarray(observation.peer_mask, np.int8)
        actions = np.empty(worlds, np.float32)
        self._act(ego.ctypes.data, peers.ctypes.data, mask.ctypes.data, rows, worlds, actions.ctypes.data)
        return np.where(actions == np.float32(REFUSED), np.nan, actions).astype(np.float64)


def open_compiled(path: Path, name: str) -> CompiledPolicy:
    """The policy of a ``model.c``; see :meth:`roadsense.policies.runtime.Policy.load`.

    Only files that are byte for byte what the weights beside them give are compiled: no foreign code runs here.
    """
    folder, texts = path.parent, []
    for file, expected in zip((HEADER_NAME, SOURCE_NAME), render(folder), strict=True):
        try:
            texts.append((folder / file).read_bytes())
        except OSError as error:
            raise RoadsenseError(
                f"{folder / file}: cannot be read ({error.strerror}); export the policy as C first."
            ) from None
        if texts[-1] != expected.encode():
            raise InputMismatchError(
                f"{folder / file}: is not what the weights beside it give; export the policy as C again."
            )
    header, source = (text.decode() for text in texts)
    origin = {"path": str(path), "sha256": file_digest(folder / SOURCE_NAME)}
    return CompiledPolicy(name, read_signature(folder), header, source, origin)
