"""What earlier attempts of a job have used of its caps, kept in the store, where nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import time
from collections.abc import Sequence
from typing import Any

from roadsense.bucket import Bucket
from roadsense.errors import InputMismatchError

_BEGUN, _ENDED = ".begun.json", ".ended.json"


def new_attempt() -> str:
    """A name that no other attempt has, and that sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


class Ledger:
    """The account of one job: the same command is the same job, on whatever machine it goes on.

    Args:
        store: ``s3://bucket/prefix``; the account lies in ``jobs/`` below it.
        command: the verb and its arguments.
    """

    def __init__(self, store: str, command: Sequence[str]) -> None:
        self._command = shlex.join(command)
        self.job = hashlib.sha256(self._command.encode()).hexdigest()[:12]
        self._bucket = Bucket(f"{store.rstrip('/')}/jobs/{self.job}")

    def used_hours(self) -> float:
        """Hours of all attempts; one that left no account counts with all that it was allowed [h].

        Raises:
            InputMismatchError: an entry is no account.
            RoadsenseError: the store cannot be read.
        """
        names, hours = self._bucket.names(), 0.0
        for name in names:
            attempt = name.removesuffix(_BEGUN)
            if name.endswith(_BEGUN):
                ended = f"{attempt}{_ENDED}"
                hours += self._hours(ended if ended in names else name)
        return hours

    def _hours(self, name: str) -> float:
        try:
            return float(json.loads(self._bucket.fetch(name))["hours"])
        except (ValueError, KeyError, TypeError):
            raise InputMismatchError(
                f"{self._bucket.url}/{name}: is no account of an attempt; remove it if its hours need not count."
            ) from None

    def begin(self, attempt: str, hours: float) -> None:
        """Opens the account of an attempt, which may take so many hours."""
        self._write(attempt + _BEGUN, {"command": self._command, "hours": hours})

    def end(self, attempt: str, hours: float, exit_code: int, reason: str | None) -> None:
        """Closes it: how many hours it took, how it ended, and what stopped it."""
        self._write(attempt + _ENDED, {"hours": hours, "exit_code": exit_code, "stopped": reason})

    def _write(self, name: str, document: dict[str, Any]) -> None:
        self._bucket.put_new(name, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
