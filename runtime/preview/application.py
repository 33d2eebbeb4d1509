"""What the preview answers: the page, pictures over a WebSocket, snapshots, MJPEG, metrics and health."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from derain.errors import UsageError
from derain.runtime.live.run import LiveRun
from derain.runtime.preview.metrics import StreamCollector
from derain.runtime.preview.pictures import VIEWS, Pictures, Shot, View

_PAGE = Path(__file__).parent / "page"
_FILES = {"app.js": "text/javascript", "style.css": "text/css"}
_MOST_VIEWERS = 16
_POLL_SECONDS = 0.02
_ACKNOWLEDGE_SECONDS = 30.0
_MOST_RATE = 30.0


def make_application(run: LiveRun) -> FastAPI:
    """The application around a run; no access control is in it (see :class:`derain.runtime.preview.guard.Guard`)."""
    pictures = Pictures(run)
    registry = CollectorRegistry()
    registry.register(StreamCollector(run))
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    viewers = Viewers()

    @application.get("/")
    def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", media_type="text/html; charset=utf-8")

    @application.get("/static/{name}")
    def static(name: str) -> FileResponse:
        if name not in _FILES:  # a list, so that no path can lead elsewhere
            raise HTTPException(404)
        return FileResponse(_PAGE / name, media_type=f"{_FILES[name]}; charset=utf-8")

    @application.get("/api/streams")
    def streams() -> list[dict[str, Any]]:
        return [report.as_dict() for report in run.reports()]

    @application.get("/api/streams/{name}/{view}.jpg")
    def snapshot(name: str, view: str) -> Response:
        shots = _shots(name, _view(view), full=True)
        headers = {"content-disposition": f'inline; filename="{view}-{shots[0].index}.jpg"'}
        return Response(shots[0].jpeg, media_type="image/jpeg", headers=headers)

    @application.get("/api/streams/{name}/{view}.mjpeg")
    async def mjpeg(name: str, view: str) -> StreamingResponse:
        chosen = _view(view)
        _newest(name)
        if viewers.full:
            raise HTTPException(503, "Too many viewers")
        return StreamingResponse(_parts(name, chosen), media_type="multipart/x-mixed-replace; boundary=frame")

    @application.websocket("/api/streams/{name}/live")
    async def live(socket: WebSocket, name: str) -> None:
        await socket.accept()
        try:
            _newest(name)
        except HTTPException:
            await socket.close(4404)
            return
        if viewers.full:
            await socket.close(4503)
            return
        viewers.count += 1
        try:
            await _show(socket, name)
        except (WebSocketDisconnect, asyncio.TimeoutError, RuntimeError, ValueError):
            pass  # the viewer left, fell asleep, or spoke nonsense
        finally:
            viewers.count -= 1

    @application.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @application.get("/healthz")
    def health() -> Response:
        states = {report.name: report.state for report in run.reports()}
        well = all(state in ("live", "connecting", "ended") for state in states.values())
        body = json.dumps({"ok": well, "streams": states})
        return Response(body, status_code=200 if well else 503, media_type="application/json")

    def _newest(name: str) -> int | None:
        try:
            return pictures.newest(name)
        except UsageError as error:
            raise HTTPException(404, str(error)) from error

    def _shots(name: str, view: View, full: bool = False) -> Any:
        _newest(name)
        shots = pictures.shots(name, (view,), full)
        if shots is None:
            raise HTTPException(503, "No frame has come yet")
        return shots

    async def _fresh(name: str, last: int | None) -> int:
        while (index := pictures.newest(name)) is None or index == last:
            await asyncio.sleep(_POLL_SECONDS)
        return index

    async def _show(socket: WebSocket, name: str) -> None:
        """Send a frame when the viewer has shown the one before: a slow one gets fewer, and nothing piles up."""
        last: int | None = None
        while True:
            # A viewer that leaves while no frame comes must be noticed too, so both are waited for.
            fresh, answer = asyncio.create_task(_fresh(name, last)), asyncio.create_task(socket.receive_text())
            try:
                await asyncio.wait({fresh, answer}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    answer.result()
                    raise ValueError("an acknowledgement without a picture")
                shots = await asyncio.to_thread(pictures.shots, name, ("before", "after"))
                assert shots is not None
                last = shots[0].index
                message = _message(run, name, shots)
                await asyncio.wait_for(socket.send_bytes(message), _ACKNOWLEDGE_SECONDS)
                await asyncio.wait_for(answer, _ACKNOWLEDGE_SECONDS)
            finally:
                fresh.cancel()
                answer.cancel()

    async def _parts(name: str, view: View) -> AsyncIterator[bytes]:
        last: int | None = None
        viewers.count += 1
        try:
            while True:
                await _fresh(name, last)
                shots = await asyncio.to_thread(pictures.shots, name, (view,))
                assert shots is not None
                last = shots[0].index
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(shots[0].jpeg)}\r\n\r\n"
                yield head.encode() + shots[0].jpeg + b"\r\n"
                await asyncio.sleep(1 / _MOST_RATE)
        finally:
            viewers.count -= 1

    return application


class Viewers:
    """How many look at the moment; used in the event loop only."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= _MOST_VIEWERS


def _message(run: LiveRun, name: str, shots: list[Shot]) -> bytes:
    """Three lengths (little-endian, 32 bits), the stream's report as JSON, and the two pictures."""
    report = next(report for report in run.reports() if report.name == name)
    head = json.dumps({"frame": shots[0].index, **report.as_dict()}).encode()
    lengths = struct.pack("<III", len(head), len(shots[0].jpeg), len(shots[1].jpeg))
    return b"".join([lengths, head, shots[0].jpeg, shots[1].jpeg])


def _view(name: str) -> View:
    for view in VIEWS:
        if view == name:
            return view
    raise HTTPException(404)
