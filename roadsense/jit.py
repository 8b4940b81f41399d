"""The decorator of every kernel: compiled by numba, cached on disk under a hash of all kernel sources.

Numba's disk cache sees a change of the file a function stands in, but not of the functions it calls from other
files: a cached caller would keep the old callee. All kernels therefore share one cache folder whose name is the hash
of every source file of the package that holds a kernel.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

log = logging.getLogger(__name__)

_numba_config: Any = numba.config  # its settings are made at run time, unknown to type checkers

_PACKAGE = Path(__file__).resolve().parent
_KERNEL_MARK = b"from roadsense.jit import"
_IMPORTED = re.compile(rb"^from roadsense\.([\w.]+) import", re.MULTILINE)


@functools.cache
def source_digest() -> str:
    """SHA-256 (hex) over all source files that define kernels or constants for them, and numba's version."""
    sources = {path: path.read_bytes() for path in sorted(_PACKAGE.rglob("*.py"))}
    kernels = {path for path, source in sources.items() if _KERNEL_MARK in source}
    imported = {
        _PACKAGE.joinpath(*name.decode().split(".")).with_suffix(".py")
        for path in kernels
        for name in _IMPORTED.findall(sources[path])
    }
    digest = hashlib.sha256(numba.__version__.encode())
    for path, source in sources.items():
        if path in kernels | imported:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + source)
    return digest.hexdigest()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.cache
def cache_dir() -> Path | None:
    """The folder compiled kernels are kept in, or None where nothing is writable (they compile anew then)."""
    name = f"kernels-{source_digest()[:16]}"
    explicit = os.environ.get("NUMBA_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    roots = [Path(explicit)] if explicit else [Path(user) / "roadsense"]
    roots.append(Path(tempfile.gettempdir()) / f"roadsense-{os.getuid()}")
    return next((root / name for root in roots if _writable(root / name)), None)


@functools.cache
def tell_of_compiling(function: str) -> None:
    """Says once, on stderr, that kernels are about to be compiled; nothing where they are on disk.

    Args:
        function: a kernel of those that are waited for, as ``module.function``.
    """
    folder = cache_dir()
    if folder is None:
        log.warning("compiling kernels, about half a minute and every time: no folder can be written to keep them.")
    elif not any(folder.glob(f"*/{function}-*.nbi")):
        log.warning("compiling kernels for this machine, about half a minute and only this once; kept in %s.", folder)


_NUMPY_ERRORS: dict[str, Any] = {"error_model": "numpy"}
"""Division by zero gives inf or NaN as in numpy."""

_UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""No counting of references: kernels allocate nothing, and whoever calls them holds their arrays; the atomic counters
would take as long as the rest of the work."""


def kernel(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles ``function`` in nopython mode with strict IEEE arithmetic (no fastmath, no contraction).

    It may make views of arrays, but no new ones. ``options`` go to numba.
    """
    return _compiled(function, **_UNCOUNTED, **options)


def counted_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that makes arrays, or takes them out of a struct: their references are counted."""
    return _compiled(function)


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    folder = cache_dir()
    if folder is None:
        return numba.njit(**_NUMPY_ERRORS, **options)(function)
    before = _numba_config.CACHE_DIR
    _numba_config.CACHE_DIR = str(folder)
    try:
        return numba.njit(cache=True, **_NUMPY_ERRORS, **options)(function)
    finally:
        _numba_config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that becomes a part of each kernel that calls it.

    For functions in inner loops that take many arrays: to hand these over costs more than a short body takes.
    """
    return kernel(function, inline="always")
