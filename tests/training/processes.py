"""Processes that tests start by way of Ray, and whether they are gone."""

import contextlib
import time
from pathlib import Path


def is_alive(pid):
    """Whether a process runs or lies about as a zombie."""
    return Path(f"/proc/{pid}").exists()


def gone(pids, wait_s):
    """Whether all of them are gone within a time."""
    until = time.monotonic() + wait_s
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return [pid for pid in pids if is_alive(pid)] == []


def marked(mark, wait_s, beside=()):
    """Processes that were started with a mark in their environment and are still there after a time, but for some."""
    until = time.monotonic() + wait_s
    while (found := [one for one in _marked(mark) if one.split()[0] not in beside]) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _marked(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
    return found
