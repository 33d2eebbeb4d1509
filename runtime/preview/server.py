"""The preview's web server, in a thread of its own beside the pipeline."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from derain.errors import MediaError, MissingDependencyError, UsageError
from derain.runtime.live.run import LiveRun
from derain.runtime.preview.guard import Guard

if TYPE_CHECKING:
    import asyncio

_MOST_CONNECTIONS = 64
_REQUEST_SECONDS = 10.0
_STOP_SECONDS = 5.0
_BACKLOG = 2048


class PreviewServer:
    """Serves the page of a run. It only reads the newest results: a slow viewer never slows the pipeline.

    Args:
        run: what is shown.
        host: name or address to listen on.
        port: 0 for any free one.
        token: what viewers must show; None lets everybody on this machine in, and nobody else.

    Raises:
        MissingDependencyError: the extra ``preview`` is not installed.
        UsageError: the token has characters that an address or a header cannot carry.
        MediaError: on starting: the address is taken.
    """

    def __init__(self, run: LiveRun, host: str = "127.0.0.1", port: int = 8270, token: str | None = None) -> None:
        try:
            import uvicorn

            from derain.runtime.preview.application import make_application
        except ImportError as error:
            package = (error.name or "fastapi").partition(".")[0]
            raise MissingDependencyError(package, needed_for="The preview", extra="preview") from error
        if token is not None and not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
            raise UsageError("The token cannot stand in an address", expected="letters, digits, and - . _ ~")
        self._host, self._port, self._token = host, port, token
        config = uvicorn.Config(
            Guard(make_application(run), token),
            host=host,
            port=port,
            log_level="error",
            access_log=False,
            http=_limited_protocol(),
            ws="websockets-sansio",
            ws_max_size=1024,
            ws_max_queue=4,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=15,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="derain-preview", daemon=True)

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        query = "" if self._token is None else f"?token={quote(self._token)}"
        return f"http://{host}:{self._port}/{query}"

    def start(self) -> None:
        """Listen; returns when pages can be opened.

        Raises:
            MediaError: the address cannot be had.
        """
        import socket

        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            listening.listen(_BACKLOG)  # from now on the system takes connections, and the thread answers them
        except OSError as error:
            listening.close()
            raise MediaError(
                f"The preview cannot listen on {self._host}:{self._port} ({error.strerror or error})",
                fix="Give another --preview-address",
            ) from error
        self._port = listening.getsockname()[1]
        self._socket = listening
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the thread; does nothing before :meth:`start`."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
            self._socket.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


def _limited_protocol() -> type[asyncio.Protocol]:
    """HTTP that ends connections beyond a number, and those that do not ask for anything in time."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._waiting = None
            if len(self.connections) > _MOST_CONNECTIONS:
                transport.abort()
                return
            self._waiting = self.loop.call_later(_REQUEST_SECONDS, self._end_if_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
            super().connection_lost(exc)

        def _end_if_idle(self) -> None:
            upgraded = self.transport.get_protocol() is not self  # to a WebSocket
            if self.cycle is None and not upgraded and not self.transport.is_closing():
                self.transport.abort()

    return LimitedProtocol
