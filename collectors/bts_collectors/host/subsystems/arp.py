"""How many neighbours each device knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bts_collectors.host.kernel.files import TABLE, lines, text, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, NameFilter, Scrape, gauge

#: Columns of /proc/net/arp, of which the last is the device.
_COLUMNS, _FLAGS = 6, 2

#: The flag of proxy ARP: not a neighbour but an address that we answer for, on any device if it is `*`.
_PUBLISHED = 0x08


class ArpSettings(CollectorConfig, frozen=True):
    """Settings of `arp`."""

    device_include: re.Pattern[str] | None = None
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


class Arp(Subsystem):
    """Entries of the ARP table from /proc/net/arp."""

    name = "arp"
    Settings = ArpSettings

    entries = gauge("node_arp_entries", "ARP entries by device (/proc/net/arp).", ("device",))

    settings: ArpSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/arp", TABLE)
        settings = self.settings
        self._wants = NameFilter(settings.device_include, settings.device_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of entries of each device that has any."""
        found: Counter[str] = Counter()
        with self._file as content:
            try:
                found.update(parse(content))
            finally:
                for device, entries in found.items():
                    if self._wants(device):
                        scrape.emit(self.entries, entries, device)


def parse(content: bytes) -> Iterator[str]:
    """Yield the device of each neighbour; ValueError at the end, for the first line of another format."""
    rows = lines(content)
    bad = None if rows else content
    for line in rows[1:]:
        columns = line.split()
        try:
            published = int(columns[_FLAGS], 16) & _PUBLISHED if len(columns) == _COLUMNS else None
        except ValueError:
            published = None
        if published is None:
            bad = bad or line
        elif not published and columns[-1] != b"*":
            yield text(columns[-1])
    if bad is not None:
        raise unreadable(bad)


COLLECTOR = Arp
