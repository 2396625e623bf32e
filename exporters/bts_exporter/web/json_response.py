"""Responses of the HTTP API."""

from __future__ import annotations

from typing import Any

import msgspec

from bts_exporter.exposition.page import compress
from bts_exporter.printable import printable
from bts_exporter.web.accept import accepts_gzip
from bts_exporter.web.server import Request, Response

_JSON = "application/json"
#: A response of fewer bytes is not worth compressing.
_SMALL = 1_000


def json_response(request: Request, content: object) -> Response:
    """Return `content` as JSON, compressed if the client accepts that."""
    body = msgspec.json.encode(content)
    headers = [("Vary", "Accept-Encoding"), ("Cache-Control", "no-store")]
    accepted = ", ".join(request.headers.get_all("Accept-Encoding", []))
    if len(body) > _SMALL and accepts_gzip(accepted):
        body = compress([body])
        headers.append(("Content-Encoding", "gzip"))
    return Response(200, body, _JSON, tuple(headers))


def json_error(
    version: int, status: int, message: str, *headers: tuple[str, str], **details: Any
) -> Response:
    """Return an error of an API of this version."""
    body = {"version": version, "error": printable(message), **details}
    return Response(status, msgspec.json.encode(body), _JSON, headers)
