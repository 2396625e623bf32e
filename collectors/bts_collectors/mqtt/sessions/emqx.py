"""Client queues from EMQX's REST API: `GET /api/v5/clients`, page by page."""

from __future__ import annotations

from time import monotonic
from typing import Annotated, Any, NamedTuple

import msgspec

from bts_collectors.mqtt.sessions import metrics
from bts_collectors.mqtt.sessions.metrics import Queue
from bts_exporter import (
    ByteBudget,
    CollectorConfig,
    HttpClient,
    HttpResponse,
    Metric,
    Product,
    Reason,
    Scrape,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    counter,
)

#: Clients per page, and the most pages read: with more clients, the broker's order decides which
#: ones are included.
PAGE_CLIENTS = 1000
MAX_PAGES = 20
#: Bytes of one page, and of all pages of one collection.
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024
_PATH = "/api/v5/clients"
#: Older versions ignore `fields` and send all of them.
_FIELDS = "clientid,mqueue_len,mqueue_max,mqueue_dropped,inflight_cnt"
_STATUS_OK = 200

DROPPED = counter(
    "emqx_client_queue_dropped_messages_total",
    "Messages dropped because the client's queue was full (mqueue_dropped).",
    "client_id",
)
METRICS: tuple[Metric, ...] = (DROPPED, *metrics.METRICS)

_PRODUCT = Product(
    "EMQX REST API",
    if_refused="is EMQX running, with its dashboard listener (usually port 18083)?",
    if_closed="is this the dashboard's port (usually 18083), and does it use TLS (https://)?",
)
#: Reason and cure by HTTP status.
_STATUS: dict[int, tuple[Reason, str]] = {
    401: (
        "auth",
        "invalid API key: emqx.url is http://KEY@host:18083, emqx.password is its secret",
    ),
    403: ("noperm", "the API key may not list clients: give it the role viewer"),
    404: ("protocol", "not the REST API of EMQX 5: set emqx.url to the dashboard's port (18083)"),
    503: ("loading", "the broker is not ready"),
}


class EmqxConfig(CollectorConfig, frozen=True):
    """Settings of EMQX's REST API: the user is an API key, the password its secret."""

    #: Address of the REST API, with an API key as user.
    url: Annotated[Url, msgspec.Meta(extra_json_schema=Url.schema_of_schemes("http", "https"))] = (
        Url("http", "127.0.0.1", 18083)
    )
    #: Secret of the API key.
    password: Secret | None = None

    def __post_init__(self) -> None:
        """Check the scheme; ValueError explains the problem."""
        self.url.require_scheme("http", "https")


class _Client(msgspec.Struct):
    """A client. Fields are checked one by one, so that an invalid one does not affect the others."""

    clientid: Any = None
    mqueue_len: Any = None
    #: 0 or "infinity" for no limit.
    mqueue_max: Any = None
    mqueue_dropped: Any = None
    inflight_cnt: Any = None


class _Meta(msgspec.Struct):
    hasnext: Any = False
    count: Any = None


class Page(msgspec.Struct):
    """A page: clients, and whether there are more."""

    data: list[Any]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Listing(NamedTuple):
    """The clients by id, and the number of further clients; None if that is unknown."""

    clients: dict[str, _Client]
    others: int | None


_PAGE = msgspec.json.Decoder(Page)


class Emqx:
    """The queues of all clients, requested at each collection."""

    def __init__(self, config: EmqxConfig, tls: TLSConfig) -> None:
        """Keep the settings; no I/O here."""
        self._client = HttpClient(
            _PRODUCT,
            config.url,
            password=config.password,
            tls=tls,
            headers={"Accept": "application/json"},
        )

    def emit(self, scrape: Scrape) -> None:
        """Emit the queues; TargetError if the API does not return all pages in time."""
        clients, others = self._list(monotonic() + scrape.remaining())
        queues = {
            name: Queue(
                _count(c.mqueue_len), _count(c.inflight_cnt), limit=_count(c.mqueue_max) or None
            )
            for name, c in clients.items()
        }
        for name in metrics.emit(scrape, queues, others):
            dropped = _count(clients[name].mqueue_dropped)
            if dropped is not None:
                scrape.emit(DROPPED, dropped, name)

    def close(self) -> None:
        """Interrupt a running request; called from another thread."""
        self._client.close()

    def _list(self, deadline: float) -> Listing:
        clients: dict[str, _Client] = {}
        unusable, bytes_left = 0, MAX_BYTES
        for number in range(1, MAX_PAGES + 1):
            response = self._page(number, deadline - monotonic(), bytes_left)
            bytes_left -= len(response.body)
            page = parse(response.body, response.address)
            for client in map(_client, page.data):
                # Clients that connect meanwhile shift the pages: one may be on two of them.
                if client and len(client.clientid) <= metrics.MAX_CLIENT_ID:
                    clients[client.clientid] = client
                else:
                    unusable += 1
            if page.meta.hasnext is not True:
                return Listing(clients, unusable)
        total = _count(page.meta.count)
        return Listing(clients, None if total is None else max(total - len(clients), 0))

    def _page(self, number: int, timeout_seconds: float, bytes_left: int) -> HttpResponse:
        query = f"?page={number}&limit={PAGE_CLIENTS}&fields={_FIELDS}"
        advice = f"a page may have {MAX_PAGE_BYTES} bytes, all pages {MAX_BYTES}"
        budget = ByteBudget(min(MAX_PAGE_BYTES, bytes_left), advice)
        response = self._client.get(_PATH + query, timeout_seconds, budget)
        if response.status != _STATUS_OK:
            reason, cure = _STATUS.get(response.status, ("protocol", "check the broker's log"))
            message = f"{response.address}: status {response.status}: {cure}"
            raise TargetError(reason, message)
        return response


def parse(body: bytes | bytearray, address: str) -> Page:
    """Return the page in a response body; TargetError if it is not EMQX's list of clients."""
    # A client id may contain invalid UTF-8, which is replaced for the second attempt.
    for text in (body, body.decode("utf-8", "replace").encode()):
        try:
            page = _PAGE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problem = str(error)
        else:
            if not page.data or any(map(_client, page.data)):
                return page
            problem = "no entry has a clientid"
    reason: Reason = "protocol"
    # Outside of `except`: the frames of the first error would keep the body in memory.
    raise TargetError(reason, f"{address}: unexpected reply, not EMQX's list of clients: {problem}")


def _client(raw: Any) -> _Client | None:
    """Return a client of a page; None if the entry is invalid."""
    if not isinstance(raw, dict) or not isinstance(raw.get("clientid"), str):
        return None
    return _Client(**{name: raw.get(name) for name in _Client.__struct_fields__})


def _count(raw: Any) -> int | None:
    return raw if type(raw) is int and raw >= 0 else None
