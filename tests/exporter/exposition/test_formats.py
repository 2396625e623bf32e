from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter.exposition.formats import Format, content_type, negotiate

#: What Prometheus sends.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    + PROMETHEUS_3
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        (PROMETHEUS_3_PROTOBUF, Format.OPENMETRICS),
        (BROWSER, Format.TEXT),
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/*", Format.TEXT),
        ("text/plain", Format.TEXT),
        ("text/plain;version=0.0.4", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", Format.TEXT),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0;q=0.1", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Format.TEXT),
        ("text/plain;q=0.4, application/openmetrics-text;q=0.5", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=0,*/*;q=0", Format.TEXT),
        ("application/json", Format.TEXT),
        ("application/openmetrics-text;q=often", Format.TEXT),
        ("application/openmetrics-text;q=nan,text/plain;q=0.1", Format.TEXT),
        (";;,=,q=1,,", Format.TEXT),
        ("application/openmetrics-text;charset", Format.OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', Format.OPENMETRICS),
        ('application/openmetrics-text; version="1.\\0.0"', Format.OPENMETRICS),
        ('text/plain; x="a, application/openmetrics-text"; q=0.1', Format.TEXT),
        ('text/plain; x="unclosed, application/openmetrics-text', Format.TEXT),
        ("application/openmetrics-text;q=0.00000,text/plain;q=0.00001", Format.TEXT),
        ("application/openmetrics-text;q=0.0000", Format.TEXT),
        ("application/openmetrics-text;q=1.0000,text/plain;q=0.9999", Format.OPENMETRICS),
        ("text/plain;version=9,application/openmetrics-text;q=0.1", Format.OPENMETRICS),
        ("text/plain;q=0,*/*", Format.OPENMETRICS),
        ("application/*", Format.OPENMETRICS),
    ],
)  # fmt: skip
def test_negotiation(accept: str, expected: Format) -> None:
    """The client's preferred format is used, or the text format if it accepts none of ours."""
    assert negotiate(accept) is expected


OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROMETHEUS_3_PROTOBUF, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROMETHEUS_3.replace("allow-utf-8", "underscores"), f"{OPENMETRICS}; escaping=underscores"),
        (PROMETHEUS_3.replace("allow-utf-8", "dots"), f"{OPENMETRICS}; escaping=underscores"),
        (PROMETHEUS_3.replace("allow-utf-8", '"a, b"'), f"{OPENMETRICS}; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0;escaping=values", f"{OPENMETRICS}; escaping=values"),
        ("application/openmetrics-text;version=0.0.1;escaping=underscores", OPENMETRICS.replace("1.0.0", "0.0.1")),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("text/plain;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.3", TEXT),
        ("text/plain;escaping=allow-utf-8", TEXT),
        ("application/json", TEXT),
    ],
)  # fmt: skip
def test_content_type(accept: str, expected: str) -> None:
    """The content type has the requested version and escaping, if we have them."""
    assert content_type(accept) == expected


@given(st.text())
def test_negotiation_with_garbage(accept: str) -> None:
    """Any value of the header is accepted."""
    assert negotiate(accept) in Format
