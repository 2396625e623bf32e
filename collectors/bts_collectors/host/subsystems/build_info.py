"""The subsystem `build_info`: the exporter's version, under the metric name that dashboards query."""

from __future__ import annotations

from bts_collectors.host.subsystem import Subsystem
from bts_exporter import Scrape, __version__, gauge


class BuildInfo(Subsystem):
    """Version of bts-exporter, under the metric name of node_exporter."""

    name = "build_info"

    info = gauge(
        "node_exporter_build_info",
        "A metric with a constant '1' value, labelled by the version of bts-exporter.",
        ("version", "branch"),
    )

    def collect(self, scrape: Scrape) -> None:
        """Emit the version."""
        scrape.emit(self.info, 1, __version__, "bts-exporter")


COLLECTOR = BuildInfo
