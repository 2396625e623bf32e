from __future__ import annotations

import socket

import pytest

from bts_exporter.web.origin import is_cross_site
from bts_exporter.web.protocol import Headers

NAME = socket.gethostname()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Host: any.example", False),
        ("Host: any.example\nOrigin: http://any.example", True),
        ("Host: 192.0.2.1:19100\nOrigin: http://192.0.2.1:19100", False),
        ("Host: 192.0.2.1:19100\nOrigin: http://192.0.2.1", True),
        ("Host: 192.0.2.1:80\nOrigin: http://192.0.2.1", False),
        ("Host: 192.0.2.1\nOrigin: https://192.0.2.1:443", False),
        ("Host: [::1]:19100\nOrigin: http://[::1]:19100", False),
        ("Host: LOCALHOST:1\nOrigin: http://localhost:1", False),
        (f"Host: {NAME}:1\nOrigin: http://{NAME}:1", False),
        ("Host: localhost.evil.example\nOrigin: http://localhost.evil.example", True),
        ("Host: localhost:1\nOrigin: http://evil.example", True),
        ("Host: localhost:1\nOrigin: http://localhost:2", True),
        ("Host: localhost:1\nOrigin: null", True),
        ("Host: localhost:1\nOrigin: ", True),
        ("Host: localhost:1\nOrigin: file://localhost:1", True),
        ("Host: localhost:1\nOrigin: http://localhost:1\nOrigin: http://evil.example", True),
        ("Origin: http://localhost:1", True),
        ("Host: localhost:1\nSec-Fetch-Site: cross-site", True),
        ("Host: localhost:1\nSec-Fetch-Site: same-site", True),
        ("Host: localhost:1\nSec-Fetch-Site: none", False),
        ("Host: localhost:1\nSec-Fetch-Site: same-origin", False),
        ("Host: evil.example\nSec-Fetch-Site: same-origin", True),
        ("Host: 192.0.2.256\nOrigin: http://192.0.2.256", True),
        ("Host: [::x]\nOrigin: http://[::x]", True),
    ],
)
def test_pages_of_other_sites(fields: str, expected: bool) -> None:
    """A browser's request counts only from a page under our address, which no other site can have."""
    assert is_cross_site(Headers(f"{fields}\n".encode())) is expected
