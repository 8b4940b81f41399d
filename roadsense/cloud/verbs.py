"""The verb ``store``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from roadsense.options import parse, part_of


@dataclass(frozen=True, kw_only=True)
class Put:
    """Uploads a finished run or a dataset to S3, where nothing is ever overwritten; prints the address."""

    folder: tyro.conf.Positional[Path]
    """The run folder, or the root of the dataset."""
    url: tyro.conf.Positional[str]
    """s3://BUCKET/PREFIX, which becomes the folder."""
    as_it_is: bool = False
    """Take any folder as it is at the moment: a run that was stopped."""


@dataclass(frozen=True, kw_only=True)
class Get:
    """Fetches a run or a dataset from S3 into a new folder and verifies it; prints the folder."""

    url: tyro.conf.Positional[str]
    """s3://BUCKET/PREFIX, as it was uploaded to."""
    folder: tyro.conf.Positional[Path]
    """Where it shall be."""


@dataclass(frozen=True, kw_only=True)
class ListStore:
    """Lists what lies in S3 below a prefix: bytes and name."""

    url: tyro.conf.Positional[str]
    """s3://BUCKET/PREFIX."""


def _store_put(arguments: list[str]) -> None:
    """Uploads a finished run or a dataset to S3."""
    asked = parse(Put, "store put", arguments)
    from roadsense.storage import upload

    print(f"{asked.folder}: {upload(asked.folder, asked.url, as_it_is=asked.as_it_is)}", file=sys.stderr)
    print(asked.url)


def _store_get(arguments: list[str]) -> None:
    """Fetches a run or a dataset from S3, and verifies it."""
    asked = parse(Get, "store get", arguments)
    from roadsense.storage import download

    print(f"{asked.url}: {download(asked.url, asked.folder)}", file=sys.stderr)
    print(asked.folder)


def _store_list(arguments: list[str]) -> None:
    """Lists what lies in S3 below a prefix."""
    asked = parse(ListStore, "store list", arguments)
    from roadsense.storage import listing

    for name, size in listing(asked.url).items():
        print(f"{size:12} {name}")


def store(arguments: list[str]) -> int | None:
    """Runs and datasets to and from S3: put, get, list; nothing is overwritten, and all is verified."""
    return part_of("store", {"put": _store_put, "get": _store_get, "list": _store_list}, arguments)
