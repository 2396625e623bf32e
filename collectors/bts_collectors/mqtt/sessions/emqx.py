"""The queue of each client of an EMQX broker, by its REST API: `GET /api/v5/clients`, page by page."""

from __future__ import annotations

from base64 import b64encode
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from bts_collectors.mqtt.sessions import metrics
from bts_collectors.mqtt.sessions.metrics import Queue
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
#: Bytes of all pages of one collection.
MAX_BYTES = 64 * 1024 * 1024
_PATH = "/api/v5/clients"
#: Older versions do not know `fields` and send all of them.
_FIELDS = "clientid,mqueue_len,mqueue_dropped,inflight_cnt"
_STATUS_OK = 200
_STATUS_UNAUTHORIZED = 401

DROPPED = counter(
    "emqx_client_queue_dropped_messages_total",
    "Messages dropped because the client's queue was full (mqueue_dropped).",
    "client_id",
)
METRICS: tuple[Metric, ...] = (DROPPED, *metrics.METRICS)

_STATUS: dict[int, tuple[Reason, str]] = {
    401: (
        "auth",
        "the API key is wrong: emqx.url is http://KEY@host:18083, emqx.password its secret",
    ),
    403: ("noperm", "the API key may not list clients: give it the role viewer"),
    404: ("protocol", "there is no REST API of EMQX 5: correct emqx.url (port 18083)"),
    503: ("loading", "the broker is not ready"),
}


class EmqxConfig(CollectorConfig, frozen=True):
    """Where EMQX's REST API is, with an API key as user and its secret as password."""

    url: Url = Url("http", "127.0.0.1", 18083)
    password: Secret | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        self.url.require_scheme("http", "https")


class _Client(msgspec.Struct):
    """One client; what it is worth is looked at field by field, since one odd field costs no other."""

    clientid: Any = None
    mqueue_len: Any = None
    mqueue_dropped: Any = None
    inflight_cnt: Any = None


class _Meta(msgspec.Struct):
    hasnext: Any = False
    count: Any = None


class Page(msgspec.Struct):
    """One answer: clients, and whether there are more."""

    data: list[Any]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Listing(NamedTuple):
    """The clients that were read, by id, and how many more there are; None where that is not known."""

    clients: dict[str, _Client]
    others: int | None


_PAGE = msgspec.json.Decoder(Page)


class Emqx:
    """The queues of all clients, asked for at each collection."""

    def __init__(self, config: EmqxConfig, tls: TLSConfig) -> None:
        """Keep the settings; no I/O here."""
        # urllib3 is for those who have EMQX.
        from bts_collectors.mqtt.client import httpget  # noqa: PLC0415

        self._get = httpget.get
        self._place = httpget.place(config.url, _PATH)
        self._url = config.url
        self._tls = tls
        self._user = config.url.username or ""
        self._password = config.password or config.url.password

    def emit(self, scrape: Scrape) -> None:
        """Emit the queues; TargetError where there is no usable answer in time."""
        clients, others = self._list(monotonic() + scrape.remaining() * 0.9)
        queues = {
            name: Queue(_count(c.mqueue_len), _count(c.inflight_cnt)) for name, c in clients.items()
        }
        for name in metrics.emit(scrape, queues, others):
            dropped = _count(clients[name].mqueue_dropped)
            if dropped is not None:
                scrape.emit(DROPPED, dropped, name)

    def _list(self, deadline: float) -> Listing:
        clients: dict[str, _Client] = {}
        unusable, size = 0, 0
        for number in range(1, MAX_PAGES + 1):
            body = self._page(number, deadline - monotonic())
            size += len(body)
            if size > MAX_BYTES:
                raise _too_much(self._place, len(clients))
            page = parse(body, self._place)
            for client in map(_client, page.data):
                # A client that comes or goes meanwhile moves the others: one may be on two pages.
                if client and len(client.clientid) <= metrics.MAX_CLIENT_ID:
                    clients[client.clientid] = client
                else:
                    unusable += 1
            if page.meta.hasnext is not True:
                return Listing(clients, unusable)
        total = _count(page.meta.count)
        return Listing(clients, None if total is None else max(total - len(clients), 0))

    def _page(self, number: int, seconds: float) -> bytes:
        query = f"?page={number}&limit={PAGE_CLIENTS}&fields={_FIELDS}"
        secret = self._password.reveal() if self._password else ""
        headers = {
            "Accept": "application/json",
            "Authorization": "Basic " + b64encode(f"{self._user}:{secret}".encode()).decode(),
            "User-Agent": "bts-exporter",
        }
        status, body = self._get(self._url, self._tls, _PATH + query, headers, seconds)
        if status == _STATUS_UNAUTHORIZED and self._password:
            # It may have been changed since the start: the next scrape tries it.
            self._password = self._password.reread()
        if status != _STATUS_OK:
            reason, what = _STATUS.get(status, ("protocol", "look at the broker's log"))
            raise TargetError(reason, f"{self._place}: status {status}: {what}")
        return body


def _too_much(place: str, clients: int) -> TargetError:
    return TargetError("protocol", f"{place}: more than {MAX_BYTES} bytes for {clients} clients")


def parse(body: bytes, place: str) -> Page:
    """Return the clients in an answer; TargetError where it is none of EMQX's."""
    # A client may choose a name with invalid UTF-8, which is replaced the second time.
    for text in (body, body.decode("utf-8", "replace").encode()):
        try:
            page = _PAGE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            what = str(error)
        else:
            if not page.data or any(map(_client, page.data)):
                return page
            what = "none has a clientid"
    reason: Reason = "protocol"
    # Without the error before it, whose frames hold the answer.
    raise TargetError(reason, f"{place}: not EMQX's list of clients: {what}")


def _client(raw: Any) -> _Client | None:
    """Return one client of a page; None where it is odd."""
    if not isinstance(raw, dict) or not isinstance(raw.get("clientid"), str):
        return None
    return _Client(**{name: raw.get(name) for name in _Client.__struct_fields__})


def _count(raw: Any) -> int | None:
    return raw if type(raw) is int and raw >= 0 else None
