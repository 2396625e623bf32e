"""Emits fields of the API as metrics, by tables; an unknown value gives no sample."""

from __future__ import annotations

from collections.abc import Mapping

from bts_collectors.rabbitmq.api.models import NUMBERS, ApiModel, known
from bts_exporter import Metric, Scrape

#: Metrics by the name of the field that is their source.
Table = Mapping[str, Metric]


def emit_known(scrape: Scrape, metric: Metric, value: object, *labels: str) -> None:
    """Emit `value` if it is a number or a truth value."""
    number = known(value)
    if number is not None:
        scrape.emit(metric, number, *labels)


def emit_fields(scrape: Scrape, table: Table, model: ApiModel, *labels: str) -> None:
    """Emit the fields of `model` that `table` names."""
    for field, metric in table.items():
        value = getattr(model, field)
        # Inlined `emit_known`: this runs for each field of thousands of queues.
        if isinstance(value, NUMBERS):
            scrape.emit(metric, value, *labels)
