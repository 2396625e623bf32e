"""The exporter's own version, where node_exporter's dashboards look for theirs."""

from __future__ import annotations

from bts_collectors.host.subsystem import Subsystem
from bts_exporter import Scrape, __version__, gauge


class BuildInfo(Subsystem):
    """This exporter's version, under node_exporter's name for its own."""

    name = "build_info"

    info = gauge(
        "node_exporter_build_info",
        "A metric with a constant '1' value, labelled by the version of bts-exporter itself.",
        ("version", "branch"),
    )

    def collect(self, scrape: Scrape) -> None:
        """Emit the version."""
        scrape.emit(self.info, 1, __version__, "bts-exporter")


COLLECTOR = BuildInfo
