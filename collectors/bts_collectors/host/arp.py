"""How many neighbours each device knows."""

from __future__ import annotations

import re
from collections import Counter

from bts_collectors.host._files import TABLE, lines, text, unreadable
from bts_collectors.host._filters import Filter, check_exclusive
from bts_collectors.host._kernelfile import KernelFile
from bts_collectors.host._subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Scrape, gauge

#: Columns of /proc/net/arp, of which the last is the device.
_COLUMNS = 6


class ArpSettings(CollectorConfig, frozen=True):
    """Settings of `arp`."""

    device_include: re.Pattern[str] | None = None
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where both expressions are set."""
        check_exclusive("device", self.device_include, self.device_exclude)


class ArpConfig(Paths, frozen=True):
    """Settings of `arp`, and where the files are."""

    settings: ArpSettings = ArpSettings()


class Arp(Subsystem):
    """Entries of the ARP table from /proc/net/arp."""

    name = "arp"
    Config = ArpConfig
    Settings = ArpSettings

    entries = gauge("node_arp_entries", "ARP entries by device (/proc/net/arp).", ("device",))

    config: ArpConfig

    def __init__(self, config: ArpConfig) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/arp", TABLE)
        settings = config.settings
        self._wants = Filter(settings.device_include, settings.device_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of entries of each device that has any."""
        with self._file as content:
            for device, entries in parse(content).items():
                if self._wants(device):
                    scrape.emit(self.entries, entries, device)


def parse(content: bytes) -> Counter[str]:
    """Return the number of entries by device; ValueError for a line with other columns."""
    found: Counter[str] = Counter()
    rows = lines(content)
    if not rows:
        raise unreadable(content)
    for line in rows[1:]:
        columns = line.split()
        if len(columns) != _COLUMNS:
            raise unreadable(line)
        found[text(columns[-1])] += 1
    return found


COLLECTOR = Arp
