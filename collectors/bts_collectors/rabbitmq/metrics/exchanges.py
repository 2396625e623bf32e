"""Metrics of single exchanges, from /api/exchanges."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bts_collectors.rabbitmq.api.models import (
    ApiModel,
    Nothing,
    Number,
    ObjectTotals,
    Overview,
    columns,
    known,
)
from bts_collectors.rabbitmq.metrics.emit import emit_known
from bts_exporter import Scrape, counter

#: With more exchanges, the list is not requested: each virtual host has seven predeclared ones.
MAX_EXCHANGES = 2000

PUBLISHED = counter(
    "rabbitmq_exchange_messages_published_total",
    "Messages published into the exchange (/api/exchanges message_stats.publish_in).",
    ("vhost", "exchange"),
)
METRICS = (PUBLISHED,)


class ExchangeStats(ApiModel):
    """`message_stats` of an exchange, missing until something was published."""

    publish_in: Number = None
    publish_out: Number = None


class Exchange(ApiModel):
    """An item of /api/exchanges; the default exchange has an empty name."""

    name: str
    vhost: str
    message_stats: ExchangeStats | Nothing = None


EXCHANGES = msgspec.json.Decoder(list[Exchange])


def want_exchanges(overview: Overview) -> bool:
    """Return whether the list is short enough, and contains statistics."""
    if overview.disable_stats:
        return False
    totals = overview.object_totals
    count = known(totals.exchanges) if isinstance(totals, ObjectTotals) else None
    return count is not None and count <= MAX_EXCHANGES


def exchanges_path() -> str:
    """Return the path of the list of exchanges, limited to the fields that are used."""
    return f"/api/exchanges?{columns(Exchange)}"


def emit_exchanges(scrape: Scrape, exchanges: Iterable[Exchange]) -> None:
    """Emit the messages published into each exchange that was used."""
    for exchange in exchanges:
        if isinstance(exchange.message_stats, ExchangeStats):
            published = exchange.message_stats.publish_in
            emit_known(scrape, PUBLISHED, published, exchange.vhost, exchange.name)
