"""Sessions with both ways of reading, batched and paho's own."""

from __future__ import annotations

import gc
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client import batch_reader as reader_module
from bts_collectors.mqtt.client import router as router_module
from bts_collectors.mqtt.client import session as module
from bts_collectors.mqtt.client.batch_reader import BatchReader
from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.router import Handler, Outgoing, Publish, Router
from bts_collectors.mqtt.client.session import Protocol, Session, Target
from bts_collectors.mqtt.client.state import DISCONNECT_REASONS, ConnectionState
from bts_collectors.mqtt.client.subscriptions import Subscriptions, Suspects
from bts_collectors.mqtt.client.topics import Subscription
from bts_exporter import TargetError, TLSConfig, Url
from servers.certificates import Certificates

Message = tuple[str, bytes, bool]
#: Serves bytes behind the subscription and returns what the receiver took and what became of it.
Exchange = Callable[..., "Ended"]

PROTOCOLS: tuple[Protocol, ...] = ("3.1.1", 5)


class Keeps:
    """Receives every message; fails for messages that say so."""

    subscriptions = (Subscription("#"),)

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.published: list[Outgoing] = []
        self.ticks = 0

    def begin(self) -> None:
        """Do nothing."""

    def route(self, topic: str) -> Handler | None:
        """Take it."""

        def take(payload: bytes, retained: bool, _properties: bytes = b"") -> None:
            if payload == b"fail":
                msg = "defect"
                raise RuntimeError(msg)
            self.messages.append((topic, payload, retained))

        return take

    def tick(self, publish: Publish) -> None:
        """Publish the messages of a test."""
        self.ticks += 1
        while self.published:
            publish(self.published.pop())


class Ended:
    """The state after a session."""

    def __init__(self) -> None:
        self.keeps = Keeps()
        self.state = ConnectionState()
        self.errors: list[Exception] = []
        self.router = Router([self.keeps], ErrorBoundary(self.errors.append))
        self.failure: TargetError | None = None
        self.received = b""

    @property
    def messages(self) -> list[Message]:
        """Return the received messages."""
        return self.keeps.messages


def length(number: int) -> bytes:
    """Return a variable byte integer."""
    spelled = bytearray()
    while number > 127:
        spelled.append(number & 127 | 128)
        number >>= 7
    return bytes([*spelled, number])


def publish(
    topic: str | bytes,
    payload: bytes,
    *,
    protocol: Protocol = "3.1.1",
    qos: int = 0,
    retain: bool = False,
    properties: bytes = b"",
) -> bytes:
    """Return a PUBLISH packet."""
    name = topic if isinstance(topic, bytes) else topic.encode()
    body = len(name).to_bytes(2, "big") + name + (b"\x00\x07" if qos else b"")
    if protocol == 5:
        body += length(len(properties)) + properties
    body += payload
    return bytes([0x30 | qos << 1 | retain]) + length(len(body)) + body


@pytest.fixture(params=["batched", "paho"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select the way of reading."""
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    if request.param == "paho":
        monkeypatch.setattr(BatchReader, "fits", lambda: False)
    return str(request.param)


@pytest.fixture
def exchange(reading: str) -> Iterator[Exchange]:
    """Return a function that runs a session against a broker that sends the given bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def converse(ended: Ended, protocol: Protocol, chunks: tuple[bytes, ...], answers: int) -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.settimeout(20)
            five = protocol == 5
            connection.recv(4096)
            connection.sendall(b"\x20\x03\x00\x00\x00" if five else b"\x20\x02\x00\x00")
            request = connection.recv(4096)
            suback = request[2:4] + (b"\x00" if five else b"") + b"\x00"
            connection.sendall(b"\x90" + length(len(suback)) + suback)
            for chunk in chunks:
                connection.sendall(chunk)
            while len(ended.received) < answers and (data := connection.recv(4096)):
                ended.received += data
            # What is sent arrives although what the client sends is not read any more.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    def run(
        *chunks: bytes,
        protocol: Protocol = "3.1.1",
        answers: int = 0,
        published: Outgoing | None = None,
    ) -> Ended:
        ended = Ended()
        if published:
            ended.keeps.published.append(published)
        broker = Thread(target=converse, args=(ended, protocol, chunks, answers), daemon=True)
        broker.start()
        target = Target(Url("mqtt", "127.0.0.1", port), None, "id", 60, protocol)
        session = Session(target, ended.router, ended.state, ErrorBoundary(ended.errors.append))
        try:
            session.run(Event())
        except TargetError as failure:
            ended.failure = failure
        broker.join(20)
        return ended

    yield run
    listener.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 300, 16_384, 70_000, 1_000_000])
def test_messages_of_any_size_arrive(exchange: Exchange, size: int, protocol: Protocol) -> None:
    """Small messages arrive many at once, large ones in many pieces, all complete."""
    sent = [(f"bts/{number}", bytes([65 + number]) * size, number % 2 == 1) for number in range(5)]
    ended = exchange(
        b"".join(publish(t, p, retain=r, protocol=protocol) for t, p, r in sent), protocol=protocol
    )

    assert ended.messages == sent
    assert ended.state.granted == {"#": 0}
    assert ended.state.heartbeat > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("qos", [1, 2])
def test_messages_of_other_qos_are_acknowledged(
    exchange: Exchange, qos: int, protocol: Protocol
) -> None:
    """They are delivered in order, and acknowledged as the protocol requires."""
    packets = publish("a", b"1", protocol=protocol) + publish("b", b"2", qos=qos, protocol=protocol)
    if qos == 2:
        packets += b"\x62\x02\x00\x07"  # PUBREL: it is delivered now
    packets += publish("c", b"3", protocol=protocol)
    ended = exchange(packets, protocol=protocol, answers=4 * qos)

    assert ended.messages == [("a", b"1", False), ("b", b"2", False), ("c", b"3", False)]
    assert ended.received[:4] == (b"\x40\x02\x00\x07" if qos == 1 else b"\x50\x02\x00\x07")


def test_packets_may_be_cut_anywhere(exchange: Exchange) -> None:
    """An incomplete packet waits for the rest, even if it ends within its length."""
    stream = b"".join(publish(f"t/{n}", b"x" * (n * 60), qos=n % 2) for n in range(5))
    ended = exchange(*[stream[at : at + 1] for at in range(len(stream))])

    assert [(topic, len(payload)) for topic, payload, _ in ended.messages] == [
        (f"t/{n}", n * 60) for n in range(5)
    ]


def test_properties_of_mqtt_5_are_not_part_of_the_payload(exchange: Exchange) -> None:
    """Long and short properties are skipped."""
    user = b"\x26" + b"\x00\x01k" + b"\x01\x2c" + b"v" * 300
    sent = [b"", b"\x01\x01", user]
    ended = exchange(
        b"".join(publish("t", b"p", protocol=5, properties=one) for one in sent), protocol=5
    )

    assert ended.messages == [("t", b"p", False)] * 3


def test_message_whose_handler_fails_affects_no_other(exchange: Exchange) -> None:
    """Messages before and after it arrive, with any QoS, and the error is counted."""
    ended = exchange(
        publish("a", b"1") + publish("b", b"fail") + publish("c", b"2")
        + publish("d", b"fail", qos=1) + publish("e", b"3")
    )  # fmt: skip

    assert [payload for _, payload, _ in ended.messages] == [b"1", b"2", b"3"]
    assert [str(error) for error in ended.errors] == ["defect", "defect"]


@pytest.mark.parametrize("qos", [0, 1])
def test_topic_with_invalid_utf_8_is_counted(exchange: Exchange, qos: int) -> None:
    """The message is discarded, and the connection continues."""
    ended = exchange(publish(b"\xff\xfe", b"1", qos=qos) + publish("a", b"2"))

    assert ended.messages == [("a", b"2", False)]
    assert ended.router.undecodable == 1
    assert ended.errors == []


@pytest.mark.parametrize(("qos", "answer"), [(0, b""), (1, b"\x40\x02\x00\x07")])
def test_payload_that_is_too_large_is_skipped(exchange: Exchange, qos: int, answer: bytes) -> None:
    """A payload that is too large is counted and, with QoS 1 or 2, acknowledged; later messages arrive."""
    big = publish("big", bytes(10_000_000), qos=qos)
    ended = exchange(publish("a", b"1") + big + publish("b", b"2"), answers=len(answer))

    assert [topic for topic, _, _ in ended.messages] == ["a", "b"]
    assert ended.router.oversized == 1
    assert ended.received == answer


@pytest.mark.parametrize("reading", ["batched"], indirect=True)  # paho keeps what it reads
@pytest.mark.parametrize("cut", [1, 3, 6, 9, 11, 12, 100])
def test_a_large_packet_may_come_in_pieces(exchange: Exchange, cut: int) -> None:
    """A large packet is acknowledged once, wherever its header is cut."""
    big = publish("big", bytes(2_000_000), qos=2)
    ended = exchange(big[:cut], big[cut:] + publish("b", b"2"), answers=4)

    assert [topic for topic, _, _ in ended.messages] == ["b"]
    assert ended.router.oversized == 1
    assert ended.received == b"\x50\x02\x00\x07"


@pytest.mark.parametrize("reading", ["batched"], indirect=True)  # as above
def test_payload_that_is_too_large_is_not_kept(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader never buffers more than the largest accepted packet."""
    held: list[int] = []
    consume = BatchReader._consume

    def watch(client: BatchReader, buffer: bytes) -> object:
        held.append(len(buffer))
        return consume(client, buffer)

    monkeypatch.setattr(BatchReader, "_consume", watch)
    exchange(publish("big", bytes(10_000_000)) + publish("b", b"2"))

    assert max(held) <= 2 * reader_module._READ_BYTES


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",  # no such packet
        b"\x30\x00",  # a PUBLISH without a topic
        b"\x30\x01\x00",  # half a topic's length
        b"\x30\x04\x00\x09ab",  # a topic that is longer than the packet
        b"\x30\x03\x00\x00x",  # an empty topic
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x32\x03\x00\x01a",  # QoS 1 without an identifier
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x40\x01\x00",  # half an acknowledgement
        b"\xd0\x01\x00",  # an answer to PING with something in it
    ],
)
def test_malformed_packet_ends_the_connection(exchange: Exchange, garbage: bytes) -> None:
    """The reason is known, and messages before it are delivered."""
    ended = exchange(publish("a", b"1") + garbage + publish("b", b"2"))

    assert ended.messages == [("a", b"1", False)]
    assert ended.failure is not None
    assert ended.failure.reason == "protocol"
    assert ended.errors == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=40), protocol=st.sampled_from(PROTOCOLS))
def test_no_input_raises_an_unexpected_error(
    exchange: Exchange, garbage: bytes, protocol: Protocol
) -> None:
    """Any bytes end in a known failure."""
    ended = exchange(publish("a", b"1", protocol=protocol) + garbage, protocol=protocol)

    assert ended.failure is not None
    assert ended.failure.reason in {"protocol", "unreachable"}
    assert ended.messages[0] == ("a", b"1", False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_receiver_can_publish(exchange: Exchange, protocol: Protocol) -> None:
    """A receiver publishes in the network thread, as soon as its subscription is answered."""
    expected = publish("canary", b"1", protocol=protocol)
    ended = exchange(published=Outgoing("canary", b"1"), protocol=protocol, answers=len(expected))

    assert ended.received.startswith(expected)


def test_receivers_do_not_tick_at_each_message(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Periodic work runs twice a second, not per message."""
    monkeypatch.setattr(module, "TICK_SECONDS", 60.0)
    ended = exchange(*[publish("a", b"1")] * 50)

    assert len(ended.messages) == 50
    assert ended.keeps.ticks <= 1


# paho leaves the socket of a connection that fails to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("path", "query", "requested"),
    [
        ("/broker", "key=1", "/broker?key=1"),
        ("/", "", "/"),
        ("", "", "/mqtt"),
        ("/mqtt/", "", "/mqtt/"),
    ],
)
def test_path_of_a_websocket_is_requested(
    reading: str, path: str, query: str, requested: str
) -> None:
    """With its query; a server that does not upgrade the connection is reported."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = Url("ws", "127.0.0.1", listener.getsockname()[1], path=path, query=query)
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        server = Thread(target=answer, daemon=True)
        server.start()
        with pytest.raises(TargetError) as failure:
            Session(
                Target(url, None, "id", 60), Ended().router, ConnectionState(), ErrorBoundary(print)
            ).run(Event())
        server.join(20)

    assert heard[0].startswith(f"GET {requested} HTTP/1.1\r\n".encode())
    reason, words = failure.value.reason, str(failure.value)
    del failure
    gc.collect()
    assert (reason, "key=1" in words) == ("protocol", False)


def test_tls_that_breaks_ends_the_connection(certificates: Certificates) -> None:
    """Data that is not TLS, within a TLS connection, has the reason tls."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, certificates.server_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = Url("mqtts", "127.0.0.1", listener.getsockname()[1])

        def converse() -> None:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00")
                connection.recv(4096)
                with socket.socket(fileno=connection.detach()) as bare:
                    bare.sendall(b"no TLS")
                    bare.recv(4096)

        server = Thread(target=converse, daemon=True)
        server.start()
        target = Target(url, None, "id", 60, tls=TLSConfig(ca_file=str(certificates.ca)))
        state = ConnectionState()
        with pytest.raises(TargetError, match="WRONG_VERSION_NUMBER") as failure:
            Session(target, Ended().router, state, ErrorBoundary(print)).run(Event())
        server.join(20)

    assert failure.value.reason == "tls"
    assert failure.value.reason in DISCONNECT_REASONS
    assert state.connected


def test_disconnect_packet_ends_the_connection(exchange: Exchange) -> None:
    """With MQTT 5 the broker may send DISCONNECT before it closes."""
    ended = exchange(publish("a", b"1", protocol=5) + b"\xe0\x01\x8b", protocol=5, answers=1)

    assert ended.failure is not None
    assert ended.failure.reason == "unreachable"
    assert "Server shutting down (139)" in str(ended.failure)


def test_tls_offers_the_protocols_that_are_set(certificates: Certificates) -> None:
    """Brokers that share port 443 with other servers select by ALPN."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, certificates.server_key)
    context.set_alpn_protocols(["http/1.1", "x-amzn-mqtt-ca"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = Url("mqtts", "127.0.0.1", listener.getsockname()[1])
        chosen: list[str | None] = []

        def converse() -> None:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                chosen.append(connection.selected_alpn_protocol())

        server = Thread(target=converse, daemon=True)
        server.start()
        tls = TLSConfig(ca_file=str(certificates.ca))
        target = Target(url, None, "id", 60, tls=tls, alpn=("x-amzn-mqtt-ca",))
        with pytest.raises(TargetError):
            Session(target, Ended().router, ConnectionState(), ErrorBoundary(print)).run(Event())
        server.join(20)

    assert chosen == ["x-amzn-mqtt-ca"]


def test_denied_subscription_is_named_as_in_the_standard() -> None:
    """With MQTT 5, SUBACK has the cause."""
    state = ConnectionState()
    subscriptions = Subscriptions([Subscription("bts/#")], Suspects(), state)
    subscriptions.begin(lambda _name, _qos: 1)
    subscriptions.answer(1, [ReasonCode(PacketTypes.SUBACK, identifier=151)])

    assert state.denied == {"bts/#": "Quota exceeded (151)"}
    assert state.granted == {"bts/#": -1}


def test_reader_checks_for_the_private_names_of_paho(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader accepts the installed paho, and rejects one without a private name."""
    assert BatchReader.fits()
    monkeypatch.setattr(reader_module, "_PRIVATE", (*reader_module._PRIVATE, "_gone"))
    assert not BatchReader.fits()


def test_all_private_names_are_checked_for() -> None:
    """A private name that is used but not listed would break a session."""
    source = reader_module.__file__
    assert source
    with open(source) as file:  # noqa: PTH123  # a module's own
        used = set(re.findall(r"self\.(_\w+)", file.read()))
    own = {
        "_router",
        "_boundary",
        "_rest",
        "_at",
        "_skip",
        "_read_at",
        "_delivered",
        "_burst_until",
        "_ended",
    }
    own |= {
        name for name in vars(BatchReader) if name.startswith("_") and not hasattr(Client, name)
    }

    # paho calls these.
    assert (used - own) | {"_create_socket", "_loop"} == set(reader_module._PRIVATE)


def test_limit_of_payloads_fits_into_packets() -> None:
    """The largest accepted payload fits into a packet with the longest topic."""
    assert reader_module._MAX_PACKET >= router_module.MAX_PAYLOAD_BYTES + 2 + 65535
