"""The source `auto`: the management API or, if it is missing, RabbitMQ's own exporter."""

from __future__ import annotations

from bts_collectors.rabbitmq.management.source import ManagementSource
from bts_collectors.rabbitmq.prometheus.source import PrometheusSource
from bts_exporter import Scrape

#: Reasons of failures that mean "there is no management API"; others mean that it is unavailable.
ABSENT_REASONS = ("refused", "protocol")


class AutoSource:
    """Tries the management API at each scrape; once it has answered, no other source is used."""

    def __init__(self, management: ManagementSource, prometheus: PrometheusSource) -> None:
        self._management = management
        self._prometheus = prometheus
        self._has_management = False

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of the available source; TargetError with all failures."""
        batch = self._management.request_overview(scrape)
        self._has_management = self._has_management or self._management.is_up
        if not self._has_management and batch.failures[0].reason in ABSENT_REASONS:
            page_batch, page = self._prometheus.request_page(scrape)
            if page is not None:
                self._prometheus.collect_rest(scrape, page_batch, page)
                return
        self._management.collect_rest(scrape, batch)

    def close(self) -> None:
        """Close the connections and interrupt a running collection; called from another thread."""
        self._management.close()
        self._prometheus.close()
