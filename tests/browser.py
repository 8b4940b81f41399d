"""A headless Chromium for tests of pages, driven over its debugging pipe with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "ROADSENSE_REQUIRE_CHROMIUM"
LIMIT_S = 60.0
"""Longest wait for an answer."""

_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip

_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, " ": 32}
"""Keys that tests press, and their codes."""

_SHIFT = 8


def find_chromium() -> str:
    """Path of Chromium; skips the test where there is none, fails it where ROADSENSE_REQUIRE_CHROMIUM=1 asks for it."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    reason = f"no Chromium is installed (looked for {', '.join(NAMES)})"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 asks for it", pytrace=False)
    pytest.skip(reason)


class Browser:
    """One running Chromium with one tab; see :func:`chromium`.

    Attributes:
        problems: what the page complained about: errors on its console, and exceptions that nobody caught.
        requests: addresses that it asked for, but for ``data:``.
    """

    def __init__(self, send_to: int, read_from: int) -> None:
        self._send_to, self._read_from = send_to, read_from
        self._rest, self._last, self._session = b"", 0, ""
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: list[str] = []
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Result of a command of the DevTools protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send_to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + LIMIT_S
        while self._last not in self._answers:
            self._receive(until)
        answer = self._answers.pop(self._last)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int = 1280, height: int = 800, scale: float = 1.0, dark: bool = False) -> None:
        """Loads a file in a window of this size [CSS pixels] and waits until it has loaded."""
        self.resize(width, height, scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + LIMIT_S
        while "Page.loadEventFired" not in self._events:
            self._receive(until)
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Makes the window as large as this; narrow ones are phones."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 600)  # fmt: skip

    def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression in the page, as JSON can tell it; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{script}: {_told(answer['exceptionDetails'])}"
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What stands in an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, key: str, shift: bool = False) -> None:
        """Presses a key (a name of ``_KEYS``) and lets it go."""
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key],
                  "modifiers": _SHIFT if shift else 0}  # fmt: skip
        text = {"text": " "} if key == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x: float, y: float) -> None:
        """Clicks at a place of the window [CSS pixels]."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, file: Path, whole: bool = False) -> None:
        """Writes a PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        until = time.monotonic() + LIMIT_S
        while not self.evaluate(condition):
            assert time.monotonic() < until, f"never came true: {condition}"
            time.sleep(0.02)

    def _receive(self, until: float) -> None:
        ready, _, _ = select.select([self._read_from], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"Chromium did not answer within {LIMIT_S:g} s"
        data = os.read(self._read_from, 1 << 20)
        assert data, "Chromium has ended"
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.problems.append(_told(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(one.get("value", one)) for one in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])


def _told(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details["text"]))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Runs a Chromium of its own, and ends it."""
    binary = find_chromium()
    pipes = [*os.pipe(), *os.pipe()]
    # Chromium reads from 3 and writes to 4: out of the way of those, so that neither is overwritten by the other.
    ours = [fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in pipes]
    for pipe in pipes:
        os.close(pipe)
    theirs, send_to, read_from, back = ours
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{back}'
        running = subprocess.Popen(
            ["bash", "-c", command, binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs, back), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "HOME": profile},
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        try:
            yield Browser(send_to, read_from)
        finally:
            os.close(send_to)  # whereupon it ends
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
            os.close(read_from)
