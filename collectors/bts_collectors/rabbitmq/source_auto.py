"""The source that is there: the management API or, where there is none, the node's own exporter."""

from __future__ import annotations

from bts_collectors.rabbitmq.management.source import ManagementSource
from bts_collectors.rabbitmq.prometheus.source import PrometheusSource
from bts_exporter import Scrape

#: Why there is no management API, in contrast to one that does not answer or lets nobody in.
ABSENT_REASONS = ("refused", "protocol")


class AutoSource:
    """Looks for the management API at each scrape until it was there once, and stays with it then."""

    def __init__(self, management: ManagementSource, native: PrometheusSource) -> None:
        self._management = management
        self._native = native
        self._settled = False

    def collect(self, scrape: Scrape) -> None:
        """Emit what the source tells; TargetError names what failed."""
        batch = self._management.begin(scrape)
        self._settled = self._settled or self._management.is_up
        if not self._settled and batch.failures[0].reason in ABSENT_REASONS:
            other, page = self._native.begin(scrape)
            if page is not None:
                self._native.collect_rest(scrape, other, page)
                return
        self._management.collect_rest(scrape, batch)

    def close(self) -> None:
        """Close the connections, and break off a collection under way."""
        self._management.close()
        self._native.close()
