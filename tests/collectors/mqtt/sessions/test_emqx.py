import base64
import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.mqtt.sessions import emqx
from bts_collectors.mqtt.sessions.emqx import DROPPED, Emqx, EmqxConfig
from bts_collectors.mqtt.sessions.metrics import LEFT_OUT
from bts_exporter import Scrape, Secret, TargetError, TLSConfig, Url, backlog
from servers.certificates import SERVER_NAME, Certificates
from servers.management import (
    FakeManagement,
    Handler,
    Reply,
    answer,
    drip,
    hang,
    in_turn,
    raw,
    send,
)

PATH = "/api/v5/clients"
PROMISE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

#: What EMQX 5.8 answers for a client whose consumer is slow, and for one with a durable session,
#: whose messages have no queue in memory; shortened, names and addresses invented.
SLOW = {
    "awaiting_rel_cnt": 0,
    "awaiting_rel_max": 100,
    "clean_start": False,
    "clientid": "consumer",
    "connected": True,
    "connected_at": "2026-02-03T10:20:30.400+00:00",
    "expiry_interval": 7200,
    "inflight_cnt": 32,
    "inflight_max": 32,
    "ip_address": "192.0.2.7",
    "is_bridge": False,
    "keepalive": 60,
    "mailbox_len": 0,
    "mqueue_dropped": 17,
    "mqueue_len": 1000,
    "mqueue_max": 1000,
    "node": "emqx@192.0.2.1",
    "proto_ver": 5,
    "send_msg.dropped.queue_full": 17,
    "subscriptions_cnt": 1,
    "username": "app",
}
DURABLE = {"clientid": "archive", "connected": False, "durable": True, "n_streams": 3}
IDLE = SLOW | {"clientid": "idle", "mqueue_len": 0, "mqueue_dropped": 0, "inflight_cnt": 0}


def page(*clients: object, more: bool = False, number: int = 1) -> dict[str, object]:
    """Return a page with these clients."""
    meta = {"count": len(clients), "hasnext": more, "limit": 1000, "page": number}
    return {"data": list(clients), "meta": meta}


@pytest.fixture
def fake() -> Iterator[FakeManagement]:
    """Return a server that has three clients."""
    with FakeManagement() as fake:
        fake.routes[PATH] = answer(page(SLOW, DURABLE, IDLE))
        yield fake


def scrape_of(
    url: str, seconds: float = 20, password: str = "s3cret", tls: TLSConfig | None = None
) -> Scrape:
    """Return a scrape with the emitted samples; errors are passed on."""
    config = EmqxConfig(url=Url.from_setting(url), password=Secret(password))
    scrape = Scrape(time.monotonic() + seconds)
    with closing(Emqx(config, tls or TLSConfig())) as source:
        source.emit(scrape)
    assert scrape.losses == []
    return scrape


def error_of(url: str, seconds: float = 20) -> TargetError:
    """Return the error of a request."""
    with pytest.raises(TargetError) as caught:
        scrape_of(url, seconds)
    return caught.value


def test_queues_of_clients_are_shown(fake: FakeManagement) -> None:
    """Queue, inflight window and drops by client; fields that a durable session lacks have no series."""
    samples = scrape_of(fake.url).samples

    assert samples[backlog.BACKLOG] == {("mqtt", "", "consumer"): 1000, ("mqtt", "", "idle"): 0}
    assert samples[backlog.IN_FLIGHT] == {("mqtt", "", "consumer"): 32, ("mqtt", "", "idle"): 0}
    assert samples[DROPPED] == {("consumer",): 17, ("idle",): 0}
    assert samples[LEFT_OUT] == {(): 0}


@pytest.mark.parametrize(
    ("most", "expected"), [(1000, 1000), (0, None), ("infinity", None), (None, None)]
)
def test_the_limit_of_a_queue(fake: FakeManagement, most: object, expected: int | None) -> None:
    """The oldest messages beyond mqueue_max are dropped; without a limit, or if it is unknown, there is no series."""
    fake.routes[PATH] = answer(page(IDLE | {"mqueue_max": most}))
    samples = scrape_of(fake.url).samples

    labels = ("mqtt", "", "idle")
    assert samples.get(backlog.LIMIT) == (expected and {labels: expected})
    assert samples.get(backlog.OVERFLOW) == (
        expected and {(*labels, "limit", "drop_oldest", "setting"): 1}
    )


def test_key_and_secret_are_sent_and_few_fields_requested(fake: FakeManagement) -> None:
    """Versions that support `fields` send only these."""
    scrape_of(fake.url.replace("http://", "http://key@"))

    assert fake.headers[0]["Authorization"] == "Basic a2V5OnMzY3JldA=="
    assert fake.requests == [
        f"{PATH}?page=1&limit=1000&fields=clientid,mqueue_len,mqueue_max,mqueue_dropped,inflight_cnt"
    ]


def test_all_pages_are_read(fake: FakeManagement) -> None:
    """Until the last one; a client that moves to the next page meanwhile is counted once."""
    fake.routes[PATH] = in_turn(
        answer(page(SLOW, more=True)), answer(page(SLOW, IDLE, more=True)), answer(page(DURABLE))
    )
    samples = scrape_of(fake.url).samples

    assert len(samples[backlog.BACKLOG]) == 2
    assert [request.partition("&")[0] for request in fake.requests] == [
        f"{PATH}?page={number}" for number in (1, 2, 3)
    ]


def test_number_of_pages_is_limited(fake: FakeManagement, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker with very many clients does not exceed the limit of requests."""
    monkeypatch.setattr(emqx, "MAX_PAGES", 3)
    fake.routes[PATH] = answer(page(SLOW, more=True))
    scrape_of(fake.url)

    assert len(fake.requests) == 3


def test_failure_on_a_later_page_shows_nothing(fake: FakeManagement) -> None:
    """A part of the clients would look as if the others had disappeared."""
    fake.routes[PATH] = in_turn(answer(page(SLOW, more=True)), answer({}, 500))

    assert error_of(fake.url).reason == "protocol"


def chunked(body: bytes) -> Reply:
    """Reply in chunks, without Content-Length."""
    return raw(
        PROMISE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )


def test_response_without_a_length_is_read(fake: FakeManagement) -> None:
    """Erlang's HTTP server may send chunks."""
    fake.routes[PATH] = chunked(json.dumps(page(IDLE)).encode())

    assert scrape_of(fake.url).samples[DROPPED] == {("idle",): 0}


@pytest.mark.parametrize(
    "odd",
    [
        {"clientid": 5, "mqueue_len": 1},
        {"mqueue_len": 1},
        "nonsense",
        None,
        {"clientid": "x" * 200, "mqueue_len": 1},
    ],
)
def test_invalid_client_affects_only_itself(fake: FakeManagement, odd: object) -> None:
    """The others are emitted, and the invalid one is counted as left out."""
    fake.routes[PATH] = answer(page(odd, SLOW))
    samples = scrape_of(fake.url).samples

    assert samples[backlog.BACKLOG] == {("mqtt", "", "consumer"): 1000}
    assert samples[LEFT_OUT] == {(): 1}


@pytest.mark.parametrize("length", [-1, "many", 1.5, True, None, {}])
def test_invalid_field_affects_only_itself(fake: FakeManagement, length: object) -> None:
    """The client's other fields are emitted."""
    fake.routes[PATH] = answer(page(SLOW | {"mqueue_len": length}))
    samples = scrape_of(fake.url).samples

    assert backlog.BACKLOG not in samples
    assert samples[backlog.IN_FLIGHT] == {("mqtt", "", "consumer"): 32}


def test_client_id_with_invalid_utf_8_affects_only_itself(fake: FakeManagement) -> None:
    """A client id with an invalid byte does not hide the other clients."""
    fake.routes[PATH] = send(b'{"data":[{"clientid":"\xff"},{"clientid":"b","mqueue_len":3}]}')

    assert scrape_of(fake.url).samples[backlog.BACKLOG]["mqtt", "", "b"] == 3


def test_clients_that_were_not_read_are_counted(
    fake: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the broker's total; without a total there is no series."""
    monkeypatch.setattr(emqx, "MAX_PAGES", 1)
    more = page(SLOW, IDLE, more=True)
    fake.routes[PATH] = answer(more | {"meta": {"hasnext": True, "count": 500}})
    known = scrape_of(fake.url).samples
    fake.routes[PATH] = answer(more | {"meta": {"hasnext": True}})
    unknown = scrape_of(fake.url).samples

    assert known[LEFT_OUT] == {(): 498}
    assert LEFT_OUT not in unknown


def test_pages_are_limited_together(fake: FakeManagement, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total size of all pages is limited, too."""
    monkeypatch.setattr(emqx, "MAX_BYTES", 1500)
    fake.routes[PATH] = answer(page(SLOW, more=True))
    error = error_of(fake.url)

    assert (error.reason, "all pages 1500" in str(error)) == ("protocol", True)


def test_secret_that_was_changed_is_read_again(fake: FakeManagement, tmp_path: Path) -> None:
    """After status 401 the same request is repeated with the new secret."""
    content = tmp_path / "secret"
    content.write_text("old")
    sent: list[str] = []

    def reply(handler: Handler) -> None:
        sent.append(handler.headers["Authorization"])
        right = sent[-1] == "Basic " + base64.b64encode(b"key:new").decode()
        answer(page(SLOW) if right else {}, 200 if right else 401)(handler)

    fake.routes[PATH] = reply
    url = Url.from_setting(fake.url.replace("http://", "http://key@"))
    config = EmqxConfig(url=url, password=Secret("old", content.read_text))
    with closing(Emqx(config, TLSConfig())) as source:
        with pytest.raises(TargetError, match="invalid API key"):
            source.emit(Scrape(time.monotonic() + 20))
        content.write_text("new")
        source.emit(Scrape(time.monotonic() + 20))

    assert len(set(sent)) == 2


def bomb(handler: Handler) -> None:
    """Reply with a zip bomb."""
    send(b" " * (emqx.MAX_PAGE_BYTES + 10))(handler)


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (answer({"code": "BAD_API_KEY_OR_SECRET"}, 401), "auth", "emqx.password"),
        (answer({"code": "UNAUTHORIZED_ROLE"}, 403), "noperm", "viewer"),
        (answer({"code": "NOT_FOUND"}, 404), "protocol", "REST API of EMQX 5"),
        (answer({"code": "INTERNAL_ERROR"}, 500), "protocol", "status 500"),
        (answer({"code": "SERVICE_UNAVAILABLE"}, 503), "loading", "not ready"),
        (answer({"code": "INVALID_PARAMETER"}, 400), "protocol", "status 400"),
        (send(b"<html><body>EMQX Dashboard</body></html>"), "protocol", "not EMQX's list"),
        (send(b""), "protocol", "not EMQX's list"),
        (answer([]), "protocol", "not EMQX's list"),
        (answer({"code": 0}), "protocol", "not EMQX's list"),
        (answer(page({"clientid": 5})), "protocol", "not EMQX's list"),
        (answer(page({"mqueue_len": 5})), "protocol", "not EMQX's list"),
        (send(b'{"data":' + b"[" * 50_000), "protocol", "not EMQX's list"),
        (send(b'{"data":[], "x":' + b"[" * 50_000), "protocol", "not EMQX's list"),
        (
            raw(PROMISE + b'Content-Length: 99\r\n\r\n{"data":['),
            "unreachable",
            "by the server; is this the dashboard's port",
        ),
        (raw(b"\x20\x02\x00\x05"), "protocol", "not HTTP"),
        (raw(b""), "unreachable", "by the server; is this the dashboard's port"),
        (bomb, "protocol", "exceeds its share of the limit"),
        (
            raw(PROMISE + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
            "protocol",
            "not valid gzip",
        ),
    ],
)
def test_invalid_response_has_a_bounded_reason(
    fake: FakeManagement, reply: Reply, reason: str, words: str
) -> None:
    """The message names address and cause, and never contains the secret."""
    fake.routes[PATH] = reply
    error = error_of(fake.url)

    assert error.reason == reason
    assert f"{fake.url}{PATH}: " in str(error)
    assert words in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        hang,
        drip(PROMISE, b"X-Drop: 1\r\n", 100, b"\r\n"),
        drip(PROMISE + b"Content-Length: 100000\r\n\r\n", b" ", 100, b" "),
        drip(PROMISE + b"\r\n" + gzip.compress(b"{}"), b" ", 100, b" "),
    ],
)
def test_slow_response_ends_at_the_deadline(fake: FakeManagement, reply: Reply) -> None:
    """A silent or slow response ends at the deadline."""
    fake.routes[PATH] = reply
    error = error_of(fake.url, seconds=0.5)

    assert error.reason == "timeout"
    assert not fake.dripped_out


def test_nothing_listening_is_refused() -> None:
    """With the address and the cure; `optional: true` depends on this reason."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = error_of(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert error.reason == "refused"


def test_name_that_does_not_resolve_is_dns() -> None:
    """A misspelled host name."""
    assert error_of("http://nowhere.invalid:18083").reason == "dns"


def test_port_without_tls_is_tls(fake: FakeManagement) -> None:
    """https:// to a plain HTTP port."""
    assert error_of(fake.url.replace("http:", "https:")).reason == "tls"


def test_settings_of_tls(certificates: Certificates, tmp_path: Path) -> None:
    """A private authority, and a certificate with another name than the host."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.named.read_bytes() + certificates.named_key.read_bytes())
    trusting = TLSConfig(ca_file=str(certificates.ca))
    with FakeManagement(both) as fake:
        fake.routes[PATH] = answer(page(SLOW))
        with pytest.raises(TargetError, match="IP address mismatch") as caught:
            scrape_of(fake.url, tls=trusting)
        named = scrape_of(
            fake.url, tls=TLSConfig(ca_file=trusting.ca_file, server_name=SERVER_NAME)
        )

    assert caught.value.reason == "tls"
    assert named.samples


@given(st.binary(max_size=200))
def test_no_response_raises_an_unexpected_error(body: bytes) -> None:
    """Any body is a page or a TargetError."""
    try:
        found = emqx.parse(body, "http://broker")
    except TargetError:
        return

    assert isinstance(found.data, list)


def test_other_scheme_is_refused() -> None:
    """An MQTT address is not an address of the API."""
    with pytest.raises(ValueError, match="url: expected http:// or https://, got mqtt://broker"):
        EmqxConfig(url=Url("mqtt", "broker"))
