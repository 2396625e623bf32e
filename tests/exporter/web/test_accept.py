from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter.web.accept import accepted, accepts_gzip


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP;Q=0.5", True),
        ("gzip;q=0.00000000", False),
        ("gzip;q=0.", False),
        ('gzip;q="0.000"', False),
        ("gzip;q=0.0001", True),
        ("*", True),
        ("*;q=0.0000", False),
        ("gzip;q=0.0000, *", False),
        ("deflate, gzip", True),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity;q=0.5", True),
        ('br;x=", gzip"', False),
        ("gzip;q=always", False),
    ],
)
def test_gzip(field: str, expected: bool) -> None:
    """A page is compressed for clients that prefer it so."""
    assert accepts_gzip(field) is expected


@given(st.text())
def test_any_field_is_a_list(field: str) -> None:
    """No field is an error, and no quality is out of bounds."""
    assert all(0 <= element.quality <= 1 for element in accepted(field))
