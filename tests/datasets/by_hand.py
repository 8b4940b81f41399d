"""Datasets made by hand: copies of the straight road, without generating anything."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roadsense._data import params_dir, scenarios_dir
from roadsense.manifest import MANIFEST_NAME, PARAMS_NAME, file_digest, tree_digest


def dataset_of(
    root: Path, splits: Mapping[str, Sequence[str]], *, params: Any = None, unreadable: Sequence[str] = ()
) -> str:
    """Writes a dataset whose manifest fits its files, and returns its root.

    Args:
        root: a folder that is not there yet.
        splits: ids of the scenarios of every split, in the manifest's order.
        params: of the radio; default: ``convoy``.
        unreadable: splits of which no scenario can be read.
    """
    for split, names in splits.items():
        for name in names:
            shutil.copytree(scenarios_dir() / "base" / "straight", root / split / name)
            if split in unreadable:
                (root / split / name / "vehicles.rou.xml").write_text("<routes>")
    params = params or json.loads((params_dir() / "espnow" / "convoy.json").read_text())
    (root / PARAMS_NAME).write_text(json.dumps(params))
    files = {p.relative_to(root).as_posix(): file_digest(p) for p in sorted(root.rglob("*")) if p.is_file()}
    manifest = {
        "schema_version": 1, "dataset_id": root.name, "emulator_params": PARAMS_NAME,
        "content_digest": tree_digest(files.items()),
        "splits": {
            split: [{"id": name, "seed": 0, "path": f"{split}/{name}", "peer_count": 4} for name in names]
            for split, names in splits.items()
        },
        "files": [
            {"path": path, "sha256": digest, "bytes": (root / path).stat().st_size} for path, digest in files.items()
        ],
    }  # fmt: skip
    (root / MANIFEST_NAME).write_text(json.dumps(manifest))
    return str(root)
