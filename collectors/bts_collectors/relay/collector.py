"""Serves the metrics of an application together with ours, so that one target covers all."""

from __future__ import annotations

from dataclasses import replace

from bts_collectors.relay.config import RelayConfig
from bts_collectors.relay.families import Relayed
from bts_collectors.relay.page import read_page
from bts_exporter import (
    ByteBudget,
    Collector,
    HttpClient,
    Product,
    Scrape,
    TargetError,
    gauge,
    prometheus_text,
)

#: Tells a bts-exporter not to answer: two that relay each other would wait for each other.
LOOP_HEADER = "X-Bts-Exporter-Relay"
#: The text format is cheaper for both sides; libraries that have only OpenMetrics send that.
_ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"

_PRODUCT = Product(
    "application",
    if_refused="is it running, and does it serve its metrics there?",
    if_closed="does this port speak HTTP, or HTTPS (https://)?",
)


class Relay(Collector):
    """The metrics that an application serves itself."""

    Config = RelayConfig
    config: RelayConfig
    open_ended = True

    up = gauge(
        "relay_up",
        "Whether the application answered with a page of metrics, in text format or OpenMetrics.",
    )

    def __init__(self, config: RelayConfig) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._relayed = Relayed(config.prefix, [self.up])
        headers = {name: value.reveal() for name, value in config.headers.items()}
        self._client = HttpClient(
            _PRODUCT,
            replace(config.url, path="", query=""),
            password=config.password,
            token=config.token,
            tls=config.tls,
            headers={"Accept": _ACCEPT, **headers, LOOP_HEADER: "1"},
        )

    def stop(self) -> None:
        """Close the connection and interrupt a running request."""
        self._client.close()

    def collect(self, scrape: Scrape) -> None:
        """Emit the application's metrics; what cannot be served is reported with its line."""
        scrape.emit(self.up, 0)
        budget = ByteBudget(self.config.max_body_bytes, "raise max_body_bytes")
        response = self._client.get(self.config.path, scrape.remaining(), budget)
        page = read_page(response)
        scrape.replace(self.up, 1)
        problems = self._relayed.emit(scrape, page.families)
        if page.error_count or problems:
            message = _message(response.address, page, problems)
            raise TargetError(reason="protocol", message=message)


def _message(address: str, page: prometheus_text.Page, problems: list[str]) -> str:
    shown = [*page.errors, *problems][: prometheus_text.MAX_ERRORS]
    more = page.error_count + len(problems) - len(shown)
    rest = f"; and {more} more" if more > 0 else ""
    return f"application at {address}: left out: {'; '.join(shown)}{rest}"


COLLECTOR = Relay
