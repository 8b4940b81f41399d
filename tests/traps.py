"""Files that leave a trace when somebody unpickles them."""

import base64
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = str(sprung)

    def __reduce__(self):
        return os.mkdir, (self.sprung,)


def write_trapped_zip(path: Path, sprung: Path, like: Path | None = None, only: str | None = None) -> None:
    """A model of Stable-Baselines3 with a trap in every part that it could unpickle.

    Args:
        path: of the zip.
        sprung: the folder that tells of an unpickling.
        like: a model whose other parts are taken over.
        only: the one part that holds a trap; default: all.
    """
    trap, arrays = pickle.dumps(Trap(sprung), protocol=2), io.BytesIO()  # 2 is torch's own
    np.savez(arrays, trap=np.array([Trap(sprung)], object))
    serialized = {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(trap).decode()}
    trapped = {
        "data": json.dumps({"policy_kwargs": serialized}).encode(), "policy.pth": trap,
        "roadsense.npz": arrays.getvalue(),
    }  # fmt: skip
    parts: dict[str, bytes] = {}
    if like is not None:
        with zipfile.ZipFile(like) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    parts |= {name: content for name, content in trapped.items() if only in (None, name)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
