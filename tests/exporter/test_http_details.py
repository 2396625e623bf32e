"""Responses to unusual requests, and texts of other programs."""

from __future__ import annotations

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path

import pytest

from servers import free_port, listens, wait_until
from servers.exporter import Exporter, StartExporter

SETTINGS = "collectors: {host: }\n"
#: Control sequences of terminals: window title, red text, delete.
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x7f\u009b"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def request(
    exporter: Exporter, path: str, *fields: tuple[str, str], method: str = "GET"
) -> tuple[int, HTTPMessage, bytes]:
    """Return status, headers and body of the answer to a request with `fields`, also repeated ones."""
    connection = HTTPConnection("127.0.0.1", exporter.port, timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in fields:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


@pytest.fixture
def process(exporter: StartExporter) -> Exporter:
    """Return an exporter that can be reloaded over HTTP."""
    return exporter(SETTINGS, "--web.enable-lifecycle")


def test_format_is_negotiated(process: Exporter) -> None:
    """Several fields are one list, parameters may be quoted, and the answer names the escaping."""
    fields = [
        ("Accept", "text/plain;version=0.0.4;q=0.3"),
        ("Accept", 'application/openmetrics-text; version="1.0.0"; escaping="allow-utf-8"; q=0.6'),
        ("Accept-Encoding", "deflate"),
        ("Accept-Encoding", "gzip;q=0.0000"),
    ]
    _, headers, body = request(process, "/metrics", *fields)

    assert headers["Content-Type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    )
    assert headers["Content-Encoding"] is None
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 200),
        ([("Origin", "http://127.0.0.1:{port}"), ("Sec-Fetch-Site", "same-origin")], 200),
        ([("Origin", "http://evil.example")], 403),
        ([("Origin", "null")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
    ],
)
def test_reload_from_pages_of_others(
    fields: list[tuple[str, str]], status: int, process: Exporter
) -> None:
    """A page of another site cannot make a browser reload the settings."""
    filled = [(name, value.format(port=process.port)) for name, value in fields]

    assert request(process, "/-/reload", *filled, method="POST")[0] == status


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/none", "/probe", "/metrics?collect[]=x"],
)  # fmt: skip
def test_browsers_are_told_to_trust_nothing(path: str, process: Exporter) -> None:
    """Every page and every error has the security headers."""
    _, headers, _ = request(process, path)

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/metrics?collect[]=%1B[31m%7F", "/probe?target=%C2%9B%1B[31m"])
def test_errors_show_control_characters(path: str, process: Exporter) -> None:
    """Control characters of a request are escaped in the error."""
    status, _, body = request(process, path)

    assert status == 400
    assert r"\x1b[31m" in body.decode()
    assert CONTROL.search(body.decode()) is None


class HostileRedis(socketserver.BaseRequestHandler):
    """A server that answers everything with an error that has control characters."""

    def handle(self) -> None:
        """Serve one client."""
        with suppress(ConnectionError):
            while self.request.recv(65536):
                self.request.sendall(f"-ERR {HOSTILE}\r\n".encode() * 20)


@contextmanager
def hostile_redis() -> Iterator[int]:
    """Yield the port of such a server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HostileRedis) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_texts_of_targets_command_no_terminal(
    style: str, exporter: StartExporter, tmp_path: Path
) -> None:
    """Control characters of a target's error are escaped in the log, on the status page and in commands."""
    with hostile_redis() as port:
        settings = f"collectors: {{redis: {{url: 'redis://127.0.0.1:{port}'}}}}\n"
        process = exporter(settings, f"--log.format={style}")
        process.get("/metrics")
        page = request(process, "/")[2].decode()
        (tmp_path / "config.yaml").write_text(settings)
        argv = [sys.executable, "-m", "bts_exporter", f"--config.file={tmp_path}/config.yaml"]
        printed = [
            subprocess.run([*argv, *command], capture_output=True, check=False)
            for command in (["check", "--connect"], ["once", f"--log.format={style}"])
        ]
    shown = [page, process.log.read_text(), printed[0].stdout.decode()]
    shown += [done.stderr.decode() for done in printed]

    assert "]0;owned" in page
    assert "]0;owned" in printed[0].stdout.decode()
    assert [CONTROL.findall(text) for text in shown] == [[]] * len(shown)


def test_settings_command_no_terminal(tmp_path: Path) -> None:
    """Control characters of a setting are escaped in its error."""
    (tmp_path / "config.yaml").write_text('collectors: {"\\e[31mhost": {"\\u009b": 1}}\n')
    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={tmp_path}/config.yaml", "check"]
    done = subprocess.run(argv, capture_output=True, check=False)

    assert done.returncode == 1
    assert "[31mhost" in done.stderr.decode()
    assert CONTROL.search(done.stderr.decode()) is None


def test_log_that_nobody_reads(tmp_path: Path) -> None:
    """A full pipe as standard error blocks neither scrapes nor the stop."""
    (tmp_path / "config.yaml").write_text(SETTINGS)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    port = free_port()
    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={tmp_path}/config.yaml"]
    argv += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle"]
    with subprocess.Popen(argv, stderr=writing) as popen:
        try:
            wait_until(lambda: listens(port), "it listens")
            for path in ["/metrics", "/-/ready"] * 5:
                connection = HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", path)
                assert connection.getresponse().status == 200
                connection.close()
            popen.terminate()
            assert popen.wait(20) == 0
        finally:
            popen.kill()
            os.close(reading)
            os.close(writing)
