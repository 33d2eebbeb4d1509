"""The preview's server: what it shows, whom it refuses, and what it withstands."""

from __future__ import annotations

import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from viewers import AFTER, BEFORE, served

pytest.importorskip("fastapi", reason="the extra 'preview' is not installed")
import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from derain.errors import MediaError, UsageError
from derain.runtime.live.run import LiveRun
from derain.runtime.preview.server import PreviewServer

Served = tuple[LiveRun, PreviewServer]


@pytest.fixture(scope="module")
def opened() -> Iterator[Served]:
    with served() as pair:
        yield pair


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with served(token="s3cret-taken") as pair:
        yield pair


def base(server: PreviewServer) -> str:
    parts = urlsplit(server.url)
    return f"http://{parts.netloc}"


def colour(jpeg: bytes) -> Any:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.median(picture.reshape(-1, 3), axis=0)


def unpack(message: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    head, before, after = struct.unpack_from("<III", message)
    assert len(message) == 12 + head + before + after
    return (
        json.loads(message[12 : 12 + head]),
        message[12 + head : 12 + head + before],
        message[12 + head + before :],
    )


def test_the_page_and_its_files(opened: Served) -> None:
    with httpx.Client(base_url=base(opened[1])) as client:
        for path, kind in (
            ("/", "text/html"),
            ("/static/app.js", "text/javascript"),
            ("/static/style.css", "text/css"),
        ):
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "set-cookie" not in answer.headers
            assert "server" not in answer.headers


def test_streams_and_snapshots(opened: Served) -> None:
    with httpx.Client(base_url=base(opened[1])) as client:
        front, rear = client.get("/api/streams").json()
        assert (front["name"], front["size"], front["rain"]) == ("front", [320, 180], 0.42)
        assert rear["size"] == [240, 240]
        before = client.get("/api/streams/rear/before.jpg")
        assert before.headers["content-type"] == "image/jpeg"
        assert np.abs(colour(before.content) - BEFORE).max() < 6
        assert np.abs(colour(client.get("/api/streams/rear/after.jpg").content) - AFTER).max() < 6
        assert np.abs(colour(client.get("/api/streams/rear/rain.jpg").content) - 128).max() < 4


def test_metrics_and_health(opened: Served) -> None:
    with httpx.Client(base_url=base(opened[1])) as client:
        text = client.get("/metrics").text
        assert 'derain_rain_intensity{stream="front"} 0.42' in text
        assert 'derain_stream_state{state="live",stream="rear"} 1.0' in text
        assert 'derain_frames_total{stage="delivered",stream="front"}' in text
        health = client.get("/healthz")
        assert health.status_code == 200
        assert health.json() == {"ok": True, "streams": {"front": "live", "rear": "live"}}


def test_live_pictures_wait_for_the_viewer(opened: Served) -> None:
    run, server = opened
    with connect(f"{base(server).replace('http', 'ws')}/api/streams/front/live") as socket_:
        frames = []
        for _ in range(4):
            report, before, after = unpack(socket_.recv(timeout=10))  # type: ignore[arg-type]
            frames.append(report["frame"])
            assert np.abs(colour(before) - BEFORE).max() < 6
            assert np.abs(colour(after) - AFTER).max() < 6
            socket_.send("shown")
        assert frames == sorted(set(frames))
        report, *_ = unpack(socket_.recv(timeout=10))  # type: ignore[arg-type]
        delivered = run.reports()[0].delivered
        with pytest.raises(TimeoutError):
            socket_.recv(timeout=0.5)  # nothing was acknowledged, so nothing comes
        assert run.reports()[0].delivered > delivered, "the pipeline does not wait for the viewer"
        socket_.send("shown")
        later, *_ = unpack(socket_.recv(timeout=10))  # type: ignore[arg-type]
        assert later["frame"] > report["frame"] + 1, "the newest frame, not the next one"


def test_mjpeg(opened: Served) -> None:
    with (
        httpx.Client(base_url=base(opened[1]), timeout=20) as client,
        client.stream("GET", "/api/streams/front/after.mjpeg") as answer,
    ):
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        data = b""
        for chunk in answer.iter_raw():
            data += chunk
            if data.count(b"--frame") > 3:
                break
    assert np.abs(colour(data.split(b"\r\n\r\n", 1)[1].split(b"\r\n--frame")[0]) - AFTER).max() < 6


def test_nobody_looks_nothing_is_encoded(opened: Served) -> None:
    assert opened[0].reports()[0].rate > 5


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/static/../server.py", 404),
        ("/static/..%2fserver.py", 404),
        ("/static/%2e%2e%2f%2e%2e%2fmodel.py", 404),
        ("/static//etc/passwd", 404),
        ("/api/streams/none/after.jpg", 404),
        ("/api/streams/front/inside.jpg", 404),
        ("/api/streams/none/after.mjpeg", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
        ("/" + "a" * 5000, 404),
    ],
)
def test_paths_that_lead_nowhere(opened: Served, path: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(base(opened[1])).port)) as raw:  # type: ignore[arg-type]
        raw.settimeout(10)
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status}".encode()), answer[:80]
    assert b"import" not in answer


def test_bodies_methods_and_foreign_names_are_refused(opened: Served) -> None:
    with httpx.Client(base_url=base(opened[1])) as client:
        assert client.post("/").status_code == 405
        assert client.request("GET", "/", content=b"x" * 100).status_code == 413
        assert client.request("GET", "/", content=iter([b"x" * 100])).status_code == 413
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/", headers={"host": "[::1"}).status_code == 421
    url = f"{base(opened[1]).replace('http', 'ws')}/api/streams/front/live"
    with pytest.raises(InvalidStatus) as caught, connect(url, origin="https://evil.example"):  # type: ignore[arg-type]
        pass
    assert caught.value.response.status_code == 403
    with connect(url.replace("front", "none")) as socket_, pytest.raises(ConnectionClosed):
        socket_.recv(timeout=5)
    with connect(url) as socket_:
        socket_.recv(timeout=5)
        socket_.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            list(socket_)


def test_a_token_is_needed_where_one_is_set(guarded: Served) -> None:
    url = base(guarded[1])
    assert httpx.get(f"{url}/healthz").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "derain_token=wrong"}, {"cookie": '";=,\\x'}):
        assert httpx.get(f"{url}/api/streams", headers=headers).status_code == 401
    assert httpx.get(f"{url}/?token=wrong").status_code == 401
    ws = f"{url.replace('http', 'ws')}/api/streams/front/live"
    with pytest.raises(InvalidStatus), connect(ws):
        pass
    with httpx.Client(base_url=url) as client:
        assert client.get(f"/?{urlsplit(guarded[1].url).query}").status_code == 200
        assert client.get("/api/streams").status_code == 200, "the cookie is enough from then on"
    with connect(f"{ws}?{urlsplit(guarded[1].url).query}") as socket_:
        assert socket_.recv(timeout=10)


def is_closed(raw: socket.socket) -> bool:
    raw.setblocking(False)
    try:
        return raw.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("connections", [400, pytest.param(1000, marks=pytest.mark.full)])
def test_many_connections_are_cut_off_and_the_page_stays_up(opened: Served, connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * connections)), hard))
    run, server = opened
    port = urlsplit(base(server)).port
    delivered = run.reports()[0].delivered
    held = []
    for _ in range(connections):
        raw = socket.socket()
        raw.settimeout(5)
        try:
            raw.connect(("127.0.0.1", port))
        except OSError:
            raw.close()
            continue
        held.append(raw)
    end = time.monotonic() + 30
    while (closed := sum(map(is_closed, held))) < len(held) - 70 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(held) > 0.9 * connections
    assert closed >= len(held) - 70
    for raw in held:
        raw.close()
    with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
        assert client.get(f"{base(server)}/healthz").status_code == 200
    assert run.reports()[0].delivered > delivered


def test_an_address_that_is_taken(opened: Served) -> None:
    port = urlsplit(base(opened[1])).port
    with pytest.raises(MediaError, match="cannot listen"):
        PreviewServer(opened[0], "127.0.0.1", port or 0).start()


def test_a_token_that_no_header_can_carry(opened: Served) -> None:
    for token in ("", "two words", "sémantic"):
        with pytest.raises(UsageError, match="token"):
            PreviewServer(opened[0], token=token)


def test_stopping_before_the_start(opened: Served) -> None:
    PreviewServer(opened[0], "127.0.0.1", 0).stop()
