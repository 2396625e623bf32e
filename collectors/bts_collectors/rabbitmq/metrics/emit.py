"""From the fields of an answer to samples, by tables: an unknown value gives no sample."""

from __future__ import annotations

from collections.abc import Mapping

from bts_collectors.rabbitmq.api.models import NUMBERS, ApiModel, known
from bts_exporter import Metric, Scrape

#: The name of a field and the metric that it is the source of.
Table = Mapping[str, Metric]


def emit_known(scrape: Scrape, metric: Metric, value: object, *labels: str) -> None:
    """Emit `value` if it is a number or a truth value."""
    number = known(value)
    if number is not None:
        scrape.emit(metric, number, *labels)


def emit_fields(scrape: Scrape, table: Table, shape: ApiModel, *labels: str) -> None:
    """Emit the fields of `shape` that `table` names."""
    for field, metric in table.items():
        value = getattr(shape, field)
        # As above, without two calls for each field of each of thousands of queues.
        if isinstance(value, NUMBERS):
            scrape.emit(metric, value, *labels)
