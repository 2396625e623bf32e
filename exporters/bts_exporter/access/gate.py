"""Lets a request through to the pages, or answers it with status 401, 429 or 503."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence

from bts_exporter.access.passwords import Passwords, Verdict
from bts_exporter.access.web_config import WebConfig
from bts_exporter.web.server import Handle, Request, Response, Server


def guarded(config: WebConfig, sockets: Sequence[socket.socket], handle: Handle) -> Server:
    """Return a server whose TLS, passwords, headers and rate limit are those of `config`."""
    return Server(
        sockets,
        Gate(config, handle),
        wrap=config.wrap if config.active.tls is not None else None,
        fields=lambda: config.active.fields,
    )


class Gate:
    """Limits the rate of requests and checks their passwords, for every path."""

    def __init__(self, config: WebConfig, handle: Handle) -> None:
        """Pass requests that are permitted on to `handle`."""
        self._config = config
        self._handle = handle
        self._passwords = Passwords()

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        self._config.refresh()
        if wait := self._config.limiter.wait():
            return _later(429, "too many requests (rate_limit)", wait)
        if users := self._config.active.users:
            match self._passwords.check(users, request.headers.get("Authorization")):
                case Verdict.WRONG:
                    return _UNAUTHORIZED
                case Verdict.BUSY:
                    return _later(503, "too many passwords are being checked", 1)
        return self._handle(request)


_UNAUTHORIZED = Response(
    401,
    b"user name or password is missing or wrong\n",
    headers=(("WWW-Authenticate", 'Basic realm="bts-exporter", charset="UTF-8"'),),
)


def _later(status: int, message: str, seconds: float) -> Response:
    retry = ("Retry-After", str(math.ceil(seconds)))
    return Response(status, f"{message}\n".encode(), headers=(retry,))
