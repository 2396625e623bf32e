"""Requests that are sent once, and the phases of a request."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bts_exporter import HttpClient, HttpRequest, Product, Secret, TargetError, TLSConfig, Url
from servers.certificates import SERVER_NAME, Certificates
from servers.management import FakeManagement, answer, drip, hang, in_turn, raw

PRODUCT = Product("shop API")
POST = HttpRequest("/api/nodes", "POST", {"Content-Type": "application/json"}, b'{"a": 1}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture
def management() -> Iterator[FakeManagement]:
    """Return an HTTP server."""
    with FakeManagement() as fake:
        yield fake


def client(url: str, **options: object) -> HttpClient:
    """Return a client of `url`."""
    return HttpClient(PRODUCT, Url.from_setting(url), **options)  # type: ignore[arg-type]


def test_method_headers_and_body_are_sent(management: FakeManagement) -> None:
    """The headers of the request are added to those of the client, and replace them."""
    headers = {"Content-Type": "text/plain", "X-Tenant": "shop"}
    with closing(client(management.url, headers=headers)) as asking:
        response = asking.send(POST, 20)

    assert (response.status, response.content_type) == (200, "application/json")
    assert (management.requests, management.bodies) == (["/api/nodes"], [b'{"a": 1}'])
    sent = management.headers[0]
    assert (sent["Content-Type"], sent["X-Tenant"]) == ("application/json", "shop")


def test_each_request_has_a_connection_of_its_own(management: FakeManagement) -> None:
    """All phases happen each time, but for the lookup of an address that needs none."""
    with closing(client(management.url)) as asking:
        for _ in range(2):
            asking.send(POST, 20)
            assert list(asking.phases) == ["connect", "processing", "receive"]
            assert all(seconds >= 0 for seconds in asking.phases.values())

    assert len(management.connections) == 2


def test_lookup_of_a_name_is_a_phase(management: FakeManagement) -> None:
    """A host name is resolved for each connection."""
    with closing(client(management.url.replace("127.0.0.1", "localhost"))) as asking:
        asking.send(POST, 20)

        assert list(asking.phases) == ["dns", "connect", "processing", "receive"]


def test_kept_connection_has_only_the_phases_of_the_request(management: FakeManagement) -> None:
    """A phase that did not happen is missing, not zero."""
    with closing(client(management.url)) as asking:
        asking.get("/api/nodes", 20)
        first = list(asking.phases)
        asking.get("/api/nodes", 20)

        assert (first, list(asking.phases)) == (
            ["connect", "processing", "receive"],
            ["processing", "receive"],
        )


def test_slow_body_is_the_time_to_receive(management: FakeManagement) -> None:
    """The phase ends with the last byte of the body, which arrives in two pieces 0.1 s apart."""
    management.routes["/api/nodes"] = drip(HEAD, b"x" * 50, 2, b"")
    with closing(client(management.url)) as asking:
        asking.send(POST, 20)

        assert asking.phases["receive"] > 0.1


def test_request_is_not_repeated(management: FakeManagement) -> None:
    """A server that closes the connection gets it once, also where a kept connection was open."""
    management.routes["/api/nodes"] = in_turn(answer({}), raw(b""))
    with closing(client(management.url)) as asking:
        asking.get("/api/nodes", 20)
        with pytest.raises(TargetError) as caught:
            asking.send(POST, 20)

    assert caught.value.reason == "unreachable"
    assert management.bodies == [b'{"a": 1}']


def test_answer_to_a_body_that_the_server_does_not_read() -> None:
    """A server that refuses a large body, and closes before it has read all of it, has answered."""

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=refuse, args=[listener])
        serving.start()
        with closing(client(f"http://127.0.0.1:{listener.getsockname()[1]}")) as asking:
            response = asking.send(POST._replace(body=b"x" * 30_000_000), 20)
        serving.join()

    assert response.status == 413


def test_phases_that_ended_are_known_after_a_failure(management: FakeManagement) -> None:
    """Of a service that accepts and does not answer, the time to connect is known."""
    management.routes["/api/nodes"] = hang
    with closing(client(management.url)) as asking:
        with pytest.raises(TargetError):
            asking.send(POST, 0.2)

        assert list(asking.phases) == ["connect"]


def test_secret_that_changed_is_used_for_the_next_request(management: FakeManagement) -> None:
    """After status 401 the password is read again, and the request is not repeated."""
    management.routes["/api/nodes"] = in_turn(answer({}, 401), answer({}))
    with closing(client(management.url, password=Secret("old", lambda: "new"))) as asking:
        statuses = [asking.send(POST, 20).status for _ in range(2)]

    sent = [b64decode(headers["Authorization"].split()[1]) for headers in management.headers]
    assert (statuses, sent) == ([401, 200], [b":old", b":new"])


def test_token_is_sent_as_bearer_authentication(management: FakeManagement) -> None:
    """A token of a file that was replaced is read again after status 401."""
    management.routes["/api/nodes"] = in_turn(answer({}, 401), answer({}))
    with closing(client(management.url, token=Secret("old", lambda: "new"))) as asking:
        assert asking.get("/api/nodes", 20).status == 200

    sent = [headers["Authorization"] for headers in management.headers]
    assert sent == ["Bearer old", "Bearer new"]


def test_token_that_no_header_can_have_is_not_shown(management: FakeManagement) -> None:
    """It is refused before the library would quote it; such a token in a file that changed is not used."""
    with pytest.raises(ValueError, match="token: it has line ends") as caught:
        client(management.url, token=Secret("s3cret\nx"))
    assert "s3cret" not in str(caught.value)

    management.routes["/api/nodes"] = answer({}, 401)
    with closing(client(management.url, token=Secret("old", lambda: "new\nx"))) as asking:
        assert asking.get("/api/nodes", 20).status == 401
        assert asking.get("/api/nodes", 20).status == 401


@pytest.mark.parametrize("verified", [True, False])
def test_expiry_of_the_certificate(
    certificates: Certificates, verified: bool, tmp_path: Path
) -> None:
    """It is known after the handshake, which is a phase; also if the certificate is not verified."""
    both = tmp_path / "server.pem"
    both.write_bytes(certificates.server.read_bytes() + certificates.server_key.read_bytes())
    tls = TLSConfig(insecure_skip_verify=True)
    if verified:
        tls = TLSConfig(ca_file=str(certificates.ca), server_name=SERVER_NAME)
    with FakeManagement(both) as fake, closing(client(fake.url, tls=tls)) as asking:
        asking.send(POST, 20)

        assert list(asking.phases) == ["connect", "tls", "processing", "receive"]
        assert asking.certificate_expiry is not None
        assert 0 < asking.certificate_expiry - time.time() < 3 * 86400


def test_no_request_is_sent_without_tls_if_a_file_is_missing(
    certificates: Certificates, tmp_path: Path
) -> None:
    """The next request fails as the first one: no connection is left that has no TLS."""
    both = tmp_path / "server.pem"
    both.write_bytes(certificates.server.read_bytes() + certificates.server_key.read_bytes())
    with (
        FakeManagement(both) as fake,
        closing(client(fake.url, tls=TLSConfig(ca_file=str(tmp_path / "none.pem")))) as asking,
    ):
        for _ in range(2):
            with pytest.raises(TargetError, match=r"none\.pem cannot be used"):
                asking.get("/api/nodes", 20)

        assert (fake.connections, fake.requests) == ([], [])
