"""The exporter's HTTP listener behind a --web.config.file, in this process."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bts_exporter.access.gate import Gate
from bts_exporter.access.web_config import WebConfig
from bts_exporter.web.server import Request, Response
from servers.certificate_authority import Signed
from servers.listener import Listener, hello, listening


@contextmanager
def guarded_by(
    file: Path, handle: Callable[[Request], Response] = hello, **options: Any
) -> Iterator[tuple[Listener, WebConfig]]:
    """Run a server with the settings in `file` for as long as the block lasts."""
    config = WebConfig(file)
    wrap = config.wrap if config.active.tls is not None else None
    gate = Gate(config, handle)
    with listening(gate, wrap=wrap, fields=lambda: config.active.fields, **options) as listener:
        yield listener, config


def client_of(ca: Path, client: Signed | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts `ca`, with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    # An end without close_notify is an error.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def get_as(user: str, password: str | bytes, *, path: str = "/") -> bytes:
    """Return a request with a user and a password."""
    encoded = password.encode() if isinstance(password, str) else password
    token = b64encode(user.encode() + b":" + encoded)
    return b"GET %b HTTP/1.1\r\nHost: test\r\nAuthorization: Basic %b\r\n\r\n" % (
        path.encode(),
        token,
    )
