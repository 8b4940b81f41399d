"""Ray, started or joined for one training, with a limit on how long that may take."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from roadsense.errors import RoadsenseError, UsageError
from roadsense.extras import require

REACH_LIMIT_S = 5.0
"""How long a port may take to accept a connection [s]."""
JOIN_LIMIT_S = 30.0
"""How long a cluster may take to let this process in [s]; Ray itself waits for two minutes and cannot be stopped."""
_STORE_BYTES = 512 * 2**20
"""Shared memory of a Ray of one's own, which would take a third of all; a rollout is a few megabytes."""

_PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def check_address(address: str, *words: str) -> None:
    """Refuses what cannot be an address.

    Args:
        address: ``auto`` or ``host:port``.
        words: that may stand for it too.

    Raises:
        UsageError: it is none of these.
    """
    host, _, port = address.rpartition(":")
    known = (*words, "auto")
    if address not in known and not (host and port.isdigit() and "/" not in host):
        raise UsageError(
            f"ray_address is {address!r}; it must be {', '.join(known)} or host:port, as `ray start --head` prints it."
        )


@contextlib.contextmanager
def running_ray(processes: int, address: str | None = None) -> Iterator[None]:
    """Ray for what is inside: one of this process alone that is gone afterwards, or a cluster.

    One that the caller has started or joined is used and left running, whatever the arguments.

    Args:
        processes: that a Ray of one's own has room for.
        address: of a cluster, ``auto`` for the one that this machine belongs to; None starts one of one's own.

    Raises:
        RoadsenseError: Ray is not installed, or nothing answers there in time.
        UsageError: it is no address.
    """
    require("ray")
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a training tells nobody that it runs
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init("local", num_cpus=processes, object_store_memory=_STORE_BYTES, include_dashboard=False, **quiet)
    else:
        check_address(address)
        if address != "auto":
            _reach(address)
        _probe(address)
        ray.init(address, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, f"{error}" or type(error).__name__, REACH_LIMIT_S) from None


def _probe(address: str) -> None:
    """Joins in a process that can be ended."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, timeout=JOIN_LIMIT_S, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _unreachable(address, "no cluster answered", JOIN_LIMIT_S) from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise _unreachable(address, said[-1].rstrip(".") if said else f"exit code {done.returncode}", JOIN_LIMIT_S)


def _unreachable(address: str, why: str, limit_s: float) -> RoadsenseError:
    return RoadsenseError(
        f"ray_address {address}: no Ray cluster was reached within {limit_s:g} s ({why}); start one with "
        "`ray start --head`, or leave ray_address out."
    )
