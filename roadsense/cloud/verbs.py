"""The verbs ``store`` and ``job``."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from roadsense.errors import UsageError, nearest
from roadsense.options import parse, part_of, parted, subset


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


def job(arguments: list[str], verbs: Collection[str]) -> int | None:
    """Runs a verb on rented machines, within caps on hours and money: run, submit, follow.

    Args:
        arguments: what stands after ``job``.
        verbs: those that can be run so.
    """

    def run(rest: list[str]) -> int:
        """Runs a verb here within caps on hours and money; keeps its results in S3, whatever happens."""
        from roadsense.cloud.supervisor import JobConfig, Supervisor

        own, command = _own_and_command(JobConfig, "job run", rest, verbs)
        return Supervisor(command, parse(JobConfig, "job run", own)).run()

    def submit(rest: list[str]) -> int:
        """Hands a verb to a Ray cluster, follows it, and ends with its exit code."""
        from roadsense.cloud.submit import SubmitConfig, submit

        own, command = _own_and_command(SubmitConfig, "job submit", rest, verbs)
        return submit(command, parse(SubmitConfig, "job submit", own))

    return part_of("job", {"run": run, "submit": submit, "follow": _job_follow}, arguments)


def _job_follow(arguments: list[str]) -> int:
    """Follows a job that was submitted, and ends with its exit code."""
    from roadsense.cloud.submit import FollowConfig, follow

    @dataclass(frozen=True, kw_only=True)
    class Follow(FollowConfig):
        """Follows a job that was submitted, and ends with its exit code."""

        job: tyro.conf.Positional[str]
        """Its id, which `job submit` shows."""

    asked = parse(Follow, "job follow", arguments)
    return follow(asked.job, subset(FollowConfig, asked))


def _own_and_command(
    options: Any, verb: str, arguments: list[str], verbs: Collection[str]
) -> tuple[list[str], list[str]]:
    """Parts the flags of ``options`` from the command: at "--", else by their names, wherever they stand.

    Raises:
        UsageError: the command begins with no verb that can be run.
    """
    if "--" in arguments:
        place = arguments.index("--")
        own, command = arguments[:place], arguments[place + 1 :]
    else:
        own, command = parted(options, arguments)
        while command and command[0] in ("-h", "--help"):
            own.append(command.pop(0))
    if not {"-h", "--help"} & {*own} and (not command or command[0] not in verbs):
        asked = command[0] if command else ""
        raise UsageError(f"{verb} needs a verb to run, not {asked!r}; {nearest(asked, verbs)}")
    return own, command
