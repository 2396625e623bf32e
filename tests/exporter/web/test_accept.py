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
    """A page is compressed for clients that prefer gzip."""
    assert accepts_gzip(field) is expected


@given(st.text())
def test_any_field_is_a_list(field: str) -> None:
    """Any field is accepted, and every quality is between 0 and 1."""
    assert all(0 <= element.quality <= 1 for element in accepted(field))
