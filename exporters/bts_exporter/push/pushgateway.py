"""The protocol of Prometheus' Pushgateway: the page in text format, which replaces the one of the same group."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote


class Pushgateway:
    """The encoder for a Pushgateway."""

    method = "PUT"
    headers: Mapping[str, str] = MappingProxyType(
        {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )

    def encode(self, page: bytes, _timestamp: float) -> list[bytes]:
        """Return the page; a Pushgateway refuses timestamps."""
        return [page]

    def end(self, _timestamp: float) -> list[bytes]:
        """Return nothing: a Pushgateway keeps the last values."""
        return []

    def rejected(self, _response: bytes) -> tuple[int, str]:
        """Return nothing: a Pushgateway takes a page as a whole."""
        return 0, ""


def path_of(job: str, instance: str) -> str:
    """Return the path of a group; without `instance`, the group of the whole job."""
    return "/metrics" + _part("job", job) + (_part("instance", instance) if instance else "")


def _part(label: str, value: str) -> str:
    if "/" in value:
        return f"/{label}@base64/{urlsafe_b64encode(value.encode()).decode()}"
    return f"/{label}/{quote(value, safe='')}"
