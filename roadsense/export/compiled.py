"""The exported C as a policy on this machine: compiled, compared with the runtime and ONNX, measured."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.export.c import HEADER_NAME, REFUSED, SOURCE_NAME, render, weights_bytes
from roadsense.export.sets import SET_BOUND, largest, padded, permuted
from roadsense.manifest import file_digest
from roadsense.policies.base import Stateless, Truth
from roadsense.policies.runtime import load_policy, read_weights
from roadsense.policies.signature import ONNX_NAME, Signature, read_signature

C_BOUND = 1e-6
"""Largest difference of the C's actions from those of the runtime or ONNX that counts as the same."""

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


class CompiledPolicy(Stateless):
    """The exported network, compiled for this machine.

    Args:
        name: of the policy in results.
        signature: of the network.
        header: text of ``model.h``.
        source: text of ``model.c``. Its code runs in this process.
        origin: what a result names it by.
    """

    def __init__(self, name: str, signature: Signature, header: str, source: str, origin: dict[str, str]) -> None:
        self.name, self.signature, self.origin = name, signature, origin
        self.control, self.messages_per_peer = signature.control, signature.messages_per_peer
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

    def act(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN where the C refuses the observation."""
        worlds, rows = observation.peer_mask.shape
        ego = np.ascontiguousarray(observation.ego, np.float32)
        peers = np.ascontiguousarray(observation.peers, np.float32)
        mask = np.ascontiguousarray(observation.peer_mask, np.int8)
        actions = np.empty(worlds, np.float32)
        self._act(ego.ctypes.data, peers.ctypes.data, mask.ctypes.data, rows, worlds, actions.ctypes.data)
        return np.where(actions == np.float32(REFUSED), np.nan, actions).astype(np.float64)


def load_compiled(run_dir: str | Path) -> CompiledPolicy:
    """Compiles ``model.c`` of a run folder in a temporary folder.

    Only files that are byte for byte what the folder's weights give are compiled: no foreign code runs here.

    Raises:
        InputMismatchError: the files are not those of the weights.
        RoadsenseError: a file is missing, or there is no C compiler.
    """
    run_dir = Path(run_dir)
    texts = []
    for file, expected in zip((HEADER_NAME, SOURCE_NAME), render(run_dir), strict=True):
        path = run_dir / file
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise RoadsenseError(f"{path}: cannot be read ({error.strerror}); export the policy as C first.") from None
        if texts[-1] != expected.encode():
            raise InputMismatchError(f"{path}: is not what the weights beside it give; export the policy as C again.")
    path = run_dir / SOURCE_NAME
    header, source = (text.decode() for text in texts)
    name = f"{run_dir.resolve().name}/{SOURCE_NAME}"
    return CompiledPolicy(
        name, read_signature(run_dir), header, source, {"path": str(path), "sha256": file_digest(path)}
    )


@dataclass(frozen=True, kw_only=True)
class CParity:
    """How far the C's actions are from the other forms', over recorded observations."""

    observations: int
    runtime: float
    """Largest difference from the torch-free runtime."""
    onnx: float | None
    """From ``model.onnx``; None where the folder holds none."""
    permuted: float
    """From its own, with the rows of every observation in another order."""
    padded: float
    """The same with more capacity."""

    @property
    def passed(self) -> bool:
        """Whether all are within their bounds; NaN is not."""
        implementations = (self.runtime,) if self.onnx is None else (self.runtime, self.onnx)
        return all(one <= C_BOUND for one in implementations) and max(self.permuted, self.padded) <= SET_BOUND


def c_parity(run_dir: str | Path, observations: Observation, *, seed: int = 0) -> CParity:
    """Compares the compiled C with the runtime and, where the folder holds one, ``model.onnx``.

    Args:
        run_dir: folder that holds weights, ``model.h`` and ``model.c``.
        observations: recorded ones along the leading axis.
        seed: of the order rows are put in.

    Raises:
        RoadsenseError: they differ by more than their bound, a file cannot be read, or there is no C compiler.
    """
    return compare(load_compiled(run_dir), Path(run_dir), observations, seed=seed)


def compare(policy: CompiledPolicy, run_dir: Path, observations: Observation, *, seed: int = 0) -> CParity:
    """As :func:`c_parity`, of a policy that is compiled already."""
    own = policy.act(observations)
    onnx = load_policy(run_dir / ONNX_NAME).act(observations, None) if (run_dir / ONNX_NAME).exists() else None
    found = CParity(
        observations=len(own),
        runtime=largest(own - load_policy(run_dir).act(observations, None)),
        onnx=None if onnx is None else largest(own - onnx),
        permuted=largest(policy.act(permuted(observations, np.random.default_rng(seed))) - own),
        padded=largest(policy.act(padded(observations)) - own),
    )
    if not found.passed:
        of_onnx = "" if found.onnx is None else f", from ONNX's by {found.onnx:.3g}"
        raise RoadsenseError(
            f"{run_dir / SOURCE_NAME}: its actions differ from the runtime's by {found.runtime:.3g}{of_onnx}, at most "
            f"{C_BOUND:g} is allowed, and with other rows from its own by {max(found.permuted, found.padded):.3g}, at "
            f"most {SET_BOUND:g}, over {found.observations} observations; the export is not usable."
        )
    return found


def c_report(run_dir: str | Path, compiler: str | None = None) -> dict[str, Any]:
    """What the C needs of a machine, as the compiler states it at ``-Os``.

    Args:
        run_dir: folder of the weights.
        compiler: command of a gcc, such as that of a board's tool chain; default: this machine's.

    Returns:
        ``weights_bytes``, ``stack_bytes`` (of the deepest call, beside the caller's), ``stack_by_function``,
        ``multiply_adds_at_8_peers`` and ``compiler``.

    Raises:
        RoadsenseError: there is no compiler, or it does not tell the use of the stack.
    """
    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    header, source = render(run_dir)
    command = shlex.split(compiler) if compiler else host_compiler()
    if not shutil.which(command[0]):
        raise RoadsenseError(f"no C compiler {command[0]}; install it or name another.")
    with tempfile.TemporaryDirectory(prefix="roadsense-c-") as made:
        folder = Path(made)
        (folder / HEADER_NAME).write_text(header, encoding="utf-8")
        (folder / SOURCE_NAME).write_text(source, encoding="utf-8")
        run_compiler(["-Os", "-fstack-usage", "-c", "-o", "model.o", SOURCE_NAME], folder, command)
        told = folder / "model.su"
        if not told.exists():
            raise RoadsenseError(f"{command[0]} does not tell the use of the stack; name a gcc.")
        stack = {}
        for line in told.read_text(encoding="utf-8").splitlines():
            place, size, _ = line.split("\t")
            stack[place.rpartition(":")[2]] = int(size)
    called = [size for function, size in stack.items() if function != "roadsense_act"]
    return {
        "weights_bytes": weights_bytes(read_weights(run_dir, signature)),
        # every other function is called by this one and calls none
        "stack_bytes": stack["roadsense_act"] + max(called, default=0),
        "stack_by_function": stack,
        "multiply_adds_at_8_peers": signature.widths.multiply_adds(8),
        "compiler": shlex.join(command),
    }
