"""The notice that a spot machine is given two minutes before it is taken away (EC2's metadata service, version 2)."""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request

TOKEN_PATH = "/latest/api/token"
ACTION_PATH = "/latest/meta-data/spot/instance-action"
_TOKEN_TTL_S = 21600
_TIMEOUT_S = 2.0


def metadata_url() -> str | None:
    """Where the metadata service answers; None where it is switched off, by the variables that AWS's own tools read."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    return os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")


class SpotNotice:
    """Asks whether this machine is about to be taken away.

    Args:
        url: of the metadata service.
    """

    def __init__(self, url: str) -> None:
        self._url, self._token = url, ""
        # never by a proxy: the address is the machine's own
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def poll(self) -> str | None:
        """The notice as a sentence; None without one, and where no such service answers."""
        for _ in range(2):
            try:
                if not self._token:
                    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
                    self._token = self._read(TOKEN_PATH, ttl, "PUT")
                return _notice(self._read(ACTION_PATH, {"X-aws-ec2-metadata-token": self._token}, "GET"))
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 401:  # 404 is the usual answer: no notice
                    return None
                self._token = ""  # it has run out
            except (OSError, ValueError, http.client.HTTPException):  # no such service, or a slow one: asked again
                return None
        return None

    def _read(self, path: str, headers: dict[str, str], method: str) -> str:
        request = urllib.request.Request(self._url + path, headers=headers, method=method)
        with self._open(request, timeout=_TIMEOUT_S) as answer:
            return str(answer.read(4096).decode("utf-8", "replace"))


def _notice(answer: str) -> str | None:
    try:
        stated = json.loads(answer)
        action, when = stated["action"], stated["time"]
    except (ValueError, KeyError, TypeError):  # it exists only once there is a notice
        action, when = "be taken away", "an unknown time"
    return None if action == "none" else f"this spot machine will {action} at {when}"


class Watch(threading.Thread):
    """Asks for the notice every few seconds, beside the work.

    Args:
        url: of the metadata service; None asks nobody.
        every_s: between two questions [s].

    Attributes:
        notice: what was answered, or None.
    """

    def __init__(self, url: str | None, every_s: float = 5.0) -> None:
        super().__init__(name="spot-notice", daemon=True)
        self.notice: str | None = None
        self._asked = SpotNotice(url) if url else None
        self._every_s, self._over = every_s, threading.Event()

    def run(self) -> None:
        """Asks until there is a notice, or ``stop``."""
        while self._asked is not None and self.notice is None:
            self.notice = self._asked.poll()
            if self._over.wait(self._every_s):
                return

    def stop(self) -> None:
        """Ends it; waits for a question that is under way."""
        self._over.set()
        self.join(2 * _TIMEOUT_S + 1)
