"""The queue of each client of an EMQX broker, by its REST API: `GET /api/v5/clients`, page by page."""

from __future__ import annotations

from base64 import b64encode
from time import monotonic
from typing import Annotated

import msgspec

from bts_collectors.mqtt import clientqueues
from bts_collectors.mqtt.clientqueues import Queue
from bts_exporter import (
    CollectorConfig,
    Metric,
    Reason,
    Scrape,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    counter,
)

#: Clients asked for at a time, and the pages that are read at most: of more clients, the broker's
#: own order decides which are seen.
PAGE_CLIENTS = 1000
MAX_PAGES = 20
_PATH = "/api/v5/clients"
#: Older versions do not know `fields` and send all of them.
_FIELDS = "clientid,mqueue_len,mqueue_dropped,inflight_cnt"
_STATUS_OK = 200

DROPPED = counter(
    "emqx_client_queue_dropped_messages_total",
    "Messages dropped because the client's queue was full (mqueue_dropped).",
    "client_id",
)
METRICS: tuple[Metric, ...] = (DROPPED, *clientqueues.METRICS)

_STATUS: dict[int, tuple[Reason, str]] = {
    401: (
        "auth",
        "the API key is wrong: emqx.url is http://KEY@host:18083, emqx.password its secret",
    ),
    403: ("noperm", "the API key may not list clients: give it the role viewer"),
    404: ("protocol", "there is no REST API of EMQX 5: correct emqx.url (port 18083)"),
    503: ("loading", "the broker is not ready"),
}

_Count = Annotated[int, msgspec.Meta(ge=0)]


class EmqxConfig(CollectorConfig, frozen=True):
    """Where EMQX's REST API is, with an API key as user and its secret as password."""

    url: Url = Url("http", "127.0.0.1", 18083)
    password: Secret | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        if self.url.scheme not in {"http", "https"}:
            msg = f"url: expected http:// or https://, got {self.url}"
            raise ValueError(msg)


class _Client(msgspec.Struct):
    clientid: str
    mqueue_len: _Count | None = None
    mqueue_dropped: _Count | None = None
    inflight_cnt: _Count | None = None


class _Meta(msgspec.Struct):
    hasnext: bool = False


class Page(msgspec.Struct):
    """One answer: clients, and whether there are more."""

    data: list[_Client]
    meta: _Meta = msgspec.field(default_factory=_Meta)


_PAGE = msgspec.json.Decoder(Page)


class Emqx:
    """The queues of all clients, asked for at each collection."""

    def __init__(self, config: EmqxConfig, tls: TLSConfig) -> None:
        """Keep the settings; no I/O here."""
        # urllib3 is for those who have EMQX.
        from bts_collectors.mqtt import httpget  # noqa: PLC0415

        self._get = httpget.get
        self._place = httpget.place(config.url, _PATH)
        self._url = config.url
        self._tls = tls
        password = config.password or config.url.password
        credentials = f"{config.url.username or ''}:{password.reveal() if password else ''}"
        self._headers = {
            "Accept": "application/json",
            "Authorization": "Basic " + b64encode(credentials.encode()).decode(),
            "User-Agent": "bts-exporter",
        }

    def emit(self, scrape: Scrape) -> None:
        """Emit the queues; TargetError where there is no usable answer in time."""
        clients = self._clients(monotonic() + scrape.remaining() * 0.9)
        queues = {name: Queue(c.mqueue_len, c.inflight_cnt) for name, c in clients.items()}
        for name in clientqueues.emit(scrape, queues):
            dropped = clients[name].mqueue_dropped
            if dropped is not None:
                scrape.emit(DROPPED, dropped, name)

    def _clients(self, deadline: float) -> dict[str, _Client]:
        clients: dict[str, _Client] = {}
        for number in range(1, MAX_PAGES + 1):
            page = self._page(number, deadline - monotonic())
            # A client that comes or goes meanwhile moves the others: one may be on two pages.
            clients.update((client.clientid, client) for client in page.data)
            if not page.meta.hasnext:
                break
        return clients

    def _page(self, number: int, seconds: float) -> Page:
        query = f"?page={number}&limit={PAGE_CLIENTS}&fields={_FIELDS}"
        status, body = self._get(self._url, self._tls, _PATH + query, self._headers, seconds)
        if status != _STATUS_OK:
            reason, what = _STATUS.get(status, ("protocol", "look at the broker's log"))
            raise TargetError(reason, f"{self._place}: status {status}: {what}")
        return parse(body, self._place)


def parse(body: bytes, place: str) -> Page:
    """Return the clients in an answer; TargetError where it is none of EMQX's."""
    try:
        return _PAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason: Reason = "protocol"
        raise TargetError(reason, f"{place}: not EMQX's list of clients: {error}") from error
