"""What is known of the connection, for collections to show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from bts_exporter import Reason

#: Why a connection cannot be made, and why one ends: all that failures.py gives.
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
    """Why there is no connection: kept without the exception, whose frames would keep the client."""

    reason: Reason
    message: str


@dataclass(slots=True)
class ConnectionState:
    """The state of the connection and its past.

    The network thread alone writes, one attribute at a time and mutable ones as a whole, so that
    readers need no lock.
    """

    #: When the network thread was last at its socket, on the clock of `time.monotonic`.
    heartbeat: float = 0.0
    connected: bool = False
    connects: int = 0
    restarts: int = 0
    message_errors: int = 0
    disconnects: Counter[Reason] = field(default_factory=Counter)
    connect_failures: Counter[Reason] = field(default_factory=Counter)
    #: QoS granted by filter, -1 for denied; without those that the broker has not answered.
    granted: dict[str, int] = field(default_factory=dict)
    #: Why subscriptions were denied, by filter, in the words of the MQTT standard.
    denied: dict[str, str] = field(default_factory=dict)
    #: Filters whose subscription the broker leaves unanswered.
    unanswered: tuple[str, ...] = ()
    #: Why the last attempt or connection ended; None before the first end.
    failure: Failure | None = None

    def end(self, failure: Failure | None) -> None:
        """Count the end of a connection, or of the attempt to make one; None if we ended it.

        The reason first: whoever sees that there is no connection finds why.
        """
        if failure is not None:
            self.failure = failure
            (self.disconnects if self.connected else self.connect_failures)[failure.reason] += 1
        self.connected = False
        self.granted, self.denied, self.unanswered = {}, {}, ()
