"""The state of the connection, written by the network thread and read by collections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from bts_exporter import Reason

#: Reasons for which an attempt to connect fails, and for which a connection ends, as errors.py gives them.
CONNECT_REASONS: tuple[Reason, ...] = (
    "auth",
    "dns",
    "internal",
    "loading",
    "noperm",
    "os",
    "protocol",
    "refused",
    "timeout",
    "tls",
    "unreachable",
)
DISCONNECT_REASONS: tuple[Reason, ...] = (
    "internal",
    "noperm",
    "protocol",
    "timeout",
    "tls",
    "unreachable",
)


class Failure(NamedTuple):
    """Why there is no connection; not the exception, whose traceback would keep the client in memory."""

    reason: Reason
    message: str


@dataclass(slots=True)
class ConnectionState:
    """The current state of the connection, and counts of past connections.

    Only the network thread writes. It replaces collections as a whole, so that readers need no lock.
    """

    #: Time of the network thread's last loop, on the clock of `time.monotonic`.
    heartbeat: float = 0.0
    connected: bool = False
    connects: int = 0
    restarts: int = 0
    message_errors: int = 0
    disconnects: Counter[Reason] = field(default_factory=Counter)
    connect_failures: Counter[Reason] = field(default_factory=Counter)
    #: Granted QoS by filter, -1 if denied; filters without a SUBACK are missing.
    granted: dict[str, int] = field(default_factory=dict)
    #: Why subscriptions were denied, by filter, as the MQTT standard words it.
    denied: dict[str, str] = field(default_factory=dict)
    #: Filters for which the broker sent no SUBACK in time.
    unanswered: tuple[str, ...] = ()
    #: Why the last attempt or connection ended; None until one has.
    failure: Failure | None = None

    def end(self, failure: Failure | None) -> None:
        """Count the end of a connection or of an attempt to connect; `failure` is None if we ended it.

        The failure is set first: a reader that sees `connected` false also sees why.
        """
        if failure is not None:
            self.failure = failure
            (self.disconnects if self.connected else self.connect_failures)[failure.reason] += 1
        self.connected = False
        self.granted, self.denied, self.unanswered = {}, {}, ()
