"""What all subsystems of a host share: where its files are, and how their outcomes are named."""

from __future__ import annotations

from typing import ClassVar

from bts_exporter import Collector, CollectorConfig, gauge


class Paths(CollectorConfig, frozen=True):
    """Where the host's files are seen, such as below /host in a container."""

    procfs: str = "/proc"
    sysfs: str = "/sys"
    rootfs: str = "/"
    udev_data: str = "/run/udev/data"


class Subsystem(Collector):
    """Base of the collectors that `host` consists of; their names are the anchor's.

    A subsystem with settings of its own has them twice: as the type `Settings`, which is what stands
    under its name in the block of `host`, and as the field `settings` of its `Config`.
    """

    Config = Paths
    Settings: ClassVar[type[CollectorConfig] | None] = None
    local = True
    #: Whether it is collected without being named in `enable`.
    by_default: ClassVar[bool] = True
    outcome_metrics = (
        gauge(
            "node_scrape_collector_success",
            "Whether the collection succeeded (1) or failed (0); nothing to read is a success.",
            ("collector",),
        ),
        gauge(
            "node_scrape_collector_duration_seconds",
            "How long the collection took.",
            ("collector",),
        ),
    )

    config: Paths
