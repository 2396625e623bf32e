from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import monotonic

import pytest
from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from bts_collectors.rabbitmq.amqp.connection import AmqpConnection, explain, ssl_options, vhost_of
from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Scrape, Secret, TargetError, TLSConfig, Url, testing
from servers import free_port
from servers.certificates import SERVER_NAME, Certificates


@contextmanager
def collector(url: str, password: str | None = None) -> Iterator[RabbitMQ]:
    """Return a collector that asks for one queue and is stopped in the end."""
    secret = None if password is None else Secret(password)
    settings = COLLECTOR.Config(url=Url.from_setting(url), password=secret, declare=("orders",))
    made = COLLECTOR(settings)
    try:
        yield made
    finally:
        made.stop()


def failing(made: RabbitMQ, seconds: float = 20.0) -> tuple[TargetError, testing.Samples]:
    """Return what a collection that fails raises, and what it emitted before."""
    scrape = Scrape(monotonic() + seconds)
    with pytest.raises(TargetError) as caught:
        made.collect(scrape)
    return caught.value, testing.samples(made, scrape)


def answering_nonsense(server: socket.socket) -> threading.Thread:
    """Answer one connection with what no client of it expects."""

    def answer() -> None:
        connection, _ = server.accept()
        with closing(connection):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.recv(1000)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_nothing_listening_is_a_broker_that_is_down() -> None:
    """If the connection is refused, queues are unknown, not missing."""
    url = f"amqp://monitor:s3cret@127.0.0.1:{free_port()}"
    with collector(url) as made:
        error, samples = failing(made)

    assert error.reason == "refused"
    assert url.replace("monitor:s3cret@", "") in str(error)
    assert "s3cret" not in str(error)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_an_unknown_host_is_a_matter_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that does not resolve has the reason `dns`."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with collector("amqp://rabbit.invalid") as made:
        error, _ = failing(made)

    assert error.reason == "dns"


def test_a_broker_that_says_nothing_is_down_by_the_deadline() -> None:
    """A silent broker is reported as down in time, and gets no second request before it answers the first."""
    silent = socket.create_server(("127.0.0.1", 0))
    with closing(silent), collector(f"amqp://127.0.0.1:{silent.getsockname()[1]}") as made:
        rounds = []
        for _ in range(2):
            error, samples = failing(made, 0.3)
            rounds.append(made._sources[0]._request)  # type: ignore[attr-defined]

            assert error.reason == "timeout"
            assert samples == {"rabbitmq_up": {(): 0}}

    assert rounds[0] is rounds[1]


def test_settings_of_tls_become_those_of_the_client_library(certificates: Certificates) -> None:
    """CA and server name are passed to pika; the default name is the host."""
    url, ca = Url.from_setting("amqps://broker/prod"), str(certificates.ca)
    plain = ssl_options(url, TLSConfig(ca_file=ca))
    named = ssl_options(url, TLSConfig(ca_file=ca, server_name=SERVER_NAME))

    assert (plain.server_hostname, named.server_hostname) == ("broker", SERVER_NAME)
    assert len(plain.context.get_ca_certs()) == 1
    assert plain.context.check_hostname


def test_a_file_of_tls_that_cannot_be_used_is_named() -> None:
    """An unusable TLS file is named before any connection, at every attempt."""
    url = Url("amqps", "127.0.0.1", free_port())
    link = AmqpConnection(url, None, TLSConfig(ca_file="/nowhere/ca.pem"), 20.0)
    for _ in range(2):
        with (
            pytest.raises(TargetError, match=r"ca_file /nowhere/ca.pem cannot") as caught,
            link.use(),
        ):
            pass

        assert caught.value.reason == "tls"


def test_no_tls_where_tls_is_expected() -> None:
    """A TLS error names the side of the connection to check."""
    plain = socket.create_server(("127.0.0.1", 0))
    with closing(plain), collector(f"amqps://127.0.0.1:{plain.getsockname()[1]}") as made:
        accepted = answering_nonsense(plain)
        error, _ = failing(made)
        accepted.join()

    assert error.reason == "tls"


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://broker", "/"),
        ("amqp://broker/", "/"),
        ("amqp://broker/prod", "prod"),
        ("amqp://broker/%2F", "/"),
        ("amqp://broker/prod%2Feu", "prod/eu"),
    ],
)
def test_the_path_of_the_address_is_the_virtual_host(url: str, vhost: str) -> None:
    """The virtual host is the percent-encoded path of the address."""
    assert vhost_of(Url.from_setting(url)) == vhost


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (exceptions.AMQPHeartbeatTimeout("x"), "timeout", "no reply in time"),
        (AMQPConnectorStackTimeout("x"), "timeout", "port for AMQP (5672, over TLS 5671)?"),
        (exceptions.IncompatibleProtocolError("x"), "unreachable", "15672 is the port of the"),
        (exceptions.ConnectionBlockedTimeout("x"), "timeout", "alarm"),
        (exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED"), "noperm", "ACCESS_REFUSED"),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), "protocol", "320"),
        (exceptions.StreamLostError("reset"), "unreachable", "closed by the server"),
        (exceptions.IncompatibleProtocolError("lost: SSLError(1, 'x')"), "tls", "tls.cert_file"),
        (exceptions.IncompatibleProtocolError("lost: SSLEOFError(8, 'x')"), "tls", "tls.cert_file"),
        (
            exceptions.AMQPConnectionError(ConnectionRefusedError()),
            "refused",
            "is RabbitMQ running",
        ),
    ],
)
def test_what_the_client_library_raises_has_a_reason(
    error: Exception, reason: str, words: str
) -> None:
    """Each error of pika has a reason, however deeply it is wrapped."""
    found = explain(error, "amqp://broker")

    assert found.reason == reason
    assert words in str(found)
