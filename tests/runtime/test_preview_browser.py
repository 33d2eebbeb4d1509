"""The page in a real headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from viewers import AFTER, BEFORE, served

pytest.importorskip("fastapi", reason="the extra 'preview' is not installed")
from websockets.sync.client import connect

from derain.images import read_image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]
pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            entry = message.get("params", {}).get("entry", {})
            if message.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
                self.problems.append(json.dumps(message["params"])[:400])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> Any:
        end = time.monotonic() + 60
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (expression, self.problems)
            time.sleep(0.05)
        return found

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def box(self, selector: str) -> list[float]:
        """Left, top, width and height."""
        found: list[float] = self.value(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [b.x, b.y, b.width, b.height]; })()"
        )
        return found

    def click(self, selector: str) -> None:
        left, top, width, height = self.box(selector)
        x, y = left + width / 2, top + height / 2
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def colour(self, share: float) -> list[int]:
        """BGR in the middle of the picture's height, at a share of its width."""
        red, green, blue = self.value(
            f"(() => {{ const c = document.getElementById('picture'); return Array.from(c.getContext('2d')"
            f".getImageData(Math.floor(c.width * {share}), Math.floor(c.height * 0.7), 1, 1).data).slice(0, 3); }})()"
        )
        return [blue, green, red]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(profile: Path, url: str, size: tuple[int, int], phone: bool = False) -> Iterator[Page]:
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        port = next(m[1] for line in process.stderr if (m := re.search(r"listening on ws://[^:]+:(\d+)/", line)))
        import httpx

        targets = httpx.get(f"http://127.0.0.1:{port}/json", timeout=30).json()
        target = next(entry for entry in targets if entry["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Page(socket)
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=size[0],
                height=size[1],
                deviceScaleFactor=2 if phone else 1,
                mobile=phone,
            )
            page.call("Page.navigate", url=url)
            yield page
    finally:
        process.terminate()
        process.wait(20)


def near(found: list[int], wanted: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 12


def arrived(folder: Path, pattern: str) -> NDArray[np.uint8]:
    """A picture that the browser downloads; it has its name when it is whole."""
    end = time.monotonic() + 60
    while not (files := list(folder.glob(pattern))):
        assert time.monotonic() < end, [path.name for path in folder.iterdir()]
        time.sleep(0.05)
    return read_image(files[0])


def save(page: Page, tmp_path: Path, name: str) -> None:
    """Into $DERAIN_SCREENSHOTS, where a person can look at them."""
    folder = Path(os.environ.get("DERAIN_SCREENSHOTS", tmp_path))
    page.screenshot(folder / name)
    assert (folder / name).stat().st_size > 5000


def test_divider_pause_streams(tmp_path: Path) -> None:
    with served() as (_, server), browser(tmp_path / "profile", server.url, (1000, 900)) as page:
        page.until("document.getElementById('picture').dataset.frame > 2")
        assert page.value("document.querySelectorAll('#streams button').length") == 2
        assert near(page.colour(0.25), BEFORE)
        assert near(page.colour(0.75), AFTER)
        box = page.box("#stage")
        middle = box[1] + box[3] / 2
        page.mouse("mousePressed", box[0] + box[2] / 2, middle)
        for step in range(1, 9):
            page.mouse("mouseMoved", box[0] + box[2] * (0.5 - 0.05 * step), middle)
        page.mouse("mouseReleased", box[0] + box[2] * 0.1, middle)
        page.until("document.getElementById('divider').value < 150")
        assert near(page.colour(0.25), AFTER)
        assert near(page.colour(0.05), BEFORE)
        page.until("document.getElementById('rain-text').textContent === 'rain 0.42'")
        assert page.value("document.getElementById('figures').textContent").startswith("statelive")
        save(page, tmp_path, "desktop.png")
        page.click("#pause")
        time.sleep(0.3)
        held = page.value("document.getElementById('picture').dataset.frame")
        time.sleep(0.5)
        assert page.value("document.getElementById('picture').dataset.frame") == held
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.click("#snapshot")
        still = arrived(tmp_path, f"front-{held}.jpg")
        assert still.shape == (180, 320, 3)
        assert near(still[90, 160].tolist(), AFTER)
        page.click("#pause")
        page.click("#snapshot")
        assert near(arrived(tmp_path, "after-*.jpg")[90, 160].tolist(), AFTER)
        page.until(f"document.getElementById('picture').dataset.frame > {held}")
        page.click("#streams button:last-child")
        page.until("document.getElementById('picture').width === 240")
        page.until("document.getElementById('picture').getBoundingClientRect().height <= 0.79 * innerHeight")
        box = page.box("#stage")
        assert 0.95 < box[2] / box[3] < 1.05, "the divider's range is as wide as the picture"
        page.mouse("mousePressed", box[0] + 0.3 * box[2], box[1] + box[3] / 2)
        page.mouse("mouseReleased", box[0] + 0.3 * box[2], box[1] + box[3] / 2)
        page.until("Math.abs(document.getElementById('divider').value - 300) < 30")
        assert page.value("document.getElementById('snapshot').href").endswith("/api/streams/rear/after.jpg")
        assert page.problems == []


def test_a_phone(tmp_path: Path) -> None:
    with served(token="abc") as (_, server), browser(tmp_path / "profile", server.url, (390, 844), phone=True) as page:
        page.until("document.getElementById('picture').dataset.frame > 2")
        assert page.value("document.documentElement.scrollWidth") <= 390, "nothing is wider than the screen"
        save(page, tmp_path, "phone.png")
        assert page.problems == []


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    with served() as (_, server), browser(tmp_path / "profile", server.url, (800, 700)) as page:
        page.until("document.getElementById('picture').dataset.frame > 2")
        server.stop()
        page.until("document.getElementById('note').textContent.includes('trying again')")
