from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bts_exporter.web.connections import SLOW_SECONDS, Connection, Connections, Phase
from servers import wait_until

LONG, OVER = 3600.0, 0.0


class Crowd:
    """Connections whose clients the test controls."""

    def __init__(self, limit: int = 2, **seconds: float) -> None:
        bounds = {phase: seconds.get(phase.name.lower(), LONG) for phase in Phase}
        del bounds[Phase.HANDLING]
        self.connections = Connections(limit, limit, limit, bounds)
        self.traffic = self.connections.traffic
        self.clients: dict[Connection, socket.socket] = {}

    def come(self, phase: Phase | None = None) -> Connection | None:
        """Connect another client, which is served if a phase is given; None if there is no room."""
        there_is = self.connections.has_room if phase is None else self.connections.may_serve
        if not there_is():
            return None
        ours, client = socket.socketpair()
        connection = self.connections.admit(ours)
        self.clients[connection] = client
        if phase is not None:
            connection.served = True
            connection.enter(Phase.QUEUED)
            connection.enter(phase)
        return connection

    def close(self) -> None:
        """Close both ends of every connection."""
        for connection, client in self.clients.items():
            connection.close()
            client.close()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Return room for two connections."""
    room = Crowd()
    yield room
    room.close()


def some(connection: Connection | None) -> Connection:
    """Return a connection that must have been admitted."""
    assert connection is not None
    return connection


def fill(connection: Connection) -> None:
    """Send until the client would have to read."""
    with suppress(BlockingIOError):
        while True:
            connection.socket.send(bytes(65536), socket.MSG_DONTWAIT)


@pytest.mark.parametrize("phase", [None, Phase.READING, Phase.WRITING])
def test_client_that_waits_for_our_thread_is_not_slow(phase: Phase | None, crowd: Crowd) -> None:
    """A client has not kept others waiting if its bytes have come, or if it takes more of its answer."""
    for _ in range(2):
        connection = some(crowd.come(phase))
        connection.since -= LONG
        crowd.clients[connection].send(b"G")

    assert crowd.come(phase) is None


@pytest.mark.parametrize("phase", [Phase.READING, Phase.HANDLING, Phase.WRITING])
def test_full_of_busy_connections(phase: Phase, crowd: Crowd) -> None:
    """A client that has just begun to be served keeps its place; further requests have to wait."""
    busy = [some(crowd.come(phase)), some(crowd.come(phase))]

    assert crowd.come(phase) is None
    assert [connection.aborted for connection in busy] == [False, False]
    assert crowd.traffic.open == 2


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (None, "header_timeout"),
        (Phase.READING, "header_timeout"),
        (Phase.WRITING, "write_timeout"),
    ],
)
def test_slowest_client_makes_room(phase: Phase | None, reason: str, crowd: Crowd) -> None:
    """The client that has kept others waiting for longest loses its connection, and is counted."""
    first, second = some(crowd.come(phase)), some(crowd.come(phase))
    first.since -= 2 * SLOW_SECONDS
    second.since -= SLOW_SECONDS
    fill(first)

    assert crowd.come(phase) is not None
    assert (first.aborted, second.aborted) == (True, False)
    assert crowd.traffic.cut[reason] == 1


def test_answer_under_way_keeps_its_place(crowd: Crowd) -> None:
    """A connection is never given up while its answer is made, however long that takes."""
    for _ in range(2):
        some(crowd.come(Phase.HANDLING)).since -= LONG

    assert crowd.come(Phase.HANDLING) is None


def test_answers_that_are_made_take_no_place_of_slow_clients() -> None:
    """Connections that wait for their response have a separate limit, so a hanging target blocks no other client."""
    bounds = dict.fromkeys(set(Phase) - {Phase.HANDLING, Phase.QUEUED}, LONG)
    connections = Connections(1, 1, 3, bounds)
    admitted, clients = [], []
    for _ in range(4):
        ours, client = socket.socketpair()
        clients.append(client)
        admitted.append(connections.may_serve())
        connection = connections.admit(ours)
        connection.served = True
        connection.enter(Phase.QUEUED)
        connection.enter(Phase.HANDLING)

    assert admitted == [True, True, True, False]
    connections.abort_all()
    for sock in (*clients, *(connection.socket for connection in connections._all())):
        sock.close()


def test_connections_of_all_kinds_are_bounded() -> None:
    """The number of connections never exceeds the places of both kinds."""
    bounds = dict.fromkeys(set(Phase) - {Phase.HANDLING, Phase.QUEUED}, LONG)
    connections = Connections(2, 2, 9, bounds)
    clients = []
    for _ in range(4):
        ours, client = socket.socketpair()
        clients.append(client)
        assert connections.has_room()
        connection = connections.admit(ours)
        connection.served = True
        connection.enter(Phase.QUEUED)
        connection.enter(Phase.HANDLING)

    assert not connections.has_room()
    for sock in (*clients, *(connection.socket for connection in connections._all())):
        sock.close()


def test_many_answers_at_once_leave_room(crowd: Crowd) -> None:
    """When more clients than places get their responses at the same time, idle ones make room."""
    for _ in range(9):
        connection = some(crowd.come())
        connection.served = True
        connection.enter(Phase.IDLE)
        crowd.connections.may_serve()
    for connection in list(crowd.clients):
        if connection.aborted:
            crowd.connections.leave(connection)

    assert crowd.come(Phase.HANDLING) is not None


def test_waiting_clients_take_no_place_of_served_ones(crowd: Crowd) -> None:
    """Clients without a complete request have a separate limit."""
    waiting = [some(crowd.come()), some(crowd.come())]

    assert crowd.come() is None
    assert crowd.come(Phase.HANDLING) is not None
    assert [connection.aborted for connection in waiting] == [False, False]


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.CLOSING])
def test_silent_connection_makes_room(phase: Phase, crowd: Crowd) -> None:
    """The connection that has been silent for longest gives its place to a new one."""
    first, second = some(crowd.come(phase)), some(crowd.come(phase))

    assert crowd.come(Phase.HANDLING) is not None
    assert (first.aborted, second.aborted) == (True, False)
    assert crowd.clients[first].recv(1) == b""


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.WRITING])
def test_connection_in_use_outlasts_others(phase: Phase, crowd: Crowd) -> None:
    """A connection that had several requests is kept longer than one that had few or is slow."""
    used, other = some(crowd.come(Phase.IDLE)), some(crowd.come(phase))
    used.answered, other.answered = 5, 1
    fill(other)
    used.since -= 10 * SLOW_SECONDS
    other.since -= SLOW_SECONDS
    crowd.come(Phase.HANDLING)

    assert (used.aborted, other.aborted) == (False, True)


def test_waiting_client_makes_no_room_for_a_served_one(crowd: Crowd) -> None:
    """A silent client without a thread is not cut when a thread is needed."""
    waiting = some(crowd.come())
    for _ in range(2):
        crowd.come(Phase.HANDLING)

    assert crowd.come(Phase.HANDLING) is None
    assert not waiting.aborted


def test_silence_begins_with_the_last_phase(crowd: Crowd) -> None:
    """An old connection that was just used outlasts a younger one that was not."""
    first, second = some(crowd.come(Phase.IDLE)), some(crowd.come(Phase.IDLE))
    first.enter(Phase.IDLE)
    crowd.come(Phase.HANDLING)

    assert (first.aborted, second.aborted) == (False, True)


@pytest.mark.parametrize("received", [True, False])
def test_connection_whose_request_has_come_stays(received: bool, crowd: Crowd) -> None:
    """A connection is not silent if its next request has arrived, even if another thread reads it now."""
    first, second = some(crowd.come(Phase.IDLE)), some(crowd.come(Phase.IDLE))
    crowd.clients[first].send(b"G")
    if received:
        assert first.receive()
    crowd.come(Phase.HANDLING)

    assert (first.aborted, second.aborted) == (False, True)


def test_threads_are_bounded_too(crowd: Crowd) -> None:
    """There are at most two threads for each place, however many connections are cut."""
    admitted = [crowd.come(Phase.IDLE) is not None for _ in range(6)]

    assert admitted == [True, True, True, True, False, False]


def test_place_is_free_when_a_connection_leaves(crowd: Crowd) -> None:
    """A thread that ends makes room and is counted out."""
    busy = [some(crowd.come(Phase.HANDLING)) for _ in range(2)]
    crowd.connections.leave(busy[0])

    assert crowd.traffic.open == 1
    assert crowd.come(Phase.HANDLING) is not None


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (None, "header_timeout"),
        (Phase.READING, "header_timeout"),
        (Phase.WRITING, "write_timeout"),
        (Phase.IDLE, None),
        (Phase.CLOSING, None),
    ],
)
def test_overdue_connection_is_cut(phase: Phase | None, reason: str | None) -> None:
    """A phase past its deadline ends the connection; only a client that was too slow is counted."""
    crowd = Crowd(opening=OVER, reading=OVER, writing=OVER, idle=OVER, closing=OVER)
    connection = some(crowd.come(phase))
    crowd.connections.cut_overdue()
    crowd.connections.cut_overdue()

    assert connection.aborted
    assert {name for name, count in crowd.traffic.cut.items() if count} == {reason} - {None}
    assert sum(crowd.traffic.cut.values()) == (reason is not None)
    crowd.close()


def test_our_own_turn_has_no_deadline() -> None:
    """The server has no deadline for computing a response."""
    crowd = Crowd(opening=OVER, reading=OVER)
    connection = some(crowd.come(Phase.HANDLING))
    crowd.connections.cut_overdue()

    assert not connection.aborted
    crowd.close()


def test_silence_counts_for_the_first_request(crowd: Crowd) -> None:
    """The first bytes do not extend the deadline of a connection; each later request has its own."""
    connection = some(crowd.come())
    opened_until = connection.deadline
    connection.enter(Phase.READING)
    assert connection.deadline == opened_until

    connection.enter(Phase.IDLE)
    connection.enter(Phase.READING)
    assert connection.deadline > opened_until


def test_aborted_connection_enters_no_phase(crowd: Crowd) -> None:
    """The thread of a connection that was cut ends at its next step."""
    connection = some(crowd.come())
    connection.abort()

    with pytest.raises(ConnectionAbortedError):
        connection.enter(Phase.READING)


def test_aborted_connection_wakes_its_thread(crowd: Crowd) -> None:
    """A thread that waits for the client does not wait any longer."""
    connection = some(crowd.come())
    came: list[bool] = []
    thread = threading.Thread(target=lambda: came.append(connection.receive()), daemon=True)
    thread.start()
    connection.abort()
    thread.join(20)

    assert came == [False]


def test_tls_is_not_undone_when_a_connection_is_aborted(crowd: Crowd) -> None:
    """The socket is shut down below TLS, because TLS's own shutdown would continue in plain text."""

    class TlsSocket(socket.socket):
        def shutdown(self, _: int) -> None:
            pytest.fail("TLS was taken away")

    connection = some(crowd.come())
    connection.replace(lambda plain: TlsSocket(fileno=plain.detach()))
    connection.abort()

    assert crowd.clients[connection].recv(1) == b""


def test_drained_connections_take_no_further_request(crowd: Crowd) -> None:
    """Draining closes silent connections; running responses are completed."""
    silent, busy = some(crowd.come()), some(crowd.come(Phase.HANDLING))
    crowd.connections.drain()
    busy.enter(Phase.WRITING)

    assert (silent.aborted, busy.aborted) == (True, False)
    with pytest.raises(ConnectionAbortedError):
        busy.enter(Phase.IDLE)


def test_socket_replaced_too_late_is_shut_down_nevertheless(crowd: Crowd) -> None:
    """A connection that is cut during the TLS handshake does not continue."""
    connection = some(crowd.come())

    def slow_wrap(sock: socket.socket) -> socket.socket:
        wrapped = socket.socket(fileno=sock.detach())
        connection.abort()
        return wrapped

    with pytest.raises(ConnectionAbortedError):
        connection.replace(slow_wrap)
    connection.close()
    assert crowd.clients[connection].recv(1) == b""


def test_waiting_ends_when_the_last_one_leaves(crowd: Crowd) -> None:
    """Waiting for the end of all connections returns at once, or reports that some remain."""
    connection = some(crowd.come())
    assert not crowd.connections.wait_empty(0)

    gone: list[bool] = []
    waiter = threading.Thread(
        target=lambda: gone.append(crowd.connections.wait_empty(LONG)), daemon=True
    )
    waiter.start()
    crowd.connections.leave(connection)
    wait_until(lambda: gone, "the waiting thread goes on")
    assert gone == [True]


def test_close_that_fails_is_no_error(crowd: Crowd) -> None:
    """An error of close(2) leaves the counts correct."""

    class Failing(socket.socket):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, "a file system is gone")

    connection = some(crowd.come())
    connection.replace(lambda plain: Failing(fileno=plain.detach()))
    connection.close()

    assert connection.socket.fileno() == -1
    assert crowd.clients[connection].recv(1) == b""
