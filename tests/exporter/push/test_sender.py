"""What responses of a receiver do to batches: sent once, in order, kept or dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from bts_exporter.errors import PushError
from bts_exporter.push import receiver as receiver_module
from bts_exporter.push import sender as sender_module
from bts_exporter.push.buffer import Buffer
from bts_exporter.push.http_config import load
from bts_exporter.push.options import Protocol
from bts_exporter.push.protocol import PRODUCTS, encoder_of
from bts_exporter.push.receiver import Receiver
from bts_exporter.push.sender import Sender
from bts_exporter.push.series import Source
from bts_exporter.push.totals import PushTotals
from bts_exporter.settings.value_types import Url
from servers import free_port, wait_until
from servers.push_receiver import PushReceiver, Response


class Pipe:
    """A buffer, a sender, and their counts."""

    def __init__(self, address: str) -> None:
        url = Url.from_setting(address)
        receiver = Receiver(
            PRODUCTS[Protocol.OTLP], url, load(None), encoder_of(Protocol.OTLP, Source("job", "i"))
        )
        self.totals = PushTotals()
        self.buffer = Buffer(self.totals, max_bytes=10_000, max_age=60)
        self.sender = Sender(receiver, self.buffer, self.totals)

    def add(self, *bodies: bytes) -> None:
        """Add batches."""
        for body in bodies:
            self.buffer.add(body, time.time())
        self.sender.wake()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Pipe]]:
    """Return a function that starts a sender with short pauses."""
    monkeypatch.setattr(sender_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sender_module, "_LONGEST_PAUSE", 0.1)
    started: list[Pipe] = []

    def start(address: str) -> Pipe:
        started.append(Pipe(f"{address}/v1/metrics"))
        started[-1].sender.start()
        return started[-1]

    yield start
    for found in started:
        found.sender.stop(0.1)


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504, 301])
def test_batch_is_sent_again_in_order(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver, status: int
) -> None:
    """Responses that say nothing about the batch keep it: nothing is lost, skipped or overtaken."""
    push_receiver.responses.extend([Response(status), Response(status)])
    found = pipe(push_receiver.address)

    found.add(b"one", b"two")
    wait_until(lambda: found.totals.batches == 2, "both arrive")

    assert [r.body for r in push_receiver.received] == [b"one", b"one", b"one", b"two"]
    assert sum(found.totals.failures.values()) == 2
    assert not found.totals.dropped


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refused_batch_is_dropped(
    pipe: Callable[[str], Pipe],
    push_receiver: PushReceiver,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """Batches that the receiver will never take do not block those after them; one line has its words."""
    push_receiver.responses.extend([Response(status, body=b"out of order sample")] * 2)
    found = pipe(push_receiver.address)

    found.add(b"one", b"two", b"three")
    wait_until(lambda: found.totals.batches == 1, "the third arrives")

    assert [r.body for r in push_receiver.received] == [b"one", b"two", b"three"]
    assert found.totals.dropped == {"refused": 2}
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("bts_exporter.push")]
    assert str(status) in line
    assert "out of order sample" in line


UNREADABLE = {
    "cut off": Response(headers={"X-Cut": "yes"}, body=b"x"),
    "not gzip": Response(headers={"Content-Encoding": "gzip"}, body=b"not gzip"),
    "too large": Response(body=b"x" * (receiver_module._LONGEST_RESPONSE + 1)),
}


@pytest.mark.parametrize("response", UNREADABLE.values(), ids=UNREADABLE)
def test_acknowledged_batch_is_not_sent_again_because_of_the_body(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver, response: Response
) -> None:
    """Status 2xx acknowledges a batch, also with a body that cannot be read: it would be sent for ever."""
    push_receiver.responses.append(response)
    found = pipe(push_receiver.address)

    found.add(b"one", b"two")
    wait_until(lambda: found.totals.batches == 2, "both are acknowledged")

    assert [r.body for r in push_receiver.received] == [b"one", b"two"]
    assert not found.totals.failures.total()


def test_refused_batch_is_dropped_also_if_the_reason_cannot_be_read(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver
) -> None:
    """Status 413 with a body that is not valid does not block the batches after it."""
    push_receiver.responses.append(UNREADABLE["not gzip"]._replace(status=413))
    found = pipe(push_receiver.address)

    found.add(b"one", b"two")
    wait_until(lambda: found.totals.batches == 1, "the second arrives")

    assert [r.body for r in push_receiver.received] == [b"one", b"two"]
    assert found.totals.dropped == {"refused": 1}


def test_partial_success_is_not_sent_again(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The samples that OTLP's receiver refused are counted, and the batch is done with."""
    partial = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    response = ExportMetricsServiceResponse(partial_success=partial)
    push_receiver.responses.append(Response(body=response.SerializeToString()))
    found = pipe(push_receiver.address)

    found.add(b"one")
    wait_until(lambda: found.totals.batches == 1, "it arrives")

    assert (len(push_receiver.received), found.totals.rejected_samples) == (1, 3)
    assert [r.getMessage() for r in caplog.records if "too old" in r.getMessage()]


@pytest.mark.parametrize("as_date", [False, True])
def test_receiver_decides_when_it_is_asked_again(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver, *, as_date: bool
) -> None:
    """Retry-After, in seconds or as a date, is longer than our pauses: nothing is sent before."""
    later = formatdate(time.time() + 300, usegmt=True) if as_date else "300"
    push_receiver.responses.append(Response(503, {"Retry-After": later}))
    found = pipe(push_receiver.address)
    found.add(b"one")
    wait_until(lambda: found.totals.failures["busy"] == 1, "the first response")

    found.add(b"two")
    other = pipe(push_receiver.address)  # has had its turn when the first one would have
    other.add(b"other")
    wait_until(lambda: other.totals.batches == 1, "the other one arrives")

    assert [r.body for r in push_receiver.received] == [b"one", b"other"]


def test_state_changes_are_logged_once(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten failures are one line, and the first success is another."""
    caplog.set_level("INFO", "bts_exporter")
    push_receiver.responses.extend([Response(503)] * 10)
    found = pipe(push_receiver.address)

    found.add(b"one", b"two")
    wait_until(lambda: found.totals.batches == 2, "both arrive")

    lines = [r.getMessage() for r in caplog.records if r.name.endswith("push.sender")]
    assert len(lines) == 2
    assert "status 503 Service Unavailable" in lines[0]
    assert lines[1] == "push works again"


def test_end_sends_what_waits(pipe: Callable[[str], Pipe], push_receiver: PushReceiver) -> None:
    """Stopping sends all that waits, also after a long pause was asked for."""
    push_receiver.responses.append(Response(503, {"Retry-After": "300"}))
    found = pipe(push_receiver.address)
    found.add(b"one", b"two")
    wait_until(lambda: found.totals.failures["busy"] == 1, "the first response")

    found.sender.stop(30)

    assert [r.body for r in push_receiver.received] == [b"one", b"one", b"two"]


def test_hanging_receiver_delays_nothing_else(
    pipe: Callable[[str], Pipe], push_receiver: PushReceiver
) -> None:
    """While a request hangs, batches are added without waiting; stopping interrupts it."""
    push_receiver.answers.clear()
    found = pipe(push_receiver.address)
    found.add(b"one")
    wait_until(lambda: push_receiver.received, "the request that hangs")

    found.add(b"two", b"three")
    found.sender.stop(0.1)

    assert found.totals.buffered_batches == 3
    wait_until(lambda: "bts-push" not in [t.name for t in threading.enumerate()], "the thread ends")


def test_request_that_hangs_times_out(
    push_receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that takes a request and never answers is a failure: the batch stays."""
    monkeypatch.setattr(receiver_module, "TIMEOUT", 0.2)
    push_receiver.answers.clear()
    found = Pipe(f"{push_receiver.address}/v1/metrics")
    found.buffer.add(b"one", time.time())

    found.sender.drain()

    assert (
        found.sender.problem
        == f"OTLP receiver at {push_receiver.address}/v1/metrics: no response within 0.2 s"
    )
    assert found.totals.buffered_batches == 1


def test_dead_sender_is_noticed() -> None:
    """A process whose thread cannot send ends, so that it is started again, instead of collecting in vain."""
    found = Pipe("http://127.0.0.1:1/v1/metrics")

    with pytest.raises(PushError, match="the thread that sends has ended"):
        found.sender.wake()


def test_drain_stops_at_the_first_failure() -> None:
    """A single push does not wait for a receiver that is down."""
    found = Pipe(f"http://127.0.0.1:{free_port()}/v1/metrics")
    found.buffer.add(b"one", time.time())
    found.buffer.add(b"two", time.time())

    found.sender.drain()

    assert found.totals.failures == {"refused": 1}
    assert "connection refused" in found.sender.problem
    assert found.totals.buffered_batches == 2


def test_drain_reports_a_batch_that_was_refused_before_others(push_receiver: PushReceiver) -> None:
    """A single push that sends what waited fails if the receiver refused any of it, not only the last."""
    push_receiver.responses.append(Response(400, body=b"out of bounds"))
    found = Pipe(f"{push_receiver.address}/v1/metrics")
    found.buffer.add(b"one", time.time())
    found.buffer.add(b"two", time.time())

    problem = found.sender.drain()

    assert "out of bounds" in problem
    assert found.totals.batches == 1
