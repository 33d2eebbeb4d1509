"""Who may see the page, and how much a client may ask of the server."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "derain_token"
_LOCAL = {"127.0.0.1", "localhost", "::1"}
# Nothing is fetched from elsewhere, nothing may frame the page, and only its own script runs.
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """Wraps an application: refuses strangers, other hosts' names, other sites' sockets, other methods and bodies.

    Args:
        application: what is protected.
        token: what a client must show, as ``?token=``, ``Authorization: Bearer`` or cookie; None: none is needed, and
            then only requests to a local name are answered, so that no web page can reach in through the browser.
    """

    def __init__(self, application: Application, token: str | None) -> None:
        self._application = application
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        status = self._status(scope)
        if status:
            await _refuse(scope, receive, send, status)
        elif scope["type"] == "http":
            await self._application(scope, receive, self._with_headers(scope, send))
        else:
            await self._application(scope, receive, send)

    def _status(self, scope: Scope) -> int:
        """The HTTP status to refuse with; 0 to let the request through."""
        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = _hostname(headers.get(b"host", ""))
        if self._token is None and host not in _LOCAL:
            return 421
        if self._token is not None and scope["path"] != "/healthz" and not self._knows_token(scope, headers):
            return 401
        origin = headers.get(b"origin")
        if scope["type"] == "websocket":
            return 403 if origin is not None and urlsplit(origin).netloc != headers.get(b"host", "") else 0
        if scope["method"] not in ("GET", "HEAD"):
            return 405
        return 413 if headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers else 0

    def _knows_token(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        assert self._token is not None
        offered = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        scheme, _, bearer = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            offered.append(bearer)
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None:
            offered.append(cookie.value)
        return any(hmac.compare_digest(given.encode(), self._token.encode()) for given in offered)

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        """Adds the safety headers; the token of a query becomes a cookie, so that links need not carry it."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        extra = list(_HEADERS)
        if self._token is not None and "token" in query:
            extra.append((b"set-cookie", f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode()))

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + status})
        return
    words = {
        401: "A token is needed: open the address that derain printed.",
        421: "Unknown host name.",
        413: "No body.",
    }
    body = words.get(status, "Not allowed.").encode()
    # The connection ends here, so that a body that was announced is not read.
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *_HEADERS]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
