from __future__ import annotations

from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import OVERVIEW
from bts_collectors.rabbitmq.metrics.exchanges import (
    EXCHANGES,
    PUBLISHED,
    emit_exchanges,
    exchanges_path,
    want_exchanges,
)
from bts_exporter import Scrape


def test_an_exchange_that_nothing_went_through_is_absent() -> None:
    """Exchanges without messages have no metric."""
    body = (
        b'[{"name":"","vhost":"/","message_stats":{"publish_in":14,"publish_out":13}},'
        b'{"name":"amq.topic","vhost":"/"},{"name":"new","vhost":"prod","message_stats":[]}]'
    )
    scrape = Scrape(monotonic() + 10)

    emit_exchanges(scrape, EXCHANGES.decode(body))

    assert scrape.samples == {PUBLISHED: {("/", ""): 14}}


@pytest.mark.parametrize(
    ("overview", "wanted"),
    [
        (b'{"object_totals":{"exchanges":14}}', True),
        (b'{"object_totals":{"exchanges":2000}}', True),
        (b'{"object_totals":{"exchanges":2001}}', False),
        (b'{"object_totals":{"exchanges":14},"disable_stats":true}', False),
        (b"{}", False),
    ],
)
def test_a_list_that_is_long_or_empty_is_not_requested(overview: bytes, wanted: bool) -> None:
    """The list of exchanges is not requested if it is long or has no statistics."""
    assert want_exchanges(OVERVIEW.decode(overview)) is wanted


def test_no_more_than_is_used_is_requested() -> None:
    """The list of exchanges is limited to the used columns."""
    assert exchanges_path() == (
        "/api/exchanges?columns=name,vhost,message_stats.publish_in,message_stats.publish_out"
    )
