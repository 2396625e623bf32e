"""How requests authenticate: --http.config.file, proxies of the environment, and what the receiver sees."""

from __future__ import annotations

import socket
import ssl
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from bts_exporter.connection_errors import connection_error
from bts_exporter.errors import ConfigError, PushError
from bts_exporter.http_proxy import open_tunnel
from bts_exporter.push.http_config import HttpConfig, load
from bts_exporter.push.options import Protocol
from bts_exporter.push.protocol import PRODUCTS, address_of, encoder_of, protocol_of
from bts_exporter.push.receiver import Receiver, Verdict
from bts_exporter.push.series import Source
from bts_exporter.settings.value_types import Url
from servers.push_receiver import PushReceiver, Response

SOURCE = Source("edge", "site-1")


def receiver(
    address: str, file: Path | None, protocol: Protocol = Protocol.REMOTE_WRITE
) -> Receiver:
    """Return a receiver, by default of remote write."""
    settings = load(None if file is None else str(file))
    url = address_of(protocol, Url.from_setting(address), SOURCE)
    return Receiver(PRODUCTS[protocol], url, settings, encoder_of(protocol, SOURCE))


def test_secrets_of_files_are_read_for_each_request(
    tmp_path: Path, push_receiver: PushReceiver
) -> None:
    """A token that is rotated counts at once, and headers are sent."""
    (tmp_path / "token").write_text("first\n")
    file = tmp_path / "http.yml"
    file.write_text(
        "authorization: {credentials_file: token}\n"
        "http_headers: {X-Scope-OrgID: {values: [tenant-1]}}\n"
    )
    found = receiver(push_receiver.address, file)

    assert found.send(b"one").verdict is Verdict.TAKEN
    (tmp_path / "token").write_text("second\n")
    found.send(b"two")
    (tmp_path / "token").unlink()
    failed = found.send(b"three")

    first, second = push_receiver.received
    assert first.path == "/api/v1/write"
    assert first.headers["authorization"] == "Bearer first"
    assert first.headers["x-scope-orgid"] == "tenant-1"
    assert first.headers["x-prometheus-remote-write-version"] == "0.1.0"
    assert second.headers["authorization"] == "Bearer second"
    assert failed.verdict is Verdict.FAILED
    assert str(tmp_path / "token") in failed.message


def test_basic_auth_with_a_password_file(tmp_path: Path, push_receiver: PushReceiver) -> None:
    """User and password are sent as basic authentication."""
    (tmp_path / "password").write_text("pass:word\n")
    file = tmp_path / "http.yml"
    file.write_text("basic_auth: {username: site, password_file: password}\n")

    receiver(push_receiver.address, file).send(b"one")

    expected = b64encode(b"site:pass:word").decode()
    assert push_receiver.received[0].headers["authorization"] == f"Basic {expected}"


def test_proxy_gets_the_whole_address(
    tmp_path: Path, push_receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the file, or that of the environment, gets the request, with its own credentials."""
    file = tmp_path / "http.yml"
    proxy = push_receiver.address.replace("http://", "http://user:secret@")
    file.write_text(f"proxy_url: {proxy}\n")

    receiver("http://store.example:9009/api/v1/push?a=b", file).send(b"one")
    monkeypatch.setenv("http_proxy", push_receiver.address)
    monkeypatch.setenv("no_proxy", "")
    receiver("http://store.example:9009/api/v1/push", None).send(b"two")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    receiver(push_receiver.address, None).send(b"three")

    first, second, third = push_receiver.received
    assert first.path == "http://store.example:9009/api/v1/push?a=b"
    assert first.headers["proxy-authorization"] == f"Basic {b64encode(b'user:secret').decode()}"
    assert second.path == "http://store.example:9009/api/v1/push"
    assert third.path == "/api/v1/write"


def test_tunnel_through_a_proxy() -> None:
    """For https the proxy is asked to connect, with its credentials; its refusal names both."""
    proxy = Url.from_setting("http://user:secret@proxy:3128")
    url = Url.from_setting("https://store.example/api/v1/push")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        open_tunnel(ours, url, proxy)
        theirs.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        with pytest.raises(
            OSError, match=r"proxy:3128 refuses to connect to store\.example:443: HTTP/1\.1 407"
        ):
            open_tunnel(ours, url, proxy)
        request = theirs.recv(4096).decode()

    assert request.startswith("CONNECT store.example:443 HTTP/1.1\r\nHost: store.example:443\r\n")
    assert f"Proxy-Authorization: Basic {b64encode(b'user:secret').decode()}\r\n" in request


@pytest.mark.parametrize("protocol", [Protocol.OTLP, Protocol.REMOTE_WRITE])
def test_missing_packages_are_an_error_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    """Without the extra `push` the error names the command that installs it; a Pushgateway needs nothing."""
    for name in ("google.protobuf.message", "cramjam"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("otlp", "remote_write"):
        monkeypatch.delitem(sys.modules, f"bts_exporter.push.{name}", raising=False)

    with pytest.raises(PushError, match=r"pip install 'bts-exporter\[push\]'"):
        encoder_of(protocol, SOURCE)
    assert encoder_of(Protocol.PUSHGATEWAY, SOURCE).method == "PUT"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("basic_auht: {}", "basic_auht"),
        ("basic_auth: {password: a, password_file: b}", "exclude each other"),
        ("authorization: {}", "expected either credentials or credentials_file"),
        (
            "authorization:\n  credentials_file: missing",
            r"http.yml:2: authorization.credentials_file: .*missing",
        ),
        (
            "basic_auth:\n  password_file: latin",
            r"http.yml:2: basic_auth.password_file: .*latin: exp",
        ),
        (
            "http_headers:\n  X: {files: [good, bad]}",
            r"http.yml:2: http_headers.X.files\[1\]: .*bad",
        ),
        ("basic_auth: {username: a}\nauthorization: {credentials: b}", "exclude each other"),
        ("proxy_url: socks5://host:1080", "expected http://"),
    ],
)
def test_mistakes_are_reported_with_their_place(tmp_path: Path, text: str, problem: str) -> None:
    """A mistake in the file is an error at the start that names the file and the key."""
    file = tmp_path / "http.yml"
    file.write_text(text)
    (tmp_path / "good").write_text("secret")
    (tmp_path / "latin").write_bytes("geheim\xdf".encode("latin-1"))

    with pytest.raises(ConfigError, match=problem) as caught:
        load(str(file))

    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("address", "protocol"),
    [
        ("http://gateway:9091", Protocol.PUSHGATEWAY),
        ("https://example.org/pushgateway", Protocol.PUSHGATEWAY),
        ("http://prometheus:9090/api/v1/write", Protocol.REMOTE_WRITE),
        ("https://mimir.example.org/api/v1/push", Protocol.REMOTE_WRITE),
        ("http://thanos:19291/api/v1/receive", Protocol.REMOTE_WRITE),
        ("http://vm:8480/insert/0/prometheus/api/v1/write", Protocol.REMOTE_WRITE),
        ("http://collector:4318", Protocol.OTLP),
        ("http://collector:4318/v1/metrics", Protocol.OTLP),
        ("http://prometheus:9090/api/v1/otlp/v1/metrics", Protocol.OTLP),
        ("http://vm:8428/opentelemetry/api/v1/push", Protocol.OTLP),
    ],
)
def test_address_indicates_the_protocol(address: str, protocol: Protocol) -> None:
    """The usual addresses of receivers need no --protocol."""
    assert protocol_of(Url.from_setting(address)) is protocol


@pytest.mark.parametrize(
    ("protocol", "address", "complete"),
    [
        (Protocol.OTLP, "http://c:4318/", "http://c:4318/v1/metrics"),
        (Protocol.REMOTE_WRITE, "http://p:9090", "http://p:9090/api/v1/write"),
        (Protocol.REMOTE_WRITE, "http://p:9090/own/write", "http://p:9090/own/write"),
        (Protocol.PUSHGATEWAY, "http://g/x/", "http://g/x/metrics/job/edge/instance/site-1"),
    ],
)
def test_address_is_completed(protocol: Protocol, address: str, complete: str) -> None:
    """An address without a path gets the one of the protocol."""
    assert str(address_of(protocol, Url.from_setting(address), SOURCE)) == complete


@pytest.mark.parametrize("status", [404, 405])
def test_address_of_another_product_gets_the_cure(push_receiver: PushReceiver, status: int) -> None:
    """A server that does not know a Pushgateway's path, such as Prometheus, leads to --protocol."""
    push_receiver.responses.append(Response(status))

    found = receiver(push_receiver.address, None, Protocol.PUSHGATEWAY).send(b"one")

    assert found.verdict is Verdict.FAILED
    cure = "if it is not a Pushgateway, set --protocol=remote-write or --protocol=otlp"
    assert found.message.endswith(cure)


@pytest.mark.parametrize("protocol", Protocol)
def test_errors_of_tls_name_the_key_in_the_file(protocol: Protocol) -> None:
    """The advice about certificates names keys of --http.config.file, which are not those of config.yaml."""
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = "self-signed certificate"

    found = str(connection_error(PRODUCTS[protocol], "store:443", error))

    assert "set tls_config.ca_file in the file of --http.config.file to the CA" in found
    assert hasattr(HttpConfig().tls_config, "ca_file")


def test_group_of_a_pushgateway_may_have_any_name() -> None:
    """A slash in job or instance is encoded as Pushgateways expect."""
    url = address_of(Protocol.PUSHGATEWAY, Url.from_setting("http://g"), Source("a/b", "c d"))

    assert url.path == "/metrics/job@base64/YS9i/instance/c%20d"
