from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.ml_service.config import MlServiceConfig, ProbeConfig
from bts_collectors.ml_service.request import request_of
from bts_exporter import HttpRequest, Secret, TLSConfig, Url

URL = Url.from_setting("http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (ProbeConfig(path="/health"), HttpRequest("/health")),
        (
            ProbeConfig(path="/v1/models/m:predict", json={"instances": [[1, 2.5]]}),
            HttpRequest(
                "/v1/models/m:predict",
                "POST",
                {"Content-Type": "application/json"},
                b'{"instances": [[1, 2.5]]}',
            ),
        ),
        (
            ProbeConfig(form={"inputs": [[[1]]], "text": "a b"}),
            HttpRequest(
                "",
                "POST",
                {"Content-Type": "application/x-www-form-urlencoded"},
                b"inputs=%5B%5B%5B1%5D%5D%5D&text=a+b",
            ),
        ),
        (
            ProbeConfig(method="PUT", body="x;1", content_type="text/csv"),
            HttpRequest("", "PUT", {"Content-Type": "text/csv"}, b"x;1"),
        ),
    ],
    ids=["GET", "json", "form", "text"],
)
def test_request_of_a_probe(probe: ProbeConfig, expected: HttpRequest) -> None:
    """A body makes it a POST with the matching content type, unless the settings say otherwise."""
    assert request_of(probe) == expected


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"path": "health"}, "path: 'health' is not valid"),
        ({"path": "/a b"}, "path: '/a b' is not valid"),
        ({"json": {}, "body": ""}, "body: a request has one body"),
        ({"json": {}, "method": "GET"}, "method: GET has no body"),
        ({"method": "HEAD", "expect": {"a": 1}}, "method: the response to HEAD has no body"),
        ({"content_type": "text/csv"}, "content_type: no effect"),
        ({"body": "", "content_type": "a\r\nb"}, "content_type: expected one line"),
        ({"json": float("nan")}, "json: cannot be sent as JSON"),
        ({"form": {"a": {1, 2}}}, "form: cannot be sent as JSON"),
        ({"status": (20,)}, "status: 20 is not a status"),
        ({"expect": {"a[": 1}}, r"expect: 'a\[' is not a valid path"),
    ],
)
def test_settings_of_a_probe_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    """The error begins with the key, so that it is shown with its line."""
    with pytest.raises(ValueError, match=problem):
        ProbeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": Url("ftp", "h")}, "url: expected http:// or https://"),
        ({"url": Url("http", "h", query="a=1")}, "url: the part after"),
        ({"tls": TLSConfig(insecure_skip_verify=True)}, "tls: only https://"),
        ({"token": Secret("t"), "password": Secret("p")}, "token: a request has one login"),
        ({"token": Secret("t\n")}, "token: it has line ends"),
        ({"headers": {"a b": Secret("x")}}, "headers: 'a b' is not a header"),
        ({"headers": {"Content-Length": Secret("x")}}, "headers: 'Content-Length' is not a header"),
        ({"headers": {"a": Secret("x\nb: c")}}, "headers: the value of a has line ends"),
        ({"probes": {}}, "probes: there is none"),
        ({"probes": {"": ProbeConfig()}}, "probes: the name of a probe is empty"),
    ],
)
def test_settings_of_a_service_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    """The value of a header is not in the error: it may be a key."""
    with pytest.raises(ValueError, match=problem) as caught:
        MlServiceConfig(**{"url": URL, "probes": {"a": ProbeConfig()}, **settings})

    assert "c" not in str(caught.value).split()


def test_all_mistakes_are_reported_with_their_lines(tmp_path: Path) -> None:
    """Each with the key, and where it belongs."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "collectors:\n"
        "  ml_service:\n"
        "    url: http://127.0.0.1:8080\n"
        "    path: /prediction\n"
        "    probes:\n"
        "      a: {path: /x, value: 'a['}\n"
        "      b: {path: /x, timeout: 3s}\n"
    )

    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={file}", "check"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    for line in (
        "config.yaml:4: collectors.ml_service.path: unknown key 'path'; requests are below probes",
        "config.yaml:6: collectors.ml_service.probes.a.value: 'a[' is not a valid path",
        "config.yaml:7: collectors.ml_service.probes.b.timeout: unknown key 'timeout'; the time of",
    ):
        assert line in done.stderr
