"""Consumers of NATS JetStream: their backlog, and their lag from the time of the oldest message."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, Url, backlog

T = TypeVar("T")
PRODUCT = bts.Product("NATS", "is nats-server running?", "does this port speak NATS, with TLS?")
#: Text of an error, its reason and its cure.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("permissions violation", "noperm", "permit $JS.API.> and _INBOX.> to this user"),
    ("auth", "auth", "check user, password and credentials"),
    ("serviceunavailable", "protocol", "enable JetStream: nats-server -js, and for the account"),
    ("eof", "unreachable", "NATS closed the connection"),
    ("", "protocol", "is this a NATS server?"),
)
PAGE = 256  # entries of JetStream's lists
TIMEOUT = 3600  # of single requests: the deadline of the scrape ends them


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
    unacknowledged = bts.gauge(
        "nats_consumer_oldest_unacknowledged_seconds",
        "Age of the oldest message that was delivered and is not acknowledged; 0 if all are.",
        ("stream", "consumer"),
    )
    vocabulary = tuple(m for m in backlog.VOCABULARY if m is not backlog.DRAIN_SECONDS)

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of all consumers; what the user may not read is reported."""
        scrape.emit(self.up, 0)
        try:
            asyncio.run(self._collect(scrape))
        except (nats.errors.Error, OSError) as error:
            raise self._failure(error) from error

    async def _collect(self, scrape: Scrape) -> None:
        client = Client()
        try:
            async with asyncio.timeout(scrape.remaining()):
                await self._ask(self._connect(client))
                self._js = client.jetstream(timeout=TIMEOUT)
                await self._read(scrape)
        finally:
            # nats-py waits for ever for the end of a connection whose TLS handshake failed.
            await asyncio.wait({asyncio.ensure_future(client.close())}, timeout=0.5)

    async def _connect(self, client: Client) -> None:
        url, password = self.config.url, self.config.password or self.config.url.password
        options: dict[str, Any] = {"allow_reconnect": False, "connect_timeout": TIMEOUT}
        if url.scheme == "tls":
            tls, host = self.config.tls.context(), self.config.tls.server_name or url.host
            options |= {"tls": tls, "tls_hostname": host}

        def reveal(secret: Secret | None) -> str:
            """Return the secret, unless it would be sent unencrypted, as nats-py does."""
            if url.scheme == "tls" and not tls.session_stats()["connect_good"]:
                message = f"NATS at {url}: no TLS there; configure it, or write nats://"
                raise TargetError(reason="tls", message=message)
            return secret.reread().reveal() if secret else ""

        if password:
            options["password" if url.username else "token"] = lambda: reveal(password)
        if credentials := self.config.credentials:
            options["user_credentials"] = RawCredentials(credentials.reread().reveal())
        await client.connect(str(url), self._on_error, user=url.username, **options)
        reveal(None)

    async def _ask(self, request: Coroutine[Any, Any, T]) -> T:
        """Return the result of `request`, or raise the error that NATS sends in place of a reply."""
        self._error: Exception | None = None
        self._request = asyncio.ensure_future(request)
        try:
            return await self._request
        except asyncio.CancelledError as ended:
            task = asyncio.current_task()  # which the deadline cancels
            raise (ended if task and task.cancelling() else self._error or ended) from None

    async def _on_error(self, error: Exception) -> None:
        self._error = error
        self._request.cancel()

    async def _part(self, scrape: Scrape, request: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of `request`; None if it was deleted, or may not be read."""
        try:
            return await self._ask(request)
        except nats.errors.Error as error:
            if not isinstance(error, NotFoundError):
                scrape.report(self._failure(error))
        return None

    async def _read(self, scrape: Scrape) -> None:
        """Emit all counts, then the ages, which take a request for each consumer that is behind."""
        streams: list[StreamInfo] = []
        offset = 0
        while page := await self._ask(self._js.streams_info(offset)):
            streams += page
            offset += PAGE
        scrape.replace(self.up, 1)
        consumers: list[Any] = []
        for stream in streams:
            if self.config.streams.search(name := str(stream.config.name)):
                scrape.emit(backlog.PUBLISHED, stream.state.last_seq, "nats", name, "")
                for offset in range(0, stream.state.consumer_count, PAGE):
                    request = self._js.consumers_info(name, offset)
                    consumers += await self._part(scrape, request) or []
        consumers = [consumer for consumer in consumers if consumer.config.durable_name]
        for consumer in consumers:
            self._emit_counts(scrape, consumer)
        for consumer in consumers:
            await self._emit_ages(scrape, consumer)

    # Numbers of a ConsumerInfo are always there, but nats-py declares them as optional: hence Any.
    def _emit_counts(self, scrape: Scrape, of: Any) -> None:
        labels = ("nats", of.stream_name, of.name)
        scrape.emit(backlog.BACKLOG, of.num_pending, *labels)
        scrape.emit(backlog.IN_FLIGHT, of.num_ack_pending, *labels)
        scrape.emit(backlog.CONSUMED, of.delivered.consumer_seq, *labels)
        # How many clients pull messages, or share those of a group, is unknown.
        if of.config.deliver_subject and not (of.push_bound and of.config.deliver_group):
            scrape.emit(backlog.CONSUMERS, bool(of.push_bound), *labels)

    async def _emit_ages(self, scrape: Scrape, of: Any) -> None:
        labels = (of.stream_name, of.name)
        if of.config.deliver_policy != "last_per_subject":  # which skips messages
            after = of.delivered.stream_seq
            age = await self._age(scrape, of, after) if of.num_pending else 0.0
            known = None if age is None else backlog.Age(age, "message_time")
            backlog.emit_lag(scrape, known, "nats", *labels)
        age = await self._age(scrape, of, of.ack_floor.stream_seq) if of.num_ack_pending else 0.0
        if age is not None:
            scrape.emit(self.unacknowledged, age, *labels)

    async def _age(self, scrape: Scrape, of: Any, after: int) -> float | None:
        """Return the age of the first message after a position; None if it is not known."""
        times = []
        for subject in of.config.filter_subjects or [of.config.filter_subject or ">"]:
            request = self._js.get_msg(of.stream_name, after + 1, subject, next=True)
            if (message := await self._part(scrape, request)) and message.time:
                times.append(message.time.timestamp())
        return max(time.time() - min(times), 0.0) if times else None

    def _failure(self, error: Exception) -> TargetError:
        if isinstance(error, OSError):
            return bts.connection_error(PRODUCT, self.config.url, error)
        reason, cure = next((r, cure) for part, r, cure in ERRORS if part in str(error).lower())
        return TargetError(reason, f"NATS at {self.config.url}: {error}; {cure}")


COLLECTOR = Nats
