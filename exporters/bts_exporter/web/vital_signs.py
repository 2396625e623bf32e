"""Whether the HTTP listener can serve: its thread responds, its sockets listen, threads can be started."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic

#: Seconds in which the listener's thread has to respond.
_RESPONSE_SECONDS = 5.0


class VitalSigns:
    """The signs of life of a listener, checked without a connection: a firewall may refuse that.

    The check and the listener's thread use it at the same time.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = [(sock, _identity(sock)) for sock in sockets]
        self._asked_at: float | None = None

    def beat(self) -> None:
        """Respond to the check, in the listener's thread."""
        self._asked_at = None

    def problem(self, thread: threading.Thread, wake: Callable[[], None]) -> str:
        """Return why the listener cannot serve; empty if it can.

        `wake` makes the listener's thread call `beat`; the response is looked at in the next check.
        """
        if not thread.is_alive():
            return "the thread that accepts connections has died"
        asked_at = self._asked_at
        if asked_at is None:
            self._asked_at = monotonic()
            wake()
        elif monotonic() - asked_at > _RESPONSE_SECONDS:
            return "the thread that accepts connections does not respond"
        if any(_identity(sock) != identity for sock, identity in self._sockets):
            return "a listening socket has been closed, most likely by a plug-in"
        return _thread_problem()


def _identity(sock: socket.socket) -> tuple[int, int] | None:
    """Return what tells the open, listening socket from all others; None if it does not listen."""
    try:
        found = os.fstat(sock.fileno())
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if listening else None


def _thread_problem() -> str:
    """Return why no thread can be started for a connection; empty if one can."""
    try:
        threading.Thread(target=int, name="http-check", daemon=True).start()
    except RuntimeError as error:
        return f"no thread for a connection: {error} (TasksMax= and ulimit -u are limits)"
    return ""
