"""The subsystem `dmi`: vendor, product and version strings of the firmware."""

from __future__ import annotations

from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

#: Label and file; the label of a file that cannot be read (some only by root) is empty.
_FIELDS = (
    ("bios_date", "bios_date"),
    ("bios_release", "bios_release"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("board_asset_tag", "board_asset_tag"),
    ("board_name", "board_name"),
    ("board_serial", "board_serial"),
    ("board_vendor", "board_vendor"),
    ("board_version", "board_version"),
    ("chassis_asset_tag", "chassis_asset_tag"),
    ("chassis_serial", "chassis_serial"),
    ("chassis_vendor", "chassis_vendor"),
    ("chassis_version", "chassis_version"),
    ("product_family", "product_family"),
    ("product_name", "product_name"),
    ("product_serial", "product_serial"),
    ("product_sku", "product_sku"),
    ("product_uuid", "product_uuid"),
    ("product_version", "product_version"),
    ("system_vendor", "sys_vendor"),
)


class Dmi(Subsystem):
    """Firmware and hardware information from /sys/class/dmi/id."""

    name = "dmi"

    info = gauge(
        "node_dmi_info",
        "A metric with a constant '1' value, labelled by the files of /sys/class/dmi/id.",
        tuple(label for label, _ in _FIELDS),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/dmi/id"
        self._labels: tuple[str, ...] = ()

    def collect(self, scrape: Scrape) -> None:
        """Emit the information, which is read once: it does not change while the host runs."""
        if not self._labels:
            values = [read_value(f"{self._folder}/{file}") for _, file in _FIELDS]
            if not any(values):
                msg = f"{self._folder} is absent, or empty"
                raise NotPresent(msg)
            self._labels = tuple(text(value or b"") for value in values)
        scrape.emit(self.info, 1, *self._labels)


COLLECTOR = Dmi
