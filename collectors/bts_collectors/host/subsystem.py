"""Base class of the subsystems of a host: paths, settings, names of their outcomes."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import defstruct

from bts_exporter import Collector, CollectorConfig, gauge


class Paths(CollectorConfig, frozen=True):
    """Where the host's files are; in a container they are mounted elsewhere, such as below /host."""

    #: Where /proc is mounted.
    procfs: str = "/proc"
    #: Where /sys is mounted.
    sysfs: str = "/sys"
    #: Where the root file system is mounted.
    rootfs: str = "/"
    #: The udev database.
    udev_data: str = "/run/udev/data"


class Subsystem(Collector):
    """Base of the collectors that `host` consists of; they are named as in node_exporter.

    A subsystem with settings names their type in `Settings`. They are set under the subsystem's name
    in the settings of `host`.
    """

    #: The paths and, for a subsystem with settings, a field `settings`.
    Config: ClassVar[type[Any]] = Paths
    Settings: ClassVar[type[CollectorConfig] | None] = None
    local = True
    #: Whether it is collected unless `disable` names it.
    by_default: ClassVar[bool] = True
    outcome_metrics = (
        gauge(
            "node_scrape_collector_success",
            "Whether the collection succeeded (1) or failed (0); nothing to read is a success.",
            ("collector",),
        ),
        gauge(
            "node_scrape_collector_duration_seconds",
            "Duration of the collection in seconds.",
            ("collector",),
        ),
    )

    config: Paths
    #: The `Settings`; None for a subsystem without any. A subclass declares its type.
    settings: Any

    def __init__(self, config: Paths) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self.settings = getattr(config, "settings", None)

    def __init_subclass__(cls) -> None:
        """Give a subsystem that defines `Settings` a `Config` with them."""
        super().__init_subclass__()
        settings = vars(cls).get("Settings")
        if settings is not None:
            cls.Config = defstruct(
                f"{cls.__name__}Config",
                [("settings", settings, settings())],
                bases=(Paths,),
                namespace={"__doc__": f"Paths, and the settings of `{cls.name}`."},
                module=cls.__module__,
                frozen=True,
            )
