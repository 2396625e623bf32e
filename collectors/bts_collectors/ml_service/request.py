"""The HTTP request of a probe."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from bts_collectors.ml_service.config import ProbeConfig
from bts_exporter import HttpRequest


def request_of(probe: ProbeConfig) -> HttpRequest:
    """Return the request that the settings of a probe describe."""
    content_type, body = _body(probe)
    method = probe.method or ("GET" if body is None else "POST")
    if body is None:
        return HttpRequest(probe.path, method)
    headers = {"Content-Type": probe.content_type or content_type}
    return HttpRequest(probe.path, method, headers, body)


def _body(probe: ProbeConfig) -> tuple[str, bytes | None]:
    """Return the content type and the body; None if the request has no body."""
    if probe.json is not None:
        return "application/json", json.dumps(probe.json).encode()
    if probe.form is not None:
        fields = {name: _field(value) for name, value in probe.form.items()}
        return "application/x-www-form-urlencoded", urlencode(fields).encode()
    return "text/plain; charset=utf-8", None if probe.body is None else probe.body.encode()


def _field(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
