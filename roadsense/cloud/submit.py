"""Hands a job to a Ray cluster, follows it, and ends with its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from roadsense.cloud.supervisor import JobConfig
from roadsense.errors import EXIT_ERROR, EXIT_RESUMABLE, RoadsenseError, StoppedError, UsageError
from roadsense.extras import require

_POLL_S = 0.5
_END_WAIT_S = 30.0
_AGENT_WAIT_S = 60.0
"""How long a cluster that has just come up may take until it can start jobs [s]."""
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""In the environment, what Ray's client takes for the address whatever it is told."""


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """Where the cluster's job server is."""

    address: str = "http://127.0.0.1:8265"
    """Of the job server; `ray dashboard cluster/aws.yaml` brings the cluster's one here."""
    allow_remote: bool = False
    """Take an address on another machine, though whoever reaches that port can run anything there."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--address {self.address!r} is no address; give http://127.0.0.1:PORT.")
        if not self.allow_remote and not _is_loopback(parts.hostname):
            raise UsageError(
                f"--address {self.address} is on another machine: whoever reaches Ray's job server, or reads what is"
                " sent to it, can run anything there; bring it here with `ray dashboard`, or give --allow-remote."
            )


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(FollowConfig, JobConfig):
    """Hands a verb to a Ray cluster, to be run there within caps, and follows it; ends with its exit code."""

    cpus: float = 0.0
    """CPUs that the job itself takes: with some it runs on a worker, with 0 on the head."""

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        FollowConfig.__post_init__(self)
        if self.max_usd is not None and (self.max_workers is None or self.worker_usd_per_hour is None):
            raise UsageError(
                "--max-usd holds for the workers of the cluster too; give --max-workers and --worker-usd-per-hour, both"
                " 0 where it has none."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def entrypoint(command: Sequence[str], config: JobConfig) -> str:
    """The command line that runs a verb under supervision on the cluster."""
    words = ["python", "-m", "roadsense", "job", "run"]
    for field in fields(JobConfig):
        value = getattr(config, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--", *command])


@contextlib.contextmanager
def _address_counts() -> Iterator[None]:
    """Hides what would lead Ray's client elsewhere than to ``--address``, which alone was checked and is shown."""
    hidden = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@_address_counts()
def submit(command: Sequence[str], config: SubmitConfig) -> int:
    """Submits a verb, follows its log on stdout, and returns its exit code; see :func:`follow`."""
    client = _client(config.address)
    # The verb saves its state on SIGINT. Ray would send SIGTERM, which ends it at once, and kill it 3 s later.
    ends = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(int(config.reserve_s))}
    job_id = _asked(
        config.address, _submitted, client, entrypoint=entrypoint(command, config), entrypoint_num_cpus=config.cpus,
        runtime_env={"env_vars": ends},
    )  # fmt: skip
    print(f"roadsense: job {job_id} at {config.address}", file=sys.stderr)
    return _follow(client, job_id, config)


def _submitted(client: Any, **job: Any) -> str:
    end = time.monotonic() + _AGENT_WAIT_S
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:  # which Ray raises for whatever the server answers
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(_POLL_S)


@_address_counts()
def follow(job_id: str, config: FollowConfig) -> int:
    """Follows a job's log on stdout until it ends.

    Returns:
        The job's own exit code; 75 where it was stopped from outside, 1 where it never came to run.

    Raises:
        StoppedError: Ctrl-C; the job goes on without being followed.
        RoadsenseError: the job server cannot be reached any more, or knows no such job.
    """
    return _follow(_client(config.address), job_id, config)


def _follow(client: Any, job_id: str, config: FollowConfig) -> int:
    goes_on = f"`roadsense job follow {job_id} --address {config.address}` goes on"
    try:
        asyncio.run(_show(client, job_id))
        info = _ended(client, job_id)
    except KeyboardInterrupt:
        stops = f"`ray job stop --address {config.address} {job_id}` stops it"
        raise StoppedError(f"job {job_id} runs on without being followed; {goes_on}, {stops}.") from None
    except Exception as error:  # of Ray, aiohttp or requests: which one depends on what was under way
        raise RoadsenseError(f"job {job_id} cannot be followed ({_told(error)}); {goes_on}.") from None
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code) if info.driver_exit_code >= 0 else EXIT_ERROR  # below 0: by a signal
    if info.status == "STOPPED":
        print(
            f"roadsense: job {job_id} was stopped; the same command goes on where it saved its state", file=sys.stderr
        )
        return EXIT_RESUMABLE
    print(f"roadsense: job {job_id} did not run: {info.message}", file=sys.stderr)
    return EXIT_ERROR


async def _show(client: Any, job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        print(lines, end="", flush=True)


def _ended(client: Any, job_id: str) -> Any:
    """What the server knows of a job whose log has ended: the log ends a moment before the status is written."""
    end = time.monotonic() + _END_WAIT_S
    while not (info := client.get_job_info(job_id)).status.is_terminal():
        if time.monotonic() > end:
            raise TimeoutError("its log has ended and it has not")
        time.sleep(_POLL_S)
    return info


def _client(address: str) -> Any:
    require("ray")
    from ray.job_submission import JobSubmissionClient

    return _asked(address, JobSubmissionClient, address)


def _asked(address: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception as error:  # of Ray or requests: no server, another one, another version, no token
        raise RoadsenseError(
            f"{address}: no job server answers as it should ({_told(error)}); start a cluster, or reach it by"
            " `ray dashboard`."
        ) from None


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200]
