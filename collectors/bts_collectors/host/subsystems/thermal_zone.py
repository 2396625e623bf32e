"""The subsystem `thermal_zone`: temperatures of thermal zones, and states of cooling devices."""

from __future__ import annotations

from bts_collectors.host.kernel.devices import devices, read_integer
from bts_collectors.host.kernel.files import read_number, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_ZONE = "thermal_zone"
_COOLER = "cooling_device"
_COOLER_LABELS = ("name", "type")
_MILLIDEGREES = 1000

#: 0 K in millidegrees Celsius; drivers report -274000 for "unknown".
_ABSOLUTE_ZERO = -273150


class ThermalZone(Subsystem):
    """Thermal zones and cooling devices from /sys/class/thermal."""

    name = "thermal_zone"

    temperature = gauge(
        "node_thermal_zone_temp",
        "Temperature in degrees Celsius (/sys/class/thermal/thermal_zone<n>/temp).",
        ("zone", "type"),
    )
    states = (
        (
            "cur_state",
            gauge(
                "node_cooling_device_cur_state",
                "Current throttle state (/sys/class/thermal/cooling_device<n>/cur_state).",
                _COOLER_LABELS,
            ),
        ),
        (
            "max_state",
            gauge(
                "node_cooling_device_max_state",
                "Maximum throttle state (/sys/class/thermal/cooling_device<n>/max_state).",
                _COOLER_LABELS,
            ),
        ),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/thermal"

    def collect(self, scrape: Scrape) -> None:
        """Emit the temperatures that can be read (EINVAL: none at the moment), and cooling states."""
        zones, coolers = self._devices(_ZONE), self._devices(_COOLER)
        if not zones and not coolers:
            msg = f"{self._folder} is absent, or empty"
            raise NotPresent(msg)
        for folder, number, kind in zones:
            temperature = read_integer(f"{folder}/temp")
            if temperature is not None and temperature > _ABSOLUTE_ZERO:
                scrape.emit(self.temperature, temperature / _MILLIDEGREES, number, kind)
        for folder, number, kind in coolers:
            for file, metric in self.states:
                state = read_number(f"{folder}/{file}")
                if state is not None:
                    scrape.emit(metric, state, number, kind)

    def _devices(self, prefix: str) -> list[tuple[str, str, str]]:
        """Return `(folder, number, type)` of each device of a kind."""
        try:
            names = devices(self._folder, prefix)
        except NotPresent:
            return []
        return [
            (
                f"{self._folder}/{name}",
                name.removeprefix(prefix),
                text(read_value(f"{self._folder}/{name}/type") or b""),
            )
            for name in names
        ]


COLLECTOR = ThermalZone
