"""The source that is there: the management API or, where there is none, the node's own exporter."""

from __future__ import annotations

from bts_collectors.rabbitmq.management.source import Management
from bts_collectors.rabbitmq.prometheus.source import Native
from bts_exporter import Scrape

#: Why there is no management API, in contrast to one that does not answer or lets nobody in.
ABSENT = ("refused", "protocol")


class Auto:
    """Looks for the management API at each scrape until it was there once, and stays with it then."""

    def __init__(self, management: Management, native: Native) -> None:
        self._management = management
        self._native = native
        self._settled = False

    def collect(self, scrape: Scrape) -> None:
        """Emit what the source tells; TargetError names what failed."""
        asked = self._management.begin(scrape)
        self._settled = self._settled or self._management.is_up
        if not self._settled and asked.failures[0].reason in ABSENT:
            other, page = self._native.begin(scrape)
            if page is not None:
                self._native.go_on(scrape, other, page)
                return
        self._management.go_on(scrape, asked)

    def close(self) -> None:
        """Close the connections, and break off a collection under way."""
        self._management.close()
        self._native.close()
