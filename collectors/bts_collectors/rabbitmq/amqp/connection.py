"""A connection over AMQP 0-9-1 that is kept: the broker's view of its clients does not churn for us."""

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

# It logs each step of each failure, with tracebacks; what matters is in our own message.
logging.getLogger("pika").setLevel(logging.CRITICAL)

PORT = 5672
TLS_PORT = 5671
TLS_SCHEME = "amqps"
#: As RabbitMQ is installed.
DEFAULT_USER = "guest"
#: Seconds without a sign of life after which a connection counts as broken; noticed within 30.
HEARTBEAT = 10
#: What pika raises, and what it lets through of the socket's.
ERRORS = (exceptions.AMQPError, AMQPConnectorException, OSError)

PRODUCT = Product(
    "RabbitMQ",
    if_refused=f"is RabbitMQ running, and is this its port for AMQP ({PORT}, over TLS {TLS_PORT})?",
    if_closed=f"is this RabbitMQ's port for AMQP ({PORT}, over TLS {TLS_PORT})? 15672 is that of the"
    " management API, 15692 that of RabbitMQ's own exporter, 5552 that of streams",
)

_DENIED_CODES = (403, 530)


class BlockedError(TargetError):
    """Raised when the broker is there and takes no messages."""

    def __init__(self, message: str) -> None:
        super().__init__("timeout", message)


class AmqpConnection:
    """A connection that is opened when it is needed; for one thread."""

    def __init__(self, url: Url, password: Secret | None, tls: TLSConfig, seconds: float) -> None:
        """Prepare a connection to `url`; `seconds` is the time that opening it may take, no I/O."""
        self.place = str(url)
        self._url = url
        self._tls = tls
        self._password = password or url.password
        self._parameters = _parameters(url, self._password, seconds)
        self._guard = FrameGuard()
        self._watch = AddressWatch(url.host)
        self._peer = ""
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and self._connection.is_open

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Give the connection, opened where it is not; TargetError for whatever goes wrong with it.

        BlockedError is raised where the broker takes no messages.
        """
        try:
            if self.is_open and self._watch.has_moved(self._peer):
                self.close()
            if not self.is_open:
                self._open()
            self._guard.allow()
            yield self._connection
        except ERRORS as error:
            # Without what caused it, whose frames hold what was received.
            raise self._explain(error) from None

    def process_heartbeats(self) -> None:
        """Answer heartbeats; a connection that broke meanwhile is opened again at the next use."""
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
        self._watch.has_moved(self._peer)  # tells it when the name was resolved

    def _connect(self) -> None:
        if self._url.scheme == TLS_SCHEME:
            self._parameters.ssl_options = ssl_options(self._url, self._tls)
        self._connection = pika.BlockingConnection(self._parameters, guarded(self._guard))

    def _renew_password(self) -> bool:
        """Read the password again; return whether it is another one."""
        password = self._password.reread() if self._password else None
        if password == self._password:
            return False
        self._password = password
        self._parameters.credentials = _credentials(self._url, password)
        return True

    def _peer_of(self, connection: Any) -> str:
        # pika does not show its socket; without it, a name that moves is noticed when it breaks.
        transport = getattr(getattr(connection, "_impl", None), "_transport", None)
        sock = getattr(transport, "_sock", None)
        with suppress(OSError):
            return str(sock.getpeername()[0]) if sock is not None else ""
        return ""

    def _explain(self, error: BaseException) -> TargetError:
        """Return what `error` means."""
        if self._guard.failure:
            what = f"{PRODUCT.name} at {self.place}: {self._guard.failure}"
            return TargetError("protocol", what)
        return explain(error, self.place)


def vhost_of(url: Url) -> str:
    """Return the virtual host that an address names; `/` where it names none."""
    return unquote(url.path[1:]) or "/"


def ssl_options(url: Url, tls: TLSConfig) -> Any:
    """Return pika's settings of TLS for one connection; TargetError names a file that is no good."""
    return pika.SSLOptions(tls.context(), tls.server_name or url.host)


def _credentials(url: Url, password: Secret | None) -> Any:
    if password is None and url.username is None:
        password = Secret(DEFAULT_USER)
    return pika.PlainCredentials(
        url.username or DEFAULT_USER, password.reveal() if password else ""
    )


def _parameters(url: Url, password: Secret | None, seconds: float) -> Any:
    return pika.ConnectionParameters(
        url.host,
        url.port or (TLS_PORT if url.scheme == TLS_SCHEME else PORT),
        vhost_of(url),
        _credentials(url, password),
        heartbeat=HEARTBEAT,
        socket_timeout=seconds,
        stack_timeout=seconds,
        blocked_connection_timeout=seconds,
        client_properties={"connection_name": "bts-exporter"},
    )


def explain(error: BaseException, place: str) -> TargetError:
    """Return why there is no answer."""
    start = f"{PRODUCT.name} at {place}"
    cause = _cause(error)
    match cause:
        case exceptions.ProbableAuthenticationError():
            return TargetError("auth", f"{start}: login refused; check user and password")
        case exceptions.ProbableAccessDeniedError():
            return TargetError(
                "noperm",
                f"{start}: the user may not use this virtual host, or there is none of this name:"
                " rabbitmqctl set_permissions -p VHOST USER ...",
            )
        case exceptions.ConnectionClosedByBroker() | exceptions.ChannelClosedByBroker():
            reason: Reason = "noperm" if cause.reply_code in _DENIED_CODES else "protocol"
            return TargetError(reason, f"{start}: {cause.reply_code} {cause.reply_text}")
        case exceptions.ConnectionBlockedTimeout():
            return BlockedError(
                f"{start}: the broker takes no messages: it has an alarm (memory, disk)"
            )
        case AMQPConnectorStackTimeout():
            return no_reply(place)
        case exceptions.AMQPHeartbeatTimeout():
            return connection_error(PRODUCT, place, TimeoutError())
        case exceptions.IncompatibleProtocolError() | exceptions.StreamLostError():
            return _lost(str(cause), place)
        case exceptions.AMQPError():
            return TargetError("unreachable", f"{start}: the connection failed: {cause!r}")
        case _:
            return connection_error(PRODUCT, place, cause)


def no_reply(place: str) -> TargetError:
    """Return the failure of a server that says nothing: one for HTTP waits for the rest of a request."""
    return TargetError(
        "timeout", f"{connection_error(PRODUCT, place, TimeoutError())}; {PRODUCT.if_closed}"
    )


def _lost(words: str, place: str) -> TargetError:
    # By TLS 1.3 the broker looks at our certificate only after the handshake, and pika keeps no more
    # than the text of what it says then.
    if "SSL" in words:
        return connection_error(PRODUCT, place, ssl.SSLError(1, words))
    return connection_error(PRODUCT, place, EOFError())


def _cause(error: BaseException) -> BaseException:
    """Return what pika wrapped, as far down as it goes."""
    inner = getattr(error, "exception", None) or next(
        (part for part in error.args if isinstance(part, BaseException)), None
    )
    return error if inner is None else _cause(inner)
