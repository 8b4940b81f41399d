"""Files that are either whole or not there: written beside, then renamed."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` in one piece.

    Raises:
        RoadsenseError: the folder cannot be written or the disk is full; an older file is left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise cannot_write(path, error) from None
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def refuse_unwritable(path: Path) -> None:
    """Refuses a folder or file that could not be written; makes nothing.

    Raises:
        RoadsenseError: no folder on the way to it can be written.
    """
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if existing == path and not path.is_dir():
        existing = path.parent  # a file, which would be replaced
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = errno.EACCES if existing.is_dir() else errno.ENOTDIR
        raise cannot_write(path, OSError(reason, os.strerror(reason)))


def cannot_write(path: Path, error: OSError) -> RoadsenseError:
    """The error for a file that could not be written, with what to do about it."""
    reason = error.strerror or str(error)
    return RoadsenseError(f"{path}: cannot be written ({reason}); free space or choose a folder you may write to.")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8 in one piece; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document in one piece; NaN and infinity are refused, because JSON has none."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def json_number(value: float) -> float | None:
    """The number, or None where JSON has none for it: NaN and infinity."""
    return float(value) if math.isfinite(value) else None
