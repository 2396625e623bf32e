from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.relay.config import RelayConfig
from bts_exporter import Secret, TLSConfig, Url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h:8000", "/metrics"),
        ("http://h:8000/", "/metrics"),
        ("http://h:8000/custom/page", "/custom/page"),
        ("http://h/v1/sys/metrics?format=prometheus", "/v1/sys/metrics?format=prometheus"),
    ],
)
def test_page_of_an_address(url: str, path: str) -> None:
    """The page is at /metrics unless the address says otherwise; a query is kept."""
    assert RelayConfig(url=Url.from_setting(url)).path == path


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": Url("ftp", "h")}, "url: expected http:// or https://"),
        ({"url": Url("http", "h", path="/ä")}, "url: percent-encode"),
        ({"tls": TLSConfig(insecure_skip_verify=True)}, "tls: only https://"),
        ({"token": Secret("t"), "password": Secret("p")}, "token: a request has one login"),
        ({"token": Secret("t\n")}, "token: it has line ends"),
        ({"headers": {"a:": Secret("x")}}, "headers: 'a:' is not a header"),
        ({"headers": {"a": Secret("x\ny")}}, "headers: the value of a has line ends"),
        ({"prefix": "7_"}, "prefix: no metric can begin with '7_'"),
        ({"prefix": "bts_exporter_"}, "prefix: bts_exporter_ is reserved"),
        ({"max_body_bytes": 0}, "max_body_bytes: must be at least"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    """The error begins with the key."""
    with pytest.raises(ValueError, match=problem):
        RelayConfig(**{"url": Url("http", "h"), **settings})


def test_key_of_another_program_is_explained(tmp_path: Path) -> None:
    """Keys that Prometheus has lead to ours."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "collectors:\n  relay:\n    url: http://h\n    body_size_limit: 1\n    allow: [a]\n"
    )

    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={file}", "check"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "unknown key 'body_size_limit'; max_body_bytes: 10000000" in done.stderr
    assert "unknown key 'allow'; metrics are selected by metrics: {allow:" in done.stderr
