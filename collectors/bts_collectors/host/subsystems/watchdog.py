"""The subsystem `watchdog`: state and timeouts of hardware watchdogs."""

from __future__ import annotations

from bts_collectors.host.kernel.devices import devices
from bts_collectors.host.kernel.files import read_number, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Metric, Scrape, gauge

_TEXTS = ("options", "identity", "state", "status", "pretimeout_governor")


def _file(file: str, what: str, unit: str = "") -> tuple[str, Metric]:
    source = f"{what} (/sys/class/watchdog/NAME/{file})."
    return file, gauge(f"node_watchdog_{file}{unit}", source, ("name",))


class Watchdog(Subsystem):
    """Watchdogs from /sys/class/watchdog."""

    name = "watchdog"

    info = gauge(
        "node_watchdog_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/watchdog/NAME.",
        ("name", *_TEXTS),
    )
    numbers = (
        _file("bootstatus", "Reason for the last boot, as bits"),
        _file("fw_version", "Firmware version"),
        _file("nowayout", "Whether the watchdog cannot be stopped once it runs"),
        _file("timeleft", "Time until the watchdog resets the host", "_seconds"),
        _file("timeout", "Timeout without a keepalive", "_seconds"),
        _file(
            "pretimeout", "Time before the timeout at which the pretimeout event occurs", "_seconds"
        ),
        _file("access_cs0", "Whether the host booted from the first boot source"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/watchdog"

    def collect(self, scrape: Scrape) -> None:
        """Emit information and numbers of each watchdog."""
        for name in devices(self._folder, "watchdog"):
            folder = f"{self._folder}/{name}"
            values = [text(read_value(f"{folder}/{file}") or b"") for file in _TEXTS]
            scrape.emit(self.info, 1, name, *values)
            for file, metric in self.numbers:
                value = read_number(f"{folder}/{file}")
                if value is not None:
                    scrape.emit(metric, value, name)


COLLECTOR = Watchdog
