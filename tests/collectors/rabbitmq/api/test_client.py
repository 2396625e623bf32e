from __future__ import annotations

import errno
import socket
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bts_collectors.rabbitmq.api import http_limits
from bts_collectors.rabbitmq.api.client import Client
from bts_exporter import AddressWatch, Secret, TargetError, TLSConfig, Url
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

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SIZED = HEAD + b"Content-Length: 100000\r\n\r\n"
UNSIZED = HEAD + b"Connection: close\r\n\r\n"


@contextmanager
def client(url: str, password: str | None = None) -> Iterator[Client]:
    """Return a client that is closed in the end."""
    secret = None if password is None else Secret(password)
    with closing(Client(Url.from_setting(url), secret)) as opened:
        yield opened


def failure(url: str, seconds: float = 20.0) -> TargetError:
    """Return the error that asking `url` for its overview ends in."""
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


def test_all_questions_go_through_one_connection(management: FakeManagement) -> None:
    """A connection for each would cost the broker more than the answers."""
    with client(management.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200
        assert asking.get("/api/nonsense", 20).status == 404
        assert asking.get("/api/nodes", 20).body == b'[{"name": "rabbit@one", "running": true}]'

    assert len(management.requests) == 5
    assert len(management.connections) == 1


def test_answers_are_asked_for_packed(management: FakeManagement) -> None:
    """Lists of queues shrink to a fortieth."""
    with client(management.url) as asking:
        asking.get("/api/overview", 20)

    assert management.headers[0]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("credentials", "password", "expected"),
    [
        ("", None, "guest:guest"),
        ("", "s3cret", "guest:s3cret"),
        ("monitor:p%40ss%2F%C3%BC@", None, "monitor:p@ss/ü"),
        ("monitor:old@", "new", "monitor:new"),
        ("monitor@", None, "monitor:"),
    ],
)
def test_the_user_is_the_addresss_and_the_password_the_settings(
    management: FakeManagement, credentials: str, password: str | None, expected: str
) -> None:
    """Whoever names none is the user that RabbitMQ is installed with."""
    with client(management.url.replace("//", f"//{credentials}"), password) as asking:
        asking.get("/api/overview", 20)

    scheme, _, sent = management.headers[0]["Authorization"].partition(" ")
    assert (scheme, b64decode(sent).decode()) == ("Basic", expected)


@pytest.mark.parametrize("prefix", ["/rabbit", "/rabbit/", "/a/b"])
def test_the_api_may_be_under_a_path(management: FakeManagement, prefix: str) -> None:
    """Behind a proxy, or with the broker's own management.path_prefix."""
    with client(management.url + prefix) as asking:
        found = asking.get("/api/queues?columns=name", 20)

    assert management.requests == [f"{prefix.rstrip('/')}/api/queues?columns=name"]
    assert found.place == f"{management.url}{prefix.rstrip('/')}/api/queues"


def test_a_connection_that_the_server_gave_up_is_replaced(management: FakeManagement) -> None:
    """The broker closes what idles longer than it likes, without a word."""
    management.routes["/api/overview"] = then_close(answer({}))
    with client(management.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200

    assert len(management.connections) == 3


def test_a_name_that_moves_to_another_server_is_followed(management: FakeManagement) -> None:
    """A kept connection would stay with the old server for as long as that lives."""
    with client(management.url.replace("127.0.0.1", "localhost")) as asking:
        asking._watch = AddressWatch("localhost", 0.0, lambda _: {"192.0.2.1"})
        asking.get("/api/overview", 20)
        before = len(management.connections)

        def is_new() -> bool:
            asking.get("/api/overview", 20)
            return len(management.connections) > before

        wait_until(is_new, "the connection is made again")

    assert before == 1


def test_a_question_that_meets_the_end_of_its_connection_is_asked_again(
    management: FakeManagement,
) -> None:
    """The server may close just as the question is on its way: the next connection answers it."""
    replies = answer({}), raw(b""), answer({"asked": "again"})
    management.routes["/api/overview"] = in_turn(*replies)
    with client(management.url) as asking:
        asking.get("/api/overview", 20)

        assert asking.get("/api/overview", 20).body == b'{"asked": "again"}'


def test_a_host_is_reached_although_its_first_address_is_dead(
    management: FakeManagement, full: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may have an address of IPv6 that nothing answers at: time is left for the other."""
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
        for address in (full, ("127.0.0.1", management.port))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with client(f"http://rabbit.invalid:{management.port}") as asking:
        assert asking.get("/api/overview", 2).status == 200


def test_a_server_that_comes_back_is_found_again() -> None:
    """No error leaves the client unusable."""
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
    """The reason that makes an optional target no error."""
    error = failure(f"http://monitor:s3cret@127.0.0.1:{free_port()}")

    assert error.reason == "refused"
    assert "rabbitmq-plugins enable rabbitmq_management" in str(error)
    assert "s3cret" not in str(error)


def test_an_unknown_host_is_a_matter_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the address is told from a broker that is down."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    assert failure("http://rabbit.invalid:15672").reason == "dns"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_no_route_is_unreachable(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The network's fault and not the broker's."""

    def connect(*_: object) -> None:
        raise OSError(number, "no route")

    monkeypatch.setattr(socket.socket, "connect", connect)

    assert failure("http://192.0.2.1:15672").reason == "unreachable"


def test_a_connection_that_is_never_accepted_ends_in_time(full: tuple[str, int]) -> None:
    """As behind a firewall that drops what it does not like."""
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
    """Each byte restarts a socket's own time-out: dripping must not outlast the deadline."""
    management.routes["/api/overview"] = reply

    assert failure(management.url, 0.5).reason == "timeout"
    assert not management.dripped_out


def test_an_answer_that_is_slow_but_in_time_is_taken(management: FakeManagement) -> None:
    """Slowness alone is no fault."""
    management.routes["/api/overview"] = drip(UNSIZED, b" ", 3, b"{}")
    with client(management.url) as asking:
        assert asking.get("/api/overview", 20).body == b"   {}"


def test_a_question_after_one_that_took_too_long_gets_its_own_answer(
    management: FakeManagement,
) -> None:
    """What arrives late belongs to nobody."""
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
    """Half an answer is none."""
    management.routes["/api/overview"] = reply

    assert failure(management.url).reason == reason


def test_an_answer_without_end_is_given_up(
    management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small it was packed."""
    monkeypatch.setattr(http_limits, "MAX_BYTES", 1_000_000)
    management.routes["/api/overview"] = send(b" " * 2_000_000)

    error = failure(management.url)

    assert error.reason == "protocol"
    assert "the 1000000 bytes for all of a collection" in str(error)


def test_closing_breaks_off_a_question_under_way(management: FakeManagement) -> None:
    """A reload does not wait for a broker that hangs."""
    management.routes["/api/overview"] = hang
    errors: list[TargetError] = []

    def ask() -> None:
        try:
            asking.get("/api/overview", 60)
        except TargetError as error:
            errors.append(error)

    with client(management.url) as asking:
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: management.requests, "the question arrived")
        asking.close()
        thread.join()

    assert [error.reason for error in errors] == ["unreachable"]


def test_a_closed_client_does_not_open_again() -> None:
    """Nothing would close that connection."""
    with client(f"http://127.0.0.1:{free_port()}") as asking:
        asking.close()

        with pytest.raises(TargetError, match="stopped"):
            asking.get("/api/overview", 20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1 that nobody trusts."""
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
    """A private authority is trusted by way of SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with FakeManagement(certificate) as fake, client(fake.url) as asking:
        for _ in range(3):
            assert asking.get("/api/overview", 20).status == 200
        connections = len(fake.connections)

    assert connections == 1


def test_a_certificate_that_nobody_trusts_is_refused(certificate: Path) -> None:
    """Credentials are not sent to whoever answers."""
    with FakeManagement(certificate) as fake:
        error = failure(fake.url)
        requests = list(fake.requests)

    assert error.reason == "tls"
    assert "tls.ca_file" in str(error)
    assert requests == []


@pytest.fixture
def named(certificates: Certificates, tmp_path: Path) -> Iterator[FakeManagement]:
    """Return a server whose certificate has another name than its address, of an authority of our own."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.named.read_bytes() + certificates.named_key.read_bytes())
    with FakeManagement(both) as fake:
        yield fake


def ask(url: Url, tls: TLSConfig) -> int:
    """Return the status of an answer."""
    with closing(Client(url, tls=tls)) as asking:
        return asking.get("/api/overview", 20).status


def test_a_certificate_of_another_name(named: FakeManagement, certificates: Certificates) -> None:
    """It must have the host's name, or that of server_name; or nobody asks for a name."""
    url, ca = Url.from_setting(named.url), str(certificates.ca)
    with pytest.raises(TargetError) as caught:
        ask(url, TLSConfig(ca_file=ca))

    assert caught.value.reason == "tls"
    assert ask(url, TLSConfig(ca_file=ca, server_name=SERVER_NAME)) == 200
    assert ask(url, TLSConfig(insecure_skip_verify=True)) == 200


def test_files_of_tls_are_read_at_every_connection(
    named: FakeManagement, certificates: Certificates, tmp_path: Path
) -> None:
    """One that cannot be used is named; put right, it counts without a restart."""
    ca = tmp_path / "ca.pem"
    tls = TLSConfig(ca_file=str(ca), server_name=SERVER_NAME)
    with closing(Client(Url.from_setting(named.url), tls=tls)) as asking:
        with pytest.raises(TargetError, match=f"ca_file {ca} cannot be used") as caught:
            asking.get("/api/overview", 20)
        ca.write_bytes(certificates.ca.read_bytes())
        status = asking.get("/api/overview", 20).status

    assert caught.value.reason == "tls"
    assert status == 200


def test_a_server_that_does_not_speak_tls_is_a_tls_error(management: FakeManagement) -> None:
    """The address says https and the port http."""
    assert failure(management.url.replace("http", "https")).reason == "tls"


def test_a_handshake_that_hangs_ends_in_time() -> None:
    """A port that accepts and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        assert failure(f"https://127.0.0.1:{silent.getsockname()[1]}", 0.5).reason == "timeout"
