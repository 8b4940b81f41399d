"""Runs a verb as a child, stops it in time, and keeps what it leaves behind, whatever happens."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from roadsense.cloud.budget import Budget, Meter
from roadsense.cloud.ledger import Ledger, new_attempt
from roadsense.cloud.results import Places, keep
from roadsense.cloud.spot import Watch, metadata_url
from roadsense.errors import EXIT_ERROR, EXIT_OK, EXIT_RESUMABLE, RoadsenseError, UsageError

PROGRAM = (sys.executable, "-m", "roadsense")
_TICK_S = 0.1
_OWN_INTERRUPT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class JobConfig(Budget):
    """Runs a verb within caps on hours and money; keeps its runs and datasets in S3, whatever happens."""

    store: str | None = None
    """Where results are kept: s3://BUCKET/PREFIX; none: nowhere but here."""
    used_hours: float = 0.0
    """Hours that this machine has been running for the job already [h]."""
    grace_s: float = 80.0
    """How long the verb has for its last checkpoint before it is killed; a spot machine has 120 s in all [s]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.grace_s <= self.reserve_s:
            raise UsageError(f"--grace-s is {self.grace_s:g}; give 0 to {self.reserve_s:g} s (--reserve-s).")
        if not (math.isfinite(self.used_hours) and self.used_hours >= 0):
            raise UsageError(f"--used-hours is {self.used_hours}; give a number from 0 on.")


class Supervisor:
    """One attempt at a job.

    Args:
        command: the verb and its arguments.
        config: caps, and where results go.
        program: what is put before the command.
        watch: what tells of a spot machine that is taken away.

    Raises:
        RoadsenseError: earlier attempts have used up the caps, or the store does not answer: found before the start.
    """

    def __init__(
        self, command: Sequence[str], config: JobConfig, program: Sequence[str] = PROGRAM, watch: Watch | None = None
    ) -> None:
        self.command, self.config, self.program = list(command), config, list(program)
        self.watch = watch or Watch(metadata_url())
        self.attempt = new_attempt()
        self.places = Places.of(command)
        self._signal: int | None = None
        self._ledger = Ledger(config.store, command) if config.store else None
        self._earlier_hours = before = self._ledger.used_hours() if self._ledger else 0.0
        self.meter = Meter(config, before + config.used_hours)
        if (reason := self.meter.reached()) is not None:
            raise RoadsenseError(
                f"{reason}, by {before:.2f} h of earlier attempts and {config.used_hours:.2f} h of this one; raise it."
            )
        if self._ledger:
            self._ledger.begin(self.attempt, config.max_hours - before)

    def run(self) -> int:
        """Runs the verb to its end, or to the first reason to stop it, and keeps the results.

        Returns:
            The verb's exit code; 75 where it was stopped before it could say one; 1 where results could not be kept.
        """
        worst = f", at worst {self.config.worst_case()}" if self.config.usd_per_hour else ""
        _say(f"{self.attempt}: {shlex.join(self.command)}; at most {self.config.max_hours:g} h{worst}")
        before = self.places.state()
        code, reason = EXIT_ERROR, None
        with self._signals():
            self.watch.start()
            try:
                code, reason = self._attend()
            finally:
                self.watch.stop()
                failed = self._keep(self.places.touched(before), code, reason)
        for one in failed:
            _say(f"not kept: {one}")
        return code if code != EXIT_OK or not failed else EXIT_ERROR

    def _attend(self) -> tuple[int, str | None]:
        """Waits for the verb and stops it where there is a reason; returns its exit code and the reason."""
        child = subprocess.Popen([*self.program, *self.command])
        reason, asked_at, interrupted, killed = None, 0.0, False, False
        while (code := child.poll()) is None:
            now = time.monotonic()
            if reason is None and (reason := self._reason()) is not None:
                asked_at = now
                _say(f"{reason}; the work saves its state and stops")
            # Ctrl-C, and Ray's stop, interrupt every process of a job: a second interrupt would meet it while it saves
            waits = _OWN_INTERRUPT_S if self._signal == signal.SIGINT else 0.0
            if reason is not None and not interrupted and now - asked_at >= waits:
                child.send_signal(signal.SIGINT)
                interrupted = True
            if reason is not None and not killed and now - asked_at >= max(self.config.grace_s, waits):
                _say(f"it did not stop within {self.config.grace_s:g} s and is killed; its last checkpoint counts")
                child.kill()
                killed = True
            time.sleep(_TICK_S)
        if code < 0 and reason is None:
            _say(f"{self.command[0]} was killed by {signal.Signals(-code).name}; too little memory does that")
        return code if code >= 0 else EXIT_ERROR if reason is None else EXIT_RESUMABLE, reason

    def _reason(self) -> str | None:
        if self._signal is not None:
            return f"stopped by {signal.Signals(self._signal).name}"
        return self.watch.notice or self.meter.reached()

    def _keep(self, folders: dict[Path, str], code: int, reason: str | None) -> list[str]:
        if self.config.store is None or self._ledger is None:
            return []
        if not folders:
            looked = ", ".join(map(str, self.places.looked_in()))
            _say(f"nothing was kept, for nothing changed in {looked}; a folder that only a file names is not looked in")
        failed = keep(folders, self.config.store, self.attempt, _say)
        try:
            self._ledger.end(self.attempt, self.meter.hours - self._earlier_hours, code, reason)
        except RoadsenseError as error:
            failed.append(str(error))
        return failed

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT are noted; and both reach the child as they would from a terminal.

        A shell that puts a job in the background ignores SIGINT for it, and Ray blocks it: a child inherits either.
        """

        def note(signum: int, frame: FrameType | None) -> None:
            self._signal = self._signal or signum

        earlier = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, earlier)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for signum, handler in earlier.items():
                signal.signal(signum, handler)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # who read it may have gone, and results are still to be kept
        print(f"roadsense job: {line}", file=sys.stderr, flush=True)
