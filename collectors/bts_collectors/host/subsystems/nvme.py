"""The subsystem `nvme`: NVMe drives, and size and usage of their namespaces."""

from __future__ import annotations

import re

from bts_collectors.host.kernel.devices import devices, entries
from bts_collectors.host.kernel.files import read_number, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge

_NAMESPACE = ("device", "nsid")

#: Bytes per sector in /sys, whatever the drive's own block size is.
_SECTOR = 512

#: `nvme0n1`, or `nvme0c1n1` if several controllers share a namespace.
_NAME = re.compile(r"nvme\d+(?:c\d+)?n(\d+)")


class Nvme(Subsystem):
    """NVMe drives from /sys/class/nvme."""

    name = "nvme"

    info = gauge(
        "node_nvme_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/nvme/DEVICE.",
        ("device", "firmware_revision", "model", "serial", "state", "cntlid"),
    )
    namespace_info = gauge(
        "node_nvme_namespace_info",
        "A metric with a constant '1' value, labelled by the ANA state"
        " (/sys/class/nvme/DEVICE/NAMESPACE/ana_state; unknown with a single path).",
        ("device", "nsid", "ana_state"),
    )
    capacity = gauge(
        "node_nvme_namespace_capacity_bytes",
        "Capacity of the namespace (/sys/class/nvme/DEVICE/NAMESPACE/size, in sectors).",
        _NAMESPACE,
    )
    size = gauge(
        "node_nvme_namespace_size_bytes",
        "Size of the namespace (/sys/class/nvme/DEVICE/NAMESPACE/size, in sectors).",
        _NAMESPACE,
    )
    used = gauge(
        "node_nvme_namespace_used_bytes",
        "Bytes in use in the namespace (/sys/class/nvme/DEVICE/NAMESPACE/nuse, in blocks).",
        _NAMESPACE,
    )
    block = gauge(
        "node_nvme_namespace_logical_block_size_bytes",
        "Logical block size of the namespace (/sys/class/nvme/DEVICE/NAMESPACE/queue/logical_block_size).",
        _NAMESPACE,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/nvme"

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each drive and its namespaces."""
        for device in devices(self._folder, "nvme"):
            folder = f"{self._folder}/{device}"
            files = ("firmware_rev", "model", "serial", "state", "cntlid")
            values = [text(read_value(f"{folder}/{file}") or b"") for file in files]
            scrape.emit(self.info, 1, device, *values)
            for name in entries(folder):
                if found := _NAME.fullmatch(name):
                    self._emit_namespace(scrape, f"{folder}/{name}", device, found[1])

    def _emit_namespace(self, scrape: Scrape, folder: str, device: str, nsid: str) -> None:
        state = read_value(f"{folder}/ana_state") or b"unknown"
        scrape.emit(self.namespace_info, 1, device, nsid, text(state))
        sectors = read_number(f"{folder}/size")
        if sectors is not None:
            scrape.emit(self.capacity, sectors * _SECTOR, device, nsid)
            scrape.emit(self.size, sectors * _SECTOR, device, nsid)
        block = read_number(f"{folder}/queue/logical_block_size")
        if block is None:
            return
        scrape.emit(self.block, block, device, nsid)
        used = read_number(f"{folder}/nuse")
        if used is not None:
            scrape.emit(self.used, used * block, device, nsid)


COLLECTOR = Nvme
