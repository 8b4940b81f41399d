"""The policy as C99 files of a run, and what they need of a machine."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError
from roadsense.files import write_text
from roadsense.policies.c_source import HEADER_NAME, SOURCE_NAME, render, weights_bytes
from roadsense.policies.compiled import host_compiler, run_compiler
from roadsense.policies.signature import read_signature
from roadsense.policies.weights import read_weights


def export_c(run_dir: str | Path) -> tuple[Path, Path]:
    """Writes ``model.h`` and ``model.c`` beside the weights of a run folder and returns their paths.

    ``roadsense_act(ego, peers, mask, rows)`` takes one observation as the environment gives it, any number of rows
    (also 0), and returns the clipped action, or ``ROADSENSE_REFUSED`` for an input that is NaN or infinite. Rows are
    taken one after the other, so memory does not grow with them. The same weights give the same bytes; a header of
    other weights does not compile with the source.

    Raises:
        UsageError: the network has a memory.
        RoadsenseError: the weights cannot be read or are no numbers, or a file cannot be written.
    """
    run_dir = Path(run_dir)
    header, source = render(run_dir)
    paths = run_dir / HEADER_NAME, run_dir / SOURCE_NAME
    for path, text in zip(paths, (header, source), strict=True):
        write_text(path, text)
    return paths


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
