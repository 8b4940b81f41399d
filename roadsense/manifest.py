"""Dataset manifests: which scenarios a dataset holds, and proof that no byte of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from roadsense.errors import InputMismatchError, ScenarioError, UsageError, explain, nearest

MANIFEST_NAME = "manifest.json"
PARAMS_NAME = "params.json"
SPLITS = ("train", "val", "eval")


_RelativePath = Annotated[str, Field(pattern=r"^[^/\\][^\\]*$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _File(BaseModel):
    path: _RelativePath
    sha256: _Digest
    bytes: int


class _Scenario(BaseModel):
    id: str
    seed: Annotated[int, Field(ge=0)]
    path: _RelativePath
    peer_count: Annotated[int, Field(ge=0)]


class _Manifest(BaseModel):
    """What is read of a manifest; what it holds beside this is for people."""

    schema_version: Literal[1]
    dataset_id: str
    splits: dict[str, list[_Scenario]]
    files: list[_File]
    content_digest: _Digest
    emulator_params: _RelativePath


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree_digest(digests: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over ``"<hex>  <path>\\n"`` lines sorted by path; takes (path, hex) pairs."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset whose manifest was read; ``verify`` re-hashes its files."""

    root: Path
    manifest: dict[str, Any]

    @property
    def dataset_id(self) -> str:
        return str(self.manifest["dataset_id"])

    @property
    def digest(self) -> str:
        """SHA-256 over all files but the manifest."""
        return str(self.manifest["content_digest"])

    @property
    def params_file(self) -> Path:
        return self.root / str(self.manifest["emulator_params"])

    def split(self, name: str) -> list[tuple[str, Path]]:
        """(scenario id, directory) of every scenario of a split, in the manifest's order."""
        splits = self.manifest["splits"]
        if name not in splits:
            raise UsageError(f"{self.root}: has no split {name!r}; {nearest(name, splits)}")
        return [(entry["id"], self.root / entry["path"]) for entry in splits[name]]

    def problems(self) -> list[str]:
        """What differs from the manifest: missing, changed and unlisted files, one sentence each."""
        listed = {entry["path"]: entry for entry in self.manifest["files"]}
        found = []
        for path, entry in listed.items():
            file = self.root / path
            if not file.is_file():
                found.append(f"{file}: is missing, but the manifest lists it")
            elif file_digest(file) != entry["sha256"]:
                found.append(f"{file}: has changed since the dataset was generated")
        present = {p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()}
        found += [
            f"{self.root / path}: is not listed in the manifest" for path in sorted(present - {*listed, MANIFEST_NAME})
        ]
        if tree_digest((path, entry["sha256"]) for path, entry in listed.items()) != self.digest:
            found.append(f"{self.root / MANIFEST_NAME}: its content_digest does not fit its own list of files")
        return found + [f"{self.root / MANIFEST_NAME}: {problem}" for problem in self._split_problems()]

    def _split_problems(self) -> Iterator[str]:
        """Where the splits do not fit the files: the digest is of files alone, so who plays what is proven here."""
        digests: dict[str, list[tuple[str, str]]] = {}
        for entry in self.manifest["files"]:
            split, _, rest = entry["path"].partition("/")
            if split in self.manifest["splits"] or split in SPLITS:
                digests.setdefault(f"{split}/{rest.partition('/')[0]}", []).append((entry["path"], entry["sha256"]))
        named = []
        for split, entries in self.manifest["splits"].items():
            for entry in entries:
                named.append(entry["path"])
                if entry["path"] not in digests or not entry["path"].startswith(f"{split}/"):
                    yield f"split {split!r} names {entry['path']!r}, which is no scenario below {split}/"
                elif "digest" in entry and entry["digest"] != tree_digest(digests[entry["path"]]):
                    yield f"the digest of {entry['path']!r} does not fit its files"
        if not named:
            yield "it names no scenario"
        for path in sorted(digests):
            if named.count(path) != 1:
                yield f"{path!r} stands in {named.count(path)} places of its splits, not in one"

    def verify(self) -> None:
        """Re-hashes every file.

        Raises:
            InputMismatchError: a file was changed, is missing or was added; names it.
        """
        found = self.problems()
        if found:
            more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
            raise InputMismatchError(f"{found[0]}{more}; regenerate the dataset or restore the file.")


def read_dataset(root: str | Path) -> Dataset:
    """Reads the manifest of a dataset directory.

    Raises:
        ScenarioError: there is no manifest, or it is not one.
    """
    folder = Path(root)
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file; give the root of a dataset made by `roadsense generate`.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ScenarioError(f"{path}: cannot be read ({error}).") from None
    try:
        read = _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise ScenarioError(
            f"{path}: is no dataset manifest ({explain(error, _Manifest)}); regenerate the dataset or restore the file."
        ) from None
    for name in (read.emulator_params, *(entry.path for split in read.splits.values() for entry in split)):
        if ".." in Path(name).parts:
            raise ScenarioError(f"{path}: names {name!r}, which lies outside of the dataset; restore the file.")
    return Dataset(root=folder, manifest=manifest)
