"""Consumers of NATS JetStream: their backlog, and their lag from the time of the oldest message."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client, RawCredentials

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, Url, backlog

PRODUCT = bts.Product("NATS", "is nats-server running?", "does this port speak NATS, with TLS?")
#: Text of an error, its reason and its cure.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("permissions violation", "noperm", "permit $JS.API.> and _INBOX.> to this user"),
    ("auth", "auth", "check user, password and credentials"),
    ("serviceunavailable", "protocol", "enable JetStream: nats-server -js, and for the account"),
    ("eof", "unreachable", "NATS closed the connection"),
    ("", "protocol", "is this a NATS server?"),
)
TIMEOUT = 3600  # of nats-py: requests end with the scrape


class Nats(bts.Collector):
    """Consumers of NATS JetStream that have a durable name; each of the others is a new series."""

    class Config(bts.CollectorConfig, frozen=True):
        """A NATS server, and which of its streams are read."""

        #: nats:// or tls://; a user may be part of it.
        url: Url = Url.from_setting("nats://127.0.0.1:4222")
        #: The password of that user, or a token if there is no user.
        password: Secret | None = None
        #: The content of a .creds file, such as `!file nats.creds`.
        credentials: Secret | None = None
        tls: bts.TLSConfig = bts.TLSConfig()
        #: A regular expression for the names of streams, searched anywhere in them.
        streams: re.Pattern[str] = re.compile("")

        def __post_init__(self) -> None:
            """Check the address."""
            self.url.require_scheme("nats", "tls")
            self.tls.require_used_by(self.url, schemes=("tls",))

    config: Config
    up = bts.gauge("nats_up", "Whether JetStream answers.")
    depth = (backlog.BACKLOG, backlog.IN_FLIGHT, backlog.CONSUMERS)
    lag = (backlog.LAG_SECONDS, backlog.LAG_METHOD)
    counters = (backlog.PUBLISHED, backlog.CONSUMED)

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of all consumers; what the user may not read is reported."""
        scrape.emit(self.up, 0)
        try:
            asyncio.run(self._collect(scrape))
        except OSError as error:
            raise bts.connection_error(PRODUCT, self.config.url, error) from error

    async def _collect(self, scrape: Scrape) -> None:
        client = Client()
        try:
            await self._ask(scrape, self._connect(client))
            if client.is_connected:
                await self._read(scrape, client.jetstream(timeout=TIMEOUT))
        finally:  # nats-py waits for ever for the end of a connection whose handshake failed
            await asyncio.wait({asyncio.ensure_future(client.close())}, timeout=0.1)

    async def _connect(self, client: Client) -> None:
        url, tls, credentials = self.config.url, self.config.tls, self.config.credentials
        options: dict[str, Any] = {"user": url.username, "connect_timeout": TIMEOUT}
        if url.scheme == "tls":
            options |= {"tls": tls.context(), "tls_hostname": tls.server_name or url.host}
        if credentials:
            options["user_credentials"] = RawCredentials(credentials.reread().reveal())

        def password() -> str:
            """Return the password, unless nats-py would send it without TLS in spite of tls://."""
            if url.scheme == "tls" and not options["tls"].session_stats()["connect_good"]:
                message = f"NATS at {url}: no TLS there; configure it, or write nats://"
                raise TargetError(reason="tls", message=message)
            secret = self.config.password or url.password
            return secret.reread().reveal() if secret else ""

        options["password" if url.username else "token"] = password
        await client.connect(str(url), self._on_error, allow_reconnect=False, **options)
        password()  # of servers that did not ask for it, too

    async def _ask(self, scrape: Scrape, request: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of `request`; None if what it asks for was deleted, or is refused."""
        self._error: Exception | None = None
        self._request = asyncio.ensure_future(asyncio.wait_for(request, scrape.remaining()))
        try:
            return await self._request
        except (asyncio.CancelledError, nats.errors.Error) as ended:
            error = self._error or ended
            if isinstance(error, OSError):
                raise error from None
            if not isinstance(error, nats.js.errors.NotFoundError):
                scrape.report(self._failure(error))

    async def _on_error(self, error: Exception) -> None:
        self._error = error
        self._request.cancel()

    async def _read(self, scrape: Scrape, js: nats.js.JetStreamContext) -> None:
        """Emit all counts, then lags, which take a request for each consumer that is behind."""
        streams, consumers = list[Any](), list[Any]()
        while page := await self._ask(scrape, js.streams_info(len(streams))):
            streams += page
        scrape.replace(self.up, page is not None)
        for stream in streams:
            if self.config.streams.search(name := stream.config.name):
                scrape.emit(backlog.PUBLISHED, stream.state.last_seq, "nats", name, "")
                for offset in range(0, stream.state.consumer_count, 256):  # as many as in a reply
                    consumers += await self._ask(scrape, js.consumers_info(name, offset)) or []
        consumers = [consumer for consumer in consumers if consumer.config.durable_name]
        for of in consumers:
            labels = ("nats", of.stream_name, of.name)
            scrape.emit(backlog.BACKLOG, of.num_pending, *labels)
            scrape.emit(backlog.IN_FLIGHT, of.num_ack_pending, *labels)
            scrape.emit(backlog.CONSUMED, of.delivered.consumer_seq, *labels)
            # How many clients pull messages, or share those of a group, is unknown.
            if of.config.deliver_subject and not (of.push_bound and of.config.deliver_group):
                scrape.emit(backlog.CONSUMERS, bool(of.push_bound), *labels)
        for consumer in consumers:
            await self._emit_lag(scrape, js, consumer)

    async def _emit_lag(self, scrape: Scrape, js: nats.js.JetStreamContext, of: Any) -> None:
        """Emit the age of the first message behind those that were delivered, if it is known."""
        if of.config.filter_subjects or of.config.deliver_policy == "last_per_subject":
            return  # the first message of one subject may not be the next one
        seconds = 0.0
        if of.num_pending:
            after, subject = of.delivered.stream_seq, of.config.filter_subject or ">"
            request = js.get_msg(of.stream_name, after + 1, subject, next=True)
            if not (message := await self._ask(scrape, request)):
                return
            seconds = max(time.time() - message.time.timestamp(), 0.0)
        age = backlog.Age(seconds, "message_time")
        backlog.emit_lag(scrape, age, "nats", of.stream_name, of.name)

    def _failure(self, error: BaseException) -> TargetError:
        reason, cure = next((r, cure) for part, r, cure in ERRORS if part in str(error).lower())
        return TargetError(reason, f"NATS at {self.config.url}: {error}; {cure}")
