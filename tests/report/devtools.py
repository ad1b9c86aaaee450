"""A page in headless Chromium, driven through its DevTools protocol: real keys, print, a phone, no
scripts. It needs no other library: the messages go through two pipes.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.report.browser import TIMEOUT_S, chromium

# Virtual key codes; the browser moves the focus and presses buttons only if it gets one.
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
TEXTS = {"Enter": "\r", " ": " "}
SHIFT = 8


class OpenPage:
    """A page that Chromium shows."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        self._orders, self._answers = orders, answers
        self._number, self._session = 0, ""
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        attached = self.order("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def order(self, method: str, **values: Any) -> Any:
        """Sends a command of the protocol and returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        self._orders.write(json.dumps(message).encode() + b"\0")
        self._orders.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self) -> Any:
        found = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            found += byte
        return json.loads(found)

    def show(
        self, page: Path, *, width: int = 1300, dark: bool = False, media: str = "screen"
    ) -> None:
        """Loads a page in a window of this width, in CSS pixels."""
        self.order(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=1000, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.order("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.order("Page.navigate", url=page.resolve().as_uri())
        ended = time.monotonic() + TIMEOUT_S
        while (
            self.run("return document.readyState + location.pathname")
            != f"complete{page.resolve().as_uri().removeprefix('file://')}"
        ):
            assert time.monotonic() < ended, f"{page.name} does not load"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """Runs the body of an async JavaScript function; returns what it returns."""
        found = self.order(
            "Runtime.evaluate", expression=f"(async () => {{ {script} \n}})()",
            awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str, shift: bool = False) -> None:
        """Presses keys of the keyboard."""
        for key in keys:
            about = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
            about["modifiers"] = SHIFT if shift else 0
            text = {"text": TEXTS.get(key, key)} if key in TEXTS or len(key) == 1 else {}
            self.order("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.order("Input.dispatchKeyEvent", type="keyUp", **about)


@contextmanager
def open_page(folder: Path) -> Iterator[OpenPage]:
    """Starts Chromium with its profile in a folder; skips the test where there is none."""
    order_read, order_write = os.pipe()
    answer_read, answer_write = os.pipe()
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip
    # Chromium reads commands from descriptor 3 and writes answers to 4.
    script = f'exec "$@" 3<&{order_read} 4>&{answer_write}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(order_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(order_read)
    os.close(answer_write)
    try:
        with os.fdopen(order_write, "wb") as orders, os.fdopen(answer_read, "rb") as answers:
            yield OpenPage(orders, answers)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
