"""The subsystem `arp`: entries of the ARP table by device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bts_collectors.host.kernel.files import SHORT_RECORDS, lines, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, NameFilter, Scrape, gauge

#: Number of columns of /proc/net/arp, the last of which is the device, and the position of the flags.
_COLUMNS, _FLAGS = 6, 2

#: Flag of proxy ARP entries: not neighbours, but addresses that this host answers for (on any device: `*`).
_PUBLISHED = 0x08


class ArpSettings(CollectorConfig, frozen=True):
    """Settings of `arp`."""

    #: Devices to collect.
    device_include: re.Pattern[str] | None = None
    #: Devices not to collect.
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


class Arp(Subsystem):
    """Entries of the ARP table from /proc/net/arp."""

    name = "arp"
    Settings = ArpSettings

    entries = gauge("node_arp_entries", "ARP entries by device (/proc/net/arp).", ("device",))

    settings: ArpSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/arp", SHORT_RECORDS)
        settings = self.settings
        self._name_filter = NameFilter(settings.device_include, settings.device_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of entries of each device that has any."""
        counts: Counter[str] = Counter()
        with self._file as content:
            try:
                counts.update(parse(content))
            finally:
                for device, entries in counts.items():
                    if self._name_filter(device):
                        scrape.emit(self.entries, entries, device)


def parse(content: bytes) -> Iterator[str]:
    """Yield the device of each neighbour; ValueError at the end, for the first unreadable line."""
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
        raise unexpected_content(bad)


COLLECTOR = Arp
