"""Whether a watchdog would restart the machine, and when."""

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
        _file("bootstatus", "Why the machine was started, as bits"),
        _file("fw_version", "Version of the firmware"),
        _file("nowayout", "It cannot be stopped once it runs"),
        _file("timeleft", "Time until it restarts the machine", "_seconds"),
        _file("timeout", "Time without a sign of life until it restarts", "_seconds"),
        _file("pretimeout", "Time before that at which it warns", "_seconds"),
        _file("access_cs0", "The machine was started from the first boot source"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/watchdog"

    def collect(self, scrape: Scrape) -> None:
        """Emit what each watchdog tells."""
        for name in devices(self._folder, "watchdog"):
            folder = f"{self._folder}/{name}"
            values = [text(read_value(f"{folder}/{file}") or b"") for file in _TEXTS]
            scrape.emit(self.info, 1, name, *values)
            for file, metric in self.numbers:
                value = read_number(f"{folder}/{file}")
                if value is not None:
                    scrape.emit(metric, value, name)


COLLECTOR = Watchdog
