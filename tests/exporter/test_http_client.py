from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bts_exporter import (
    AddressWatch,
    ByteBudget,
    HttpClient,
    Product,
    Secret,
    TargetError,
    TLSConfig,
    Url,
)
from servers import free_port, need, wait_until
from servers.certificates import SERVER_NAME, Certificates
from servers.management import (
    FakeManagement,
    Reply,
    answer,
    drip,
    hang,
    in_turn,
    raw,
    send,
    then_close,
)

PRODUCT = Product("shop API", if_refused="is the shop open?", if_closed="the port is usually 15672")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SIZED = HEAD + b"Content-Length: 100000\r\n\r\n"
UNSIZED = HEAD + b"Connection: close\r\n\r\n"


@pytest.fixture
def management() -> Iterator[FakeManagement]:
    """Return an HTTP server."""
    with FakeManagement() as fake:
        yield fake


@contextmanager
def client(url: str, password: Secret | None = None) -> Iterator[HttpClient]:
    """Return a client that is closed at the end of the test."""
    with closing(HttpClient(PRODUCT, Url.from_setting(url), password=password)) as opened:
        yield opened


def failure(url: str, seconds: float = 20.0) -> TargetError:
    """Return the error of a request to `url`."""
    with client(url) as asking, pytest.raises(TargetError) as caught:
        asking.get("/api/overview", seconds)
    return caught.value


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """Return an address whose queue of connections is full, so that a new one gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            yield address


def test_requests_share_one_connection(management: FakeManagement) -> None:
    """The connection is kept, also after an error status."""
    with client(management.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200
        assert asking.get("/api/nonsense", 20).status == 404
        assert asking.get("/api/nodes", 20).body == b'[{"name": "rabbit@one", "running": true}]'

    assert len(management.requests) == 5
    assert len(management.connections) == 1


def test_gzip_is_requested(management: FakeManagement) -> None:
    """The server may compress its responses."""
    with client(management.url) as asking:
        asking.get("/api/overview", 20)

    assert management.headers[0]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("credentials", "password", "expected"),
    [
        ("", "s3cret", ":s3cret"),
        ("monitor:p%40ss%2F%C3%BC@", None, "monitor:p@ss/ü"),
        ("monitor:old@", "new", "monitor:new"),
        ("monitor@", None, "monitor:"),
    ],
)
def test_user_comes_from_the_address_and_the_password_argument_wins(
    management: FakeManagement, credentials: str, password: str | None, expected: str
) -> None:
    """User and password are sent as basic authentication; a separate password replaces that of the address."""
    secret = Secret(password) if password else None
    with client(management.url.replace("//", f"//{credentials}"), secret) as asking:
        asking.get("/api/overview", 20)

    scheme, _, sent = management.headers[0]["Authorization"].partition(" ")
    assert (scheme, b64decode(sent).decode()) == ("Basic", expected)


def test_no_login_is_sent_without_user_and_password(management: FakeManagement) -> None:
    """Without credentials there is no Authorization header."""
    with client(management.url) as asking:
        asking.get("/api/overview", 20)

    assert "Authorization" not in management.headers[0]


def test_headers_of_the_collector_are_sent_with_each_request(management: FakeManagement) -> None:
    """Headers given to the client are added to the default ones and replace those of the same name."""
    headers = {"Accept": "application/json", "X-Tenant": "shop"}
    with closing(HttpClient(PRODUCT, Url.from_setting(management.url), headers=headers)) as asking:
        asking.get("/api/overview", 20)
        asking.get("/api/nodes", 20)

    for sent in management.headers:
        assert (sent["Accept"], sent["X-Tenant"]) == ("application/json", "shop")


def test_password_that_changed_is_read_again_after_status_401(management: FakeManagement) -> None:
    """A rotated password is used for the same request, without a restart."""
    management.routes["/api/overview"] = in_turn(answer({}, 401), answer({}))
    with client(management.url, Secret("old", lambda: "new")) as asking:
        assert asking.get("/api/overview", 20).status == 200

    sent = [b64decode(headers["Authorization"].split()[1]) for headers in management.headers]
    assert sent == [b":old", b":new"]


@pytest.mark.parametrize("prefix", ["/rabbit", "/rabbit/", "/a/b"])
def test_the_api_may_be_below_a_path(management: FakeManagement, prefix: str) -> None:
    """Paths are below the path of the address, as for an API behind a proxy."""
    with client(management.url + prefix) as asking:
        found = asking.get("/api/queues?columns=name", 20)

    assert management.requests == [f"{prefix.rstrip('/')}/api/queues?columns=name"]
    assert found.address == f"{management.url}{prefix.rstrip('/')}/api/queues"


def test_a_connection_that_the_server_closed_is_replaced(management: FakeManagement) -> None:
    """Servers close idle connections without notice; the next request opens another one."""
    management.routes["/api/overview"] = then_close(answer({}))
    with client(management.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200

    assert len(management.connections) == 3


def test_a_name_that_moves_to_another_server_is_followed(management: FakeManagement) -> None:
    """A name that resolves to another address gets a new connection, although the old one still works."""
    with client(management.url.replace("127.0.0.1", "localhost")) as asking:
        asking._connection._watch = AddressWatch("localhost", 0.0, lambda _: {"192.0.2.1"})
        asking.get("/api/overview", 20)
        before = len(management.connections)

        def is_new() -> bool:
            asking.get("/api/overview", 20)
            return len(management.connections) > before

        wait_until(is_new, "the connection is made again")

    assert before == 1


def test_a_request_on_a_connection_that_closes_is_sent_again(
    management: FakeManagement,
) -> None:
    """If the server closes a kept connection at that moment, a new connection gets the response."""
    replies = answer({}), raw(b""), answer({"asked": "again"})
    management.routes["/api/overview"] = in_turn(*replies)
    with client(management.url) as asking:
        asking.get("/api/overview", 20)

        assert asking.get("/api/overview", 20).body == b'{"asked": "again"}'


def test_a_host_is_reached_although_its_first_address_is_dead(
    management: FakeManagement, full: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first address of a name does not answer, half of the time is left for the next one."""
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
        for address in (full, ("127.0.0.1", management.port))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with client(f"http://rabbit.invalid:{management.port}") as asking:
        assert asking.get("/api/overview", 2).status == 200


def test_a_server_that_comes_back_is_found_again() -> None:
    """The client works again after connection errors."""
    port = free_port()
    with client(f"http://127.0.0.1:{port}") as asking:
        with pytest.raises(TargetError):
            asking.get("/api/overview", 20)
        with FakeManagement(port=port):
            assert asking.get("/api/overview", 20).status == 200
        with pytest.raises(TargetError):
            asking.get("/api/overview", 20)
        with FakeManagement(port=port):
            assert asking.get("/api/overview", 20).status == 200


def test_nothing_listening_is_refused_and_says_what_to_start() -> None:
    """A refused connection has the reason `refused`, the product's advice and no credentials."""
    error = failure(f"http://monitor:s3cret@127.0.0.1:{free_port()}")

    assert error.reason == "refused"
    assert "shop API" in str(error)
    assert "is the shop open?" in str(error)
    assert "s3cret" not in str(error)


def test_an_unknown_host_has_the_reason_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that does not resolve has a reason of its own."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    assert failure("http://rabbit.invalid:15672").reason == "dns"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_no_route_is_unreachable(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A missing route has the reason `unreachable`."""

    def connect(*_: object) -> None:
        raise OSError(number, "no route")

    monkeypatch.setattr(socket.socket, "connect", connect)

    assert failure("http://192.0.2.1:15672").reason == "unreachable"


def test_a_connection_that_is_never_accepted_ends_in_time(full: tuple[str, int]) -> None:
    """A firewall that drops packets costs no more than the time-out."""
    assert failure(f"http://127.0.0.1:{full[1]}", 0.5).reason == "timeout"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hang, id="hang"),
        pytest.param(drip(b"", b"H", 60, b""), id="drip in the status line"),
        pytest.param(drip(HEAD, b"X-More: y\r\n", 60, b"\r\n{}"), id="drip in the headers"),
        pytest.param(drip(SIZED, b" ", 60, b""), id="drip in the body"),
        pytest.param(drip(UNSIZED, b" ", 60, b"{}"), id="drip in a body of unknown length"),
    ],
)
def test_a_slow_answer_ends_in_time_wherever_it_is_slow(
    management: FakeManagement, reply: Reply
) -> None:
    """The deadline covers the whole request, also when the server sends a byte now and then."""
    management.routes["/api/overview"] = reply

    assert failure(management.url, 0.5).reason == "timeout"
    assert not management.dripped_out


def test_an_answer_that_is_slow_but_in_time_is_taken(management: FakeManagement) -> None:
    """A slow response that is complete before the deadline is returned."""
    management.routes["/api/overview"] = drip(UNSIZED, b" ", 3, b"{}")
    with client(management.url) as asking:
        assert asking.get("/api/overview", 20).body == b"   {}"


def test_a_request_after_a_timeout_gets_its_own_response(
    management: FakeManagement,
) -> None:
    """A late response is never taken for the next one."""
    management.routes["/api/overview"] = hang
    with client(management.url) as asking:
        with pytest.raises(TargetError):
            asking.get("/api/overview", 0.2)

        assert asking.get("/api/consumers", 20).body == b"[]"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(raw(b""), "unreachable", id="closed at once"),
        pytest.param(raw(SIZED + b"[{"), "unreachable", id="closed in the body"),
        pytest.param(
            raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[{"), "unreachable", id="in a chunk"
        ),
        pytest.param(raw(b"AMQP\x00\x00\x09\x01"), "protocol", id="another protocol"),
        pytest.param(
            raw(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
            "protocol",
            id="not packed as it says",
        ),
    ],
)
def test_an_answer_that_breaks_has_a_reason(
    management: FakeManagement, reply: Reply, reason: str
) -> None:
    """An incomplete or invalid response is an error with the fitting reason."""
    management.routes["/api/overview"] = reply

    assert failure(management.url).reason == reason


def test_response_larger_than_the_budget_is_refused(management: FakeManagement) -> None:
    """The limit is on the unpacked size, and the error gives the collector's advice."""
    management.routes["/api/overview"] = send(b" " * 2_000_000)
    budget = ByteBudget(1_000_000, "select fewer queues")
    with client(management.url) as asking, pytest.raises(TargetError) as caught:
        asking.get("/api/overview", 20, budget)

    assert caught.value.reason == "protocol"
    assert "the limit of 1000000 bytes; select fewer queues" in str(caught.value)


def test_responses_share_a_budget(management: FakeManagement) -> None:
    """Each response is subtracted, and a share reserves the rest for later responses."""
    management.routes["/api/overview"] = send(b" " * 400)
    budget = ByteBudget(1000)
    with client(management.url) as asking:
        asking.get("/api/overview", 20, budget)
        budget.limit_share(0.5)
        with pytest.raises(TargetError, match="limit of 1000 bytes"):
            asking.get("/api/overview", 20, budget)
        budget.limit_share(1)
        assert budget.remaining == 300


def test_library_is_loaded_only_with_a_client() -> None:
    """A process without an HTTP target does not pay for urllib3."""
    code = "import sys, bts_exporter; print('urllib3' in sys.modules, 'http.client' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout

    assert output == "False False\n"


def test_unexpected_protocols_are_named(management: FakeManagement) -> None:
    """The error for a wrong port says what it is and which port is usual."""
    management.routes["/api/overview"] = raw(b"AMQP\x00\x00\x09\x01")
    error = failure(management.url)

    assert "this is a port of AMQP, not of HTTP; the port is usually 15672" in str(error)


def test_close_interrupts_a_running_request(management: FakeManagement) -> None:
    """A reload does not wait for a server that hangs."""
    management.routes["/api/overview"] = hang
    errors: list[TargetError] = []

    def request() -> None:
        try:
            asking.get("/api/overview", 60)
        except TargetError as error:
            errors.append(error)

    with client(management.url) as asking:
        thread = threading.Thread(target=request)
        thread.start()
        wait_until(lambda: management.requests, "the request arrived")
        asking.close()
        thread.join()

    assert [error.reason for error in errors] == ["unreachable"]


def test_a_closed_client_does_not_open_again() -> None:
    """A request after `close` fails and opens no connection."""
    with client(f"http://127.0.0.1:{free_port()}") as asking:
        asking.close()

        with pytest.raises(TargetError, match="stopped"):
            asking.get("/api/overview", 20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1 that is not trusted."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *(need("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    return both


def test_a_certificate_of_a_trusted_authority_is_accepted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE can name a private authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with FakeManagement(certificate) as fake, client(fake.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200
        connections = len(fake.connections)

    assert connections == 1


def test_a_certificate_that_is_not_trusted_is_refused(certificate: Path) -> None:
    """Nothing is sent to a server whose certificate is not trusted."""
    with FakeManagement(certificate) as fake:
        error = failure(fake.url)
        requests = list(fake.requests)

    assert error.reason == "tls"
    assert "tls.ca_file" in str(error)
    assert requests == []


@pytest.fixture
def named(certificates: Certificates, tmp_path: Path) -> Iterator[FakeManagement]:
    """Return a server whose certificate has another name than its address, from a private authority."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.named.read_bytes() + certificates.named_key.read_bytes())
    with FakeManagement(both) as fake:
        yield fake


def status_of(url: Url, tls: TLSConfig) -> int:
    """Return the status of a response."""
    with closing(HttpClient(PRODUCT, url, tls=tls)) as asking:
        return asking.get("/api/overview", 20).status


def test_a_certificate_of_another_name(named: FakeManagement, certificates: Certificates) -> None:
    """The certificate must contain the host's name or `server_name`, unless verification is off."""
    url, ca = Url.from_setting(named.url), str(certificates.ca)
    with pytest.raises(TargetError) as caught:
        status_of(url, TLSConfig(ca_file=ca))

    assert caught.value.reason == "tls"
    assert status_of(url, TLSConfig(ca_file=ca, server_name=SERVER_NAME)) == 200
    assert status_of(url, TLSConfig(insecure_skip_verify=True)) == 200


def test_files_of_tls_are_read_at_every_connection(
    named: FakeManagement, certificates: Certificates, tmp_path: Path
) -> None:
    """An unusable file is named in the error; once corrected, it is used without a restart."""
    ca = tmp_path / "ca.pem"
    tls = TLSConfig(ca_file=str(ca), server_name=SERVER_NAME)
    with closing(HttpClient(PRODUCT, Url.from_setting(named.url), tls=tls)) as asking:
        with pytest.raises(TargetError, match=f"ca_file {ca} cannot be used") as caught:
            asking.get("/api/overview", 20)
        ca.write_bytes(certificates.ca.read_bytes())
        status = asking.get("/api/overview", 20).status

    assert caught.value.reason == "tls"
    assert status == 200


def test_a_server_that_does_not_speak_tls_is_a_tls_error(management: FakeManagement) -> None:
    """https:// to a plain HTTP port is a TLS error."""
    assert failure(management.url.replace("http", "https")).reason == "tls"


def test_a_handshake_that_hangs_ends_in_time() -> None:
    """A port that accepts and stays silent costs no more than the time-out."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        assert failure(f"https://127.0.0.1:{silent.getsockname()[1]}", 0.5).reason == "timeout"
