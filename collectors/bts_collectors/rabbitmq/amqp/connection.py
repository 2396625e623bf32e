"""A kept connection over AMQP 0-9-1: it causes no connection churn in the broker."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import pika  # type: ignore[import-untyped]
from pika import exceptions
from pika.adapters.utils.connection_workflow import (  # type: ignore[import-untyped]
    AMQPConnectorException,
    AMQPConnectorStackTimeout,
)

from bts_collectors.rabbitmq.amqp.frames import FrameGuard, guarded
from bts_exporter import (
    AddressWatch,
    Product,
    Reason,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    connection_error,
)

# pika logs each step of each failure with tracebacks; our own error contains the cause.
logging.getLogger("pika").setLevel(logging.CRITICAL)

PORT = 5672
TLS_PORT = 5671
TLS_SCHEME = "amqps"
#: User and password that RabbitMQ creates when it is installed.
DEFAULT_USER = "guest"
#: Heartbeat interval that is negotiated with the broker; a dead connection is detected within 30 s.
HEARTBEAT = 10
#: Errors of pika, and of the socket.
ERRORS = (exceptions.AMQPError, AMQPConnectorException, OSError)

PRODUCT = Product(
    "RabbitMQ",
    if_refused=f"is RabbitMQ running, and is this its port for AMQP ({PORT}, over TLS {TLS_PORT})?",
    if_closed=f"is this RabbitMQ's port for AMQP ({PORT}, over TLS {TLS_PORT})? 15672 is the port of the"
    " management API, 15692 of RabbitMQ's own exporter, 5552 of streams",
)

_DENIED_CODES = (403, 530)


class BlockedError(TargetError):
    """Raised when the broker accepts no messages because of an alarm."""

    def __init__(self, message: str) -> None:
        super().__init__("timeout", message)


class AmqpConnection:
    """A connection that is opened when it is used; for one thread."""

    def __init__(
        self, url: Url, password: Secret | None, tls: TLSConfig, timeout_seconds: float
    ) -> None:
        """Prepare a connection to `url`, opened within `timeout_seconds`; no I/O."""
        self.address = str(url)
        self._url = url
        self._tls = tls
        self._password = password or url.password
        self._parameters = _parameters(url, self._password, timeout_seconds)
        self._guard = FrameGuard()
        self._watch = AddressWatch(url.host)
        self._peer = ""
        self._connection: Any = None
        #: The name of the cluster that was connected to last; empty if it is unknown.
        self.cluster = ""

    @property
    def is_open(self) -> bool:
        """Whether the connection is open; a lost one may not be detected yet."""
        return self._connection is not None and self._connection.is_open

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Yield the open connection; TargetError if it cannot be opened, or fails while it is used.

        BlockedError if the broker accepts no messages.
        """
        try:
            if self.is_open and self._watch.has_moved(self._peer):
                self.close()
            if not self.is_open:
                self._open()
            self._guard.allow()
            yield self._connection
        except ERRORS as error:
            # Without its cause, whose frames hold what was received.
            raise self._explain(error) from None

    def process_heartbeats(self) -> None:
        """Process heartbeats; a lost connection is opened again at the next use."""
        if self.is_open:
            self._guard.allow()
            with suppress(*ERRORS):
                self._connection.process_data_events(0)

    def close(self) -> None:
        """Close the connection."""
        if self.is_open:
            with suppress(*ERRORS):
                self._connection.close()

    def _open(self) -> None:
        try:
            self._connect()
        except exceptions.ProbableAuthenticationError:
            if not self._renew_password():
                raise
            self._connect()
        self._peer = self._peer_of(self._connection)
        self.cluster = cluster_of(self._connection)
        self._watch.has_moved(self._peer)  # notes that the name was resolved just now

    def _connect(self) -> None:
        if self._url.scheme == TLS_SCHEME:
            self._parameters.ssl_options = ssl_options(self._url, self._tls)
        self._connection = pika.BlockingConnection(self._parameters, guarded(self._guard))

    def _renew_password(self) -> bool:
        """Read the password again; return whether it has changed."""
        password = self._password.reread() if self._password else None
        if password == self._password:
            return False
        self._password = password
        self._parameters.credentials = _credentials(self._url, password)
        return True

    def _peer_of(self, connection: Any) -> str:
        # pika's socket is private. Without it, a moved name is noticed only when the connection fails.
        transport = getattr(getattr(connection, "_impl", None), "_transport", None)
        sock = getattr(transport, "_sock", None)
        with suppress(OSError):
            return str(sock.getpeername()[0]) if sock is not None else ""
        return ""

    def _explain(self, error: BaseException) -> TargetError:
        """Return the TargetError for `error`."""
        if self._guard.failure:
            what = f"{PRODUCT.name} at {self.address}: {self._guard.failure}"
            return TargetError("protocol", what)
        return explain(error, self.address)


def cluster_of(connection: Any) -> str:
    """Return the name of the cluster, which RabbitMQ sends when a connection is opened; empty if it does not."""
    properties = getattr(getattr(connection, "_impl", None), "server_properties", None) or {}
    name = properties.get("cluster_name", "")
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def vhost_of(url: Url) -> str:
    """Return the virtual host in an address, `/` by default."""
    return unquote(url.path[1:]) or "/"


def ssl_options(url: Url, tls: TLSConfig) -> Any:
    """Return pika's TLS options for one connection; TargetError names an unusable file."""
    return pika.SSLOptions(tls.context(), tls.server_name or url.host)


def _credentials(url: Url, password: Secret | None) -> Any:
    if password is None and url.username is None:
        password = Secret(DEFAULT_USER)
    return pika.PlainCredentials(
        url.username or DEFAULT_USER, password.reveal() if password else ""
    )


def _parameters(url: Url, password: Secret | None, timeout_seconds: float) -> Any:
    return pika.ConnectionParameters(
        url.host,
        url.port or (TLS_PORT if url.scheme == TLS_SCHEME else PORT),
        vhost_of(url),
        _credentials(url, password),
        heartbeat=HEARTBEAT,
        socket_timeout=timeout_seconds,
        stack_timeout=timeout_seconds,
        blocked_connection_timeout=timeout_seconds,
        client_properties={"connection_name": "bts-exporter"},
    )


def explain(error: BaseException, address: str) -> TargetError:
    """Return the TargetError for an error of pika or of the socket."""
    start = f"{PRODUCT.name} at {address}"
    cause = _cause(error)
    match cause:
        case exceptions.ProbableAuthenticationError():
            return TargetError("auth", f"{start}: login refused; check user and password")
        case exceptions.ProbableAccessDeniedError():
            return TargetError(
                "noperm",
                f"{start}: the user has no access to this virtual host, or it does not exist:"
                " rabbitmqctl set_permissions -p VHOST USER ...",
            )
        case exceptions.ConnectionClosedByBroker() | exceptions.ChannelClosedByBroker():
            reason: Reason = "noperm" if cause.reply_code in _DENIED_CODES else "protocol"
            return TargetError(reason, f"{start}: {cause.reply_code} {cause.reply_text}")
        case exceptions.ConnectionBlockedTimeout():
            return BlockedError(
                f"{start}: the broker accepts no messages because of an alarm (memory or disk)"
            )
        case AMQPConnectorStackTimeout():
            return no_reply(address)
        case exceptions.AMQPHeartbeatTimeout():
            return connection_error(PRODUCT, address, TimeoutError())
        case exceptions.IncompatibleProtocolError() | exceptions.StreamLostError():
            return _lost(str(cause), address)
        case exceptions.AMQPError():
            return TargetError("unreachable", f"{start}: the connection failed: {cause!r}")
        case _:
            return connection_error(PRODUCT, address, cause)


def no_reply(address: str) -> TargetError:
    """Return the error for a server that does not answer, such as an HTTP server that waits for a request."""
    return TargetError(
        "timeout", f"{connection_error(PRODUCT, address, TimeoutError())}; {PRODUCT.if_closed}"
    )


def _lost(text: str, address: str) -> TargetError:
    # With TLS 1.3 the broker checks our certificate after the handshake. pika keeps only the text of
    # its alert.
    if "SSL" in text:
        return connection_error(PRODUCT, address, ssl.SSLError(1, text))
    return connection_error(PRODUCT, address, EOFError())


def _cause(error: BaseException) -> BaseException:
    """Return the innermost error that pika wrapped."""
    inner = getattr(error, "exception", None) or next(
        (part for part in error.args if isinstance(part, BaseException)), None
    )
    return error if inner is None else _cause(inner)
