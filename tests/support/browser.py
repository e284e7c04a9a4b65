"""A headless Chromium, spoken to through a pipe by its DevTools protocol: the standard library is enough for it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PATIENCE = 60.0
"""Seconds that an answer may take: a machine that is busy starts a browser slowly."""


def find_chromium() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserError(RuntimeError):
    """The browser died, or refused a command."""


@dataclass
class Browser:
    """One process of the browser; a context manager.

    Args:
        executable: from `find_chromium`.
        profile: an empty folder for what the browser keeps.
    """

    executable: str
    profile: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _rest: bytes = b""

    def __enter__(self) -> Browser:
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()
        arguments = [
            self.executable, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars",
            f"--user-data-dir={self.profile}", "about:blank",
        ]  # fmt: skip
        log = os.open(self.profile.with_suffix(".log"), os.O_CREAT | os.O_WRONLY)
        # Commands are read from descriptor 3 and answers written to 4; its own helpers die with its session.
        inherited = [
            (os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((commands_out, 3), (answers_in, 4), (log, 1), (log, 2))
        ]
        self._process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=inherited, setsid=True)
        for fd in (commands_out, answers_in, log):
            os.close(fd)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Give a command and wait for its answer; what the browser tells meanwhile goes to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def wait_for(self, event: str, session: str) -> None:
        """Wait until the browser has told of an event."""
        while not any(one.get("method") == event and one.get("sessionId") == session for one in self.events):
            self.events.append(self._read(event))

    def _read(self, wanted: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._answers, 1 << 20) if ready else b""
            if not more:
                said = self.profile.with_suffix(".log").read_text(errors="replace")[-2000:]
                raise BrowserError(f"no answer to {wanted}; the browser said: {said}")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(
        self, path: Path, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "screen"
    ) -> Page:
        """Open a file in a window of its own, and wait until it is loaded.

        Args:
            path: an HTML file.
            width: of the window; below 600 it is a phone's, which has no pointer to hover with.
            height: of the window.
            scheme: `light` or `dark`, as the reader prefers.
            media: `screen` or `print`.
        """
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        page.send("Emulation.setEmulatedMedia", media=media, features=features)
        page.send("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired", session)
        return page


@dataclass(frozen=True)
class Page:
    """One open page."""

    browser: Browser
    session: str
    target: str

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command that concerns this page."""
        return self.browser.send(method, self.session, **parameters)

    def run(self, script: str) -> Any:
        """A JavaScript expression's value; what it throws is raised."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"].get("exception", answer["exceptionDetails"])))
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until what was done is drawn, and what follows from it (scrolling) has been told."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, path: Path, whole: bool = False) -> bytes:
        """Write what is seen, or the page from top to bottom, as PNG."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        image = base64.b64decode(answer["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        return image

    def printed(self, path: Path) -> bytes:
        """Write the page as PDF."""
        pdf = base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])
        path.write_bytes(pdf)
        return pdf

    def pointer_at(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, name: str) -> None:
        """Press a key such as `ArrowRight`."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def close(self) -> None:
        """Close it."""
        self.browser.send("Target.closeTarget", targetId=self.target)

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and what the content policy has blocked."""
        found = []
        for name, own in self._events:
            if name == "Runtime.exceptionThrown":
                found.append(str(own["exceptionDetails"]))
            elif name == "Runtime.consoleAPICalled" and own["type"] in ("error", "warning", "assert"):
                found.append(str(own["args"]))
            elif name == "Log.entryAdded" and own["entry"]["level"] in ("error", "warning"):
                found.append(own["entry"]["text"])
        return found

    @property
    def requests(self) -> list[str]:
        """What the page asked for, itself included."""
        return [own["request"]["url"] for name, own in self._events if name == "Network.requestWillBeSent"]

    @property
    def _events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        own = (one for one in self.browser.events if one.get("sessionId") == self.session)
        return [(one["method"], one["params"]) for one in own]
