import logging
from collections.abc import Callable, Iterator
from threading import Event
from typing import ClassVar

import pytest

from bts_collectors.mqtt.client import network_thread as module
from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.network_thread import NetworkThread
from bts_collectors.mqtt.client.router import Router
from bts_collectors.mqtt.client.session import Target
from bts_collectors.mqtt.client.state import ConnectionState, Failure
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import TargetError, Url
from servers import wait_until

Run = Callable[[ConnectionState, ErrorBoundary], None]
Supervise = Callable[..., NetworkThread]


NOTHING_THERE = TargetError("refused", "nothing there")
GONE = TargetError("unreachable", "gone")


class Scripted:
    """A session that follows a script, and then runs until it is stopped."""

    script: ClassVar[list[Run]] = []

    def __init__(
        self,
        target: Target,
        router: Router,
        state: ConnectionState,
        boundary: ErrorBoundary,
        **_shared: object,
    ) -> None:
        """Keep what sessions share."""
        self.state, self.boundary = state, boundary
        state.heartbeat = float("inf")  # it never hangs

    def run(self, stopping: Event) -> None:
        """Do the next step."""
        if Scripted.script:
            Scripted.script.pop(0)(self.state, self.boundary)
        else:
            self.state.connects += 1
            self.state.connected = True
            stopping.wait()


@pytest.fixture
def supervise(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    """Return a function that starts a network thread whose sessions perform the given steps."""
    monkeypatch.setattr(module, "Session", Scripted)
    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 0.001)
    started: list[NetworkThread] = []

    def start(*script: Run) -> NetworkThread:
        Scripted.script[:] = script
        replied = Event()
        target = Target(Url("mqtt", "broker.example"), None, "id", 30)
        started.append(NetworkThread(target, [SysValues(replied)], replied))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def connected(one: NetworkThread) -> Callable[[], object]:
    """Return a condition to wait for: the network thread has reached the end of its script."""
    return lambda: one.state.connects


def refuse(state: ConnectionState, boundary: ErrorBoundary) -> None:
    """End like a session whose connection is refused."""
    raise NOTHING_THERE


def lose(state: ConnectionState, boundary: ErrorBoundary) -> None:
    """End like a session whose broker was stopped."""
    state.connected = True
    raise GONE


def crash(state: ConnectionState, boundary: ErrorBoundary) -> None:
    """End like a session with an error in the client library."""
    state.connected = True
    msg = "defect"
    raise RuntimeError(msg)


def mishandle(state: ConnectionState, boundary: ErrorBoundary) -> None:
    """Fail at two messages, then end."""
    for _ in range(2):
        with boundary:
            msg = "unforeseen"
            raise ValueError(msg)


def test_failed_attempts_are_counted_by_reason(supervise: Supervise) -> None:
    """A failed attempt is not a disconnect, and another attempt follows."""
    one = supervise(refuse, refuse)
    wait_until(connected(one), "connected")

    assert dict(one.state.connect_failures) == {"refused": 2}
    assert not one.state.disconnects
    assert one.state.failure == Failure("refused", "nothing there")


def test_lost_connections_are_counted_by_reason(supervise: Supervise) -> None:
    """A lost connection is not a failed attempt."""
    one = supervise(lose)
    wait_until(connected(one), "connected")

    assert dict(one.state.disconnects) == {"unreachable": 1}
    assert not one.state.connect_failures


def test_network_thread_survives_an_unexpected_error(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """The error ends only the connection; it is counted and logged, and the client reconnects."""
    one = supervise(crash)
    wait_until(connected(one), "connected")

    assert (one.alive, one.state.restarts, dict(one.state.disconnects)) == (
        True,
        1,
        {"internal": 1},
    )
    assert one.state.failure == Failure(
        "internal",
        "mqtt://broker.example: unexpected error in the MQTT client: RuntimeError: defect",
    )
    assert "MQTT session restarted" in caplog.text


def test_thread_that_hangs_is_not_alive(supervise: Supervise) -> None:
    """A thread that is stuck in a message handler is not alive, although still connected."""
    one = supervise()
    wait_until(connected(one), "connected")
    well = one.alive
    one.state.heartbeat = module.monotonic() - module.STUCK_SECONDS - 1

    assert (well, one.alive) == (True, False)


def test_error_in_a_message_handler_affects_only_its_message(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is counted and logged once, and the connection continues."""
    one = supervise(mishandle)
    wait_until(connected(one), "connected")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]

    assert (one.state.message_errors, one.state.restarts, len(errors)) == (2, 0, 1)


def test_reason_is_known_before_the_connection_is_gone() -> None:
    """The reason is written first: a reader that sees no connection also sees why."""
    seen: list[bool] = []

    class Watched(ConnectionState):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "failure" and value is not None:
                seen.append(self.connected)

    state = Watched(connected=True)
    state.end(Failure("unreachable", "gone"))

    assert (seen, state.connected) == ([True], False)


def test_connection_closed_by_us_is_not_a_failure() -> None:
    """A connection that the client closes is not counted."""
    state = ConnectionState(connected=True, granted={"$SYS/#": 0})
    state.end(None)

    assert state == ConnectionState()


def test_pause_between_attempts_grows_and_starts_again(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delay doubles while the broker is down or closes connections at once."""
    clock = [0.0]
    delays: list[float | None] = []
    wait = Event.wait

    def record(event: Event, timeout: float | None = None) -> bool:
        delays.append(timeout)
        return wait(event, 0 if timeout else timeout)

    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 1.0)
    monkeypatch.setattr(module, "RETRY_LAST_SECONDS", 5.0)

    def last(state: ConnectionState, boundary: ErrorBoundary) -> None:
        clock[0] += 5.1
        lose(state, boundary)

    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Event, "wait", record)
    one = supervise(refuse, lose, refuse, refuse, refuse, last, lose)
    wait_until(connected(one), "connected")
    monkeypatch.undo()

    pauses = [delay for delay in delays if delay is not None]

    assert pauses == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0, 1.0, 2.0]


def test_stop_ends_a_pause(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """stop() does not wait for the next attempt."""
    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 1000.0)
    one = supervise(refuse)
    wait_until(lambda: one.state.failure, "failed attempt")
    one.stop()

    assert not one.alive


def test_stop_does_not_wait_for_a_thread_that_hangs(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stop() returns although the thread is in a call that cannot be interrupted."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)
    release = Event()
    one = supervise(lambda _state, _boundary: release.wait() and None)
    one.stop()
    hung = one.alive
    release.set()

    assert hung


def test_stop_without_start_does_nothing() -> None:
    """A collector that was built and never started can be stopped."""
    replied = Event()
    NetworkThread(
        Target(Url("mqtt", "broker.example"), None, "id", 30), [SysValues(replied)], replied
    ).stop()


def test_error_boundary_passes_interrupts() -> None:
    """Only errors are suppressed, not e.g. KeyboardInterrupt."""
    with pytest.raises(KeyboardInterrupt), ErrorBoundary(lambda error: None):
        raise KeyboardInterrupt


def test_collection_ends_the_pause_between_attempts(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is back is found by the next collection, not when the delay is over."""
    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 1000.0)
    monkeypatch.setattr(module, "RETRY_BY_COLLECTION_SECONDS", 0.0)
    one = supervise(refuse, refuse)
    wait_until(lambda: one.state.failure, "failed attempt")

    wait_until(lambda: one.reconnect(5), "connected after another failure")
    assert dict(one.state.connect_failures) == {"refused": 2}


def test_collections_begin_attempts_only_so_often(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after an attempt a collection begins no other one."""
    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 1000.0)
    monkeypatch.setattr(module, "RETRY_BY_COLLECTION_SECONDS", 1000.0)
    one = supervise(refuse, refuse)
    wait_until(lambda: one.state.failure, "failed attempt")

    assert [one.reconnect(5) for _ in range(20)] == [False] * 20
    assert dict(one.state.connect_failures) == {"refused": 1}
