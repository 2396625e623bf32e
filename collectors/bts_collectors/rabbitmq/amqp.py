"""A connection over AMQP 0-9-1 that is kept: the broker's view of its clients does not churn for us."""

from __future__ import annotations

import logging
import socket
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

from bts_exporter import Reason, Secret, TargetError, TLSConfig, Url

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

_DENIED = (403, 530)
_CURE = "(tls.ca_file: whom we trust; tls.cert_file: who we are)"


class Link:
    """A connection that is opened when it is needed; for one thread."""

    def __init__(self, url: Url, password: Secret | None, tls: TLSConfig, seconds: float) -> None:
        """Prepare a connection to `url`; `seconds` is the time that opening it may take, no I/O."""
        self.place = str(url)
        self._url = url
        self._tls = tls
        self._parameters = _parameters(url, password, seconds)
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and self._connection.is_open

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Give the connection, opened where it is not; TargetError for whatever goes wrong with it."""
        try:
            if not self.is_open:
                if self._url.scheme == TLS_SCHEME:
                    self._parameters.ssl_options = ssl_options(self._url, self._tls)
                self._connection = pika.BlockingConnection(self._parameters)
            yield self._connection
        except ERRORS as error:
            reason, what = explain(error)
            raise TargetError(reason, f"{self.place}: {what}") from error

    def breathe(self) -> None:
        """Answer heartbeats; a connection that broke meanwhile is opened again at the next use."""
        if self.is_open:
            with suppress(*ERRORS):
                self._connection.process_data_events(0)

    def close(self) -> None:
        """Close the connection."""
        if self.is_open:
            with suppress(*ERRORS):
                self._connection.close()


def vhost_of(url: Url) -> str:
    """Return the virtual host that an address names; `/` where it names none."""
    return unquote(url.path[1:]) or "/"


def ssl_options(url: Url, tls: TLSConfig) -> Any:
    """Return pika's settings of TLS for one connection; TargetError names a file that is no good."""
    return pika.SSLOptions(tls.context(), tls.server_name or url.host)


def _parameters(url: Url, password: Secret | None, seconds: float) -> Any:
    password = password or url.password
    username = url.username or DEFAULT_USER
    if password is None and url.username is None:
        password = Secret(DEFAULT_USER)
    return pika.ConnectionParameters(
        url.host,
        url.port or (TLS_PORT if url.scheme == TLS_SCHEME else PORT),
        vhost_of(url),
        pika.PlainCredentials(username, password.reveal() if password else ""),
        heartbeat=HEARTBEAT,
        socket_timeout=seconds,
        stack_timeout=seconds,
        blocked_connection_timeout=seconds,
        client_properties={"connection_name": "bts-exporter"},
    )


def explain(error: BaseException) -> tuple[Reason, str]:
    """Return why there is no answer, and how to say it."""
    cause = _cause(error)
    match cause:
        case exceptions.ProbableAuthenticationError():
            return "auth", "the broker refuses the login: check user and password"
        case exceptions.ProbableAccessDeniedError():
            return "noperm", (
                "the user may not use this virtual host, or there is none of this name:"
                " rabbitmqctl set_permissions -p VHOST USER ..."
            )
        case exceptions.ConnectionClosedByBroker() | exceptions.ChannelClosedByBroker():
            reason: Reason = "noperm" if cause.reply_code in _DENIED else "protocol"
            return reason, f"{cause.reply_code} {cause.reply_text}"
        case exceptions.ConnectionBlockedTimeout():
            return "timeout", "the broker takes no messages: it has an alarm (memory or disk)"
        case exceptions.AMQPHeartbeatTimeout() | AMQPConnectorStackTimeout() | TimeoutError():
            return "timeout", f"no answer in time; is this the broker's port ({PORT})?"
        case socket.gaierror():
            return "dns", "the name of the host does not resolve"
        case ConnectionRefusedError():
            return "refused", "nothing listens there: does RabbitMQ run?"
        case ssl.SSLError():
            return "tls", f"no TLS connection: {cause} {_CURE}"
        case exceptions.IncompatibleProtocolError():
            return _no_amqp(str(cause))
        case _:
            return "unreachable", f"the connection failed: {cause!r}"


def _no_amqp(words: str) -> tuple[Reason, str]:
    # By TLS 1.3 the broker looks at our certificate only after the handshake, and pika keeps no more
    # than the text of what it says then.
    if "SSL" in words:
        return "tls", f"no TLS connection: {words} {_CURE}"
    return "protocol", f"not AMQP 0-9-1: is this the broker's port ({PORT})?"


def _cause(error: BaseException) -> BaseException:
    """Return what pika wrapped, as far down as it goes."""
    inner = getattr(error, "exception", None) or next(
        (part for part in error.args if isinstance(part, BaseException)), None
    )
    return error if inner is None else _cause(inner)
