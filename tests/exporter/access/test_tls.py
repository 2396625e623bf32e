from __future__ import annotations

import shutil
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from bts_exporter.errors import ConfigError
from servers import need, wait_until
from servers.certificate_authority import Authority, Signed
from servers.guarded import client_of, guarded_by
from servers.listener import GET, Listener

MUTUAL = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"


class Files(NamedTuple):
    """A folder with certificates of all kinds, and clients' certificates by name."""

    folder: Path
    ca: Path
    clients: dict[str, Signed]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make certificates."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "ca")
    server = authority.sign("server", "subjectAltName=IP:127.0.0.1")
    rsa = authority.sign("rsa", "subjectAltName=IP:127.0.0.1", key="rsa")
    foreign = Authority(tmp_path_factory.mktemp("other"), "other")
    middle = authority.sign("middle", "basicConstraints=critical,CA:TRUE")
    (folder / "middle-only.pem").write_text(middle.cert.read_text())
    clients = {
        "good": authority.sign("good", "subjectAltName=DNS:client.test"),
        "expired": authority.sign("expired", "subjectAltName=DNS:client.test", days=-1),
        "foreign": foreign.sign("foreign", "subjectAltName=DNS:client.test"),
        "for_servers": authority.sign("for_servers", "extendedKeyUsage=serverAuth"),
        "self_signed": foreign.sign("pinned", "subjectAltName=DNS:client.test"),
        "no_names": authority.sign("no_names", "basicConstraints=CA:FALSE"),
        "by_name_only": authority.sign("client.test", "basicConstraints=CA:FALSE"),
        "dns": authority.sign("dns", "subjectAltName=DNS:other.test,DNS:client.test"),
        "ip": authority.sign("ip", "subjectAltName=IP:192.0.2.7"),
        "ip6": authority.sign("ip6", "subjectAltName=IP:2001:db8::1"),
        "uri": authority.sign("uri", "subjectAltName=URI:spiffe://test/prometheus"),
        "email": authority.sign("email", "subjectAltName=email:a@example.org"),
        "wildcard": authority.sign("wildcard", "subjectAltName=DNS:*.test"),
        "longer": authority.sign("longer", "subjectAltName=DNS:client.test.evil"),
        "other_kinds": authority.sign(
            "other_kinds",
            "subjectAltName=otherName:1.2.3.4;UTF8:client.test,dirName:client,RID:1.2.3.4",
            "[client]",
            "CN=client.test",
        ),
    }
    assert server.cert.exists()
    assert rsa.cert.exists()
    return Files(folder, authority.cert, clients)


def config(files: Files, settings: str = "", *, server: str = "server") -> Path:
    """Return a file with TLS settings."""
    file = files.folder / "web.yml"
    given = f"cert_file: {server}.pem, key_file: {server}.key, {settings}"
    file.write_text(f"tls_server_config: {{{given}}}\n")
    return file


def admitted(listener: Listener, context: ssl.SSLContext) -> bool:
    """Return whether a client gets an answer."""
    try:
        with listener.wire(context) as wire:
            return wire.ask().status == 200
    except (OSError, AssertionError):
        return False


# Who is admitted


EVERY_CLIENT = {"none", "good", "expired", "foreign", "for_servers"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", EVERY_CLIENT),
        ("client_auth_type: NoClientCert", EVERY_CLIENT),
        ("client_auth_type: RequestClientCert", EVERY_CLIENT),
        ("client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem", {"none", "good"}),
        (MUTUAL, {"good"}),
        ("client_auth_type: RequireAndVerifyClientCert", set[str]()),
    ],
)
@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
def test_client_auth_types(files: Files, settings: str, expected: set[str], version: str) -> None:
    """Each type admits the clients that it promises, and no other."""
    with guarded_by(config(files, f"max_version: {version}, {settings}")) as (listener, _):
        clients = {name: files.clients.get(name) for name in EVERY_CLIENT}
        found = {n for n, c in clients.items() if admitted(listener, client_of(files.ca, c))}

        assert found == expected
        refused = len(EVERY_CLIENT) - len(expected)
        wait_until(lambda: listener.traffic.refused["handshake"] == refused, "all are counted")


@pytest.mark.parametrize("pinned", ["middle-only.pem", "pinned.pem"])
def test_every_certificate_of_the_file_is_trusted(files: Files, pinned: str) -> None:
    """As with Go, an intermediate authority or a client's own certificate can be trusted."""
    client = files.clients["self_signed"]
    (files.folder / "pinned.pem").write_text(client.cert.read_text())
    settings = f"client_auth_type: RequireAndVerifyClientCert, client_ca_file: {pinned}"
    with guarded_by(config(files, settings)) as (listener, _):
        assert admitted(listener, client_of(files.ca, client)) is (pinned == "pinned.pem")


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("client.test", {"good", "dns"}),
        ("192.0.2.7", {"ip"}),
        ('"2001:db8::1"', {"ip6"}),
        ('"2001:0DB8:0::1"', {"ip6"}),
        ('"spiffe://test/prometheus"', {"uri"}),
        ('"a@example.org"', {"email"}),
        ('"*.test"', {"wildcard"}),
        ("192.0.2.7, client.test", {"ip", "good", "dns"}),
        ("absent", set[str]()),
    ],
)
def test_allowed_names(
    files: Files, allowed: str, expected: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A client is admitted if an alternative name of its certificate, of any kind, is in the list."""
    named = {
        "good", "no_names", "by_name_only", "dns", "ip", "ip6", "uri", "email", "wildcard", "longer", "other_kinds",
    }  # fmt: skip
    settings = f"{MUTUAL}, client_allowed_sans: [{allowed}]"
    with guarded_by(config(files, settings)) as (listener, _):
        clients = {name: client_of(files.ca, files.clients[name]) for name in sorted(named)}
        assert {
            name for name, context in clients.items() if admitted(listener, context)
        } == expected
        assert not admitted(listener, client_of(files.ca))
        refused = len(named) - len(expected) + 1
        wait_until(lambda: listener.traffic.refused["handshake"] == refused, "all are counted")
    warnings_ = [
        r.message for r in caplog.records if "client certificate not accepted" in r.message
    ]
    assert len(warnings_) == 1  # in a minute


def test_optional_certificate_with_allowed_names(files: Files) -> None:
    """A list of names admits no client without a certificate, as with the toolkit."""
    settings = "client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem, "
    settings += "client_allowed_sans: [client.test]"
    with guarded_by(config(files, settings)) as (listener, _):
        assert admitted(listener, client_of(files.ca, files.clients["good"]))
        assert not admitted(listener, client_of(files.ca))


@pytest.mark.parametrize("names", ["[]", '[""]'])
def test_list_of_names_that_admits_no_client(files: Files, names: str) -> None:
    """A list of allowed names with nothing in it is a mistake."""
    with pytest.raises(ConfigError, match="client_allowed_sans"):
        next(iter(guarded(files, f"{MUTUAL}, client_allowed_sans: {names}")))


def guarded(files: Files, settings: str) -> Iterator[Listener]:
    """Yield a listener with TLS settings."""
    with guarded_by(config(files, settings)) as (listener, _):
        yield listener


@pytest.mark.parametrize("kind", ["RequestClientCert", "NoClientCert"])
def test_names_without_verification(files: Files, kind: str) -> None:
    """Names in certificates that are not verified prove nothing, and are refused as a setting."""
    settings = f"client_auth_type: {kind}, client_allowed_sans: [client.test]"
    with pytest.raises(ConfigError, match="verifies no certificate"):
        next(guarded(files, settings))


# Versions, ciphers, curves


def limited(context: ssl.SSLContext, version: str) -> ssl.SSLContext:
    """Return a client's context with one version of TLS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", {"TLSv1_2", "TLSv1_3"}),
        ("min_version: TLS13", {"TLSv1_3"}),
        ("max_version: TLS12", {"TLSv1_2"}),
        ("min_version: TLS10", {"TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"}),
        ("min_version: TLS11, max_version: TLS11", {"TLSv1_1"}),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", {"TLSv1_3"}),
    ],
)
def test_versions(files: Files, settings: str, expected: set[str]) -> None:
    """Clients with other versions of TLS are refused."""
    with guarded_by(config(files, settings)) as (listener, _):
        versions = ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3")
        found = {v for v in versions if admitted(listener, limited(client_of(files.ca), v))}

    assert found == expected


def test_version_that_openssl_cannot_do(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that OpenSSL was built without is refused at the start."""
    monkeypatch.setattr(ssl, "HAS_TLSv1", False)
    with pytest.raises(ConfigError, match=r"min_version: OpenSSL .* cannot do TLS10"):
        next(guarded(files, "min_version: TLS10"))


@pytest.mark.parametrize(
    ("suite", "cipher", "server"),
    [
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", "server"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA", "server"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", "rsa"),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256", "rsa"),
    ],
)
def test_cipher_suites(files: Files, suite: str, cipher: str, server: str) -> None:
    """Only the listed suites are used with TLS 1.2; those of TLS 1.3 remain, as with Go."""
    context = client_of(files.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL")
    with guarded_by(config(files, f"cipher_suites: [{suite}]", server=server)) as (listener, _):
        with listener.wire(context) as wire:
            assert wire.ask().status == 200
            assert wire.sock.cipher()[0] == cipher  # type: ignore[attr-defined]
        context.set_ciphers(f"ALL:!{cipher}")
        assert not admitted(listener, context)
        assert admitted(listener, client_of(files.ca))


def test_order_of_cipher_suites(files: Files) -> None:
    """The server's order counts, or the client's with prefer_server_cipher_suites: false."""
    ours = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    context = client_of(files.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    found = {}
    for prefer in ("true", "false"):
        settings = f"cipher_suites: [{ours}], prefer_server_cipher_suites: {prefer}"
        with guarded_by(config(files, settings)) as (listener, _), listener.wire(context) as wire:
            found[prefer] = wire.sock.cipher()[0][-13:-7]  # type: ignore[attr-defined]

    assert found == {"true": "56-GCM", "false": "28-GCM"}


@pytest.mark.parametrize(
    ("curve", "other"),
    [("CurveP256", "secp384r1"), ("CurveP384", "prime256v1"), ("X25519", "secp384r1")],
)
def test_curve(files: Files, curve: str, other: str) -> None:
    """A client that has only another curve is refused."""
    with guarded_by(config(files, f"curve_preferences: [{curve}]", server="rsa")) as (listener, _):
        assert admitted(listener, client_of(files.ca))
        context = client_of(files.ca)
        context.set_ecdh_curve(other)
        assert not admitted(listener, context)


# The life of a connection


@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
@pytest.mark.parametrize("settings", ["", f"{MUTUAL}, client_allowed_sans: [client.test]"])
def test_sessions_are_resumed(files: Files, version: str, settings: str) -> None:
    """A client that connects again saves the signatures, and its certificate is still checked."""
    context = client_of(files.ca, files.clients["good"])
    with guarded_by(config(files, f"max_version: {version}, {settings}")) as (listener, _):
        with listener.wire(context) as wire:
            wire.ask()
            session = wire.sock.session  # type: ignore[attr-defined]
        with listener.wire() as plain:
            sock = context.wrap_socket(plain.sock, session=session)
            sock.sendall(GET)
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            assert sock.session_reused
            sock.close()


def end_of(listener: Listener, context: ssl.SSLContext, request: bytes) -> bytes:
    """Return what comes after the answer to one request; SSLEOFError without a close_notify."""
    with listener.wire(context) as wire:
        wire.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        assert wire.ask(request).status == 200
        return wire.sock.recv(1)


@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
def test_close_notify(files: Files, version: str) -> None:
    """TLS is ended before the connection: after the last answer, and when an idle one is given up."""
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    context = client_of(files.ca)
    file = config(files, f"max_version: {version}")
    with guarded_by(file, idle_seconds=0.2) as (listener, _):
        assert end_of(listener, context, last) == b""
        assert end_of(listener, context, GET) == b""
        wait_until(lambda: listener.traffic.open == 0, "both are closed")
    assert listener.traffic.cut == {"header_timeout": 0, "write_timeout": 0}


def test_close_notify_when_the_server_stops(files: Files) -> None:
    """A server that stops ends TLS on its idle connections."""
    with guarded_by(config(files)) as (listener, _), listener.wire(client_of(files.ca)) as wire:
        wire.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        wire.ask()
        listener.server.stop(grace=5)
        assert wire.sock.recv(1) == b""


def test_renegotiation_is_refused(files: Files) -> None:
    """A client cannot make the server compute one handshake after another on a connection."""
    with guarded_by(config(files)) as (listener, _):
        argv = [need("openssl", "openssl"), "s_client", "-tls1_2"]
        argv += ["-connect", f"127.0.0.1:{listener.places[0][1]}"]
        done = subprocess.run(
            argv, input="R\nR\n", capture_output=True, text=True, timeout=20, check=False
        )

    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no renegotiation" in done.stdout + done.stderr


def record_of(context: ssl.SSLContext) -> bytes:
    """Return a ClientHello."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


def threads_of(listener: Listener) -> int:
    """Return how many connections have a thread."""
    return sum(connection.served for connection in listener.server._connections._all())


def test_handshake_byte_by_byte(files: Files) -> None:
    """A ClientHello that arrives in pieces is awaited without a thread, and is then answered."""
    hello = record_of(client_of(files.ca))
    file = config(files)
    with guarded_by(file, header_seconds=3600) as (listener, _), listener.wire() as wire:
        for place in range(len(hello)):
            assert threads_of(listener) == 0
            wire.send(hello[place : place + 1])
        assert wire.incoming.read(1) == b"\x16"


@pytest.mark.parametrize("pieces", [1, 3, 5, 20])
def test_incomplete_client_hello_ends(files: Files, pieces: int) -> None:
    """A client that stops within its ClientHello, or closes its side, costs no thread and is cut."""
    hello = record_of(client_of(files.ca))[:pieces]
    with guarded_by(config(files), header_seconds=0.3) as (listener, _):
        with listener.wire() as stopped:
            stopped.send(hello)
            assert stopped.ended()
        with listener.wire() as closed:
            closed.send(hello)
            closed.sock.shutdown(1)
            assert closed.ended()
        wait_until(lambda: listener.traffic.open == 0, "both are closed")


def test_handshake_and_request_have_one_deadline(files: Files) -> None:
    """A client that completes its handshake and sends half a request is cut."""
    with guarded_by(config(files), header_seconds=1.5) as (listener, _):
        with listener.wire(client_of(files.ca)) as wire:
            wire.send(GET[:10])
            assert wire.ended()
        wait_until(lambda: listener.traffic.cut["header_timeout"] == 1, "it is counted")


def test_clients_that_stop_in_the_handshake_keep_no_client_out(files: Files) -> None:
    """More clients than there are threads stop after their ClientHello; others are served."""
    hello = record_of(client_of(files.ca))
    options = {"max_connections": 4, "header_seconds": 3600}
    with guarded_by(config(files), **options) as (listener, _):
        stopped = [listener.wire() for _ in range(12)]
        for wire in stopped:
            wire.send(hello)
        assert all(admitted(listener, client_of(files.ca)) for _ in range(4))
        for wire in stopped:
            wire.close()


def test_incomplete_client_hellos_keep_no_client_out(files: Files) -> None:
    """Clients that send a part of their ClientHello make room for others, like those that send nothing."""
    options = {"max_waiting": 4, "header_seconds": 3600}
    with guarded_by(config(files), **options) as (listener, _), ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(listener.wire()).send(record_of(client_of(files.ca))[:50])
        assert admitted(listener, client_of(files.ca))


def test_chain(tmp_path: Path) -> None:
    """The certificates behind the server's own are sent, so that clients need only the root."""
    authority = Authority(tmp_path, "ca")
    middle = authority.sign("middle", "basicConstraints=critical,CA:TRUE")
    leaf = Authority(tmp_path, "", signer=middle).sign("leaf", "subjectAltName=IP:127.0.0.1")
    (tmp_path / "chained.pem").write_text(leaf.cert.read_text() + middle.cert.read_text())
    shutil.copy(leaf.key, tmp_path / "chained.key")
    found = {}
    for name in ("leaf", "chained"):
        file = config(Files(tmp_path, authority.cert, {}), server=name)
        with guarded_by(file) as (listener, _):
            found[name] = admitted(listener, client_of(authority.cert))

    assert found == {"leaf": False, "chained": True}


def test_http_to_the_port_of_https(files: Files) -> None:
    """A request without TLS gets an answer that says so, with the headers of every answer."""
    with guarded_by(config(files)) as (listener, _), listener.wire() as wire:
        answer = wire.ask()
        assert (answer.status, answer.body) == (400, b"this port serves https, not http\n")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert wire.ended()
        assert listener.traffic.refused["handshake"] == 1


@pytest.mark.parametrize(
    "sent", [b"\0" * 10, b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x00\x02", b"get / http/1.1\r\n\r\n"]
)
def test_other_bytes_to_the_port_of_https(files: Files, sent: bytes) -> None:
    """Other protocols are closed without a thread."""
    with guarded_by(config(files)) as (listener, _):
        with listener.wire() as wire:
            wire.send(sent)
            assert wire.ended()
        wait_until(lambda: listener.traffic.refused["handshake"] == 1, "it is counted")


@pytest.mark.parametrize(
    "damage", [lambda hello: hello[:9] + bytes(len(hello) - 9), lambda _: b"\x16\x03\x01\0\0"]
)
def test_invalid_client_hello(files: Files, damage: Callable[[bytes], bytes]) -> None:
    """Bytes that are not a handshake end the connection and nothing else."""
    with guarded_by(config(files)) as (listener, _):
        with listener.wire() as wire:
            wire.send(damage(record_of(client_of(files.ca))))
            wire.sock.shutdown(1)
            wire.incoming.read()
        wait_until(lambda: listener.traffic.refused["handshake"] == 1, "it is counted")
        assert admitted(listener, client_of(files.ca))
