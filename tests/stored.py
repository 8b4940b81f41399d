"""Small finished runs and datasets, made without an engine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from roadsense.files import write_bytes, write_json
from roadsense.manifest import tree_digest
from roadsense.runs import COMPLETE, RunFolder


def make_run(path: Path) -> RunFolder:
    """A finished run with files in folders, one of them empty."""
    run = RunFolder(path)
    write_json(path / "config.json", {"seed": 7})
    write_bytes(path / "checkpoints" / "last.zip", bytes(range(256)) * 40)
    write_bytes(path / "empty.txt", b"")
    run.set_status(COMPLETE)
    run.write_checksums()
    return run


def make_dataset(root: Path) -> Path:
    """A dataset of one scenario whose files say nothing."""
    files = {"params.json": b"{}", "train/a/scenario.sumocfg": b"<a/>"}
    for name, data in files.items():
        write_bytes(root / name, data)
    entries = [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    ]
    write_json(root / "manifest.json", {
        "schema_version": 1, "dataset_id": root.name, "files": entries, "emulator_params": "params.json",
        "splits": {"train": [{"id": "a", "seed": 0, "path": "train/a", "peer_count": 1}]},
        "content_digest": tree_digest((entry["path"], entry["sha256"]) for entry in entries),
    })  # fmt: skip
    return root
