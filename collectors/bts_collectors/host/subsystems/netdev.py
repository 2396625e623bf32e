"""The subsystem `netdev`: traffic and errors of network devices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from bts_collectors.host.kernel.files import (
    DIGITS,
    MAX_COUNT,
    SHORT_RECORDS,
    lines,
    read_number,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NameFilter, Scrape, counter

#: The columns of /proc/net/dev, which have been the same since Linux 2.1.
_RECEIVE = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
_TRANSMIT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")
_HEADER = " ".join(("face", *_RECEIVE, *_TRANSMIT)).encode().split()


class NetdevSettings(CollectorConfig, frozen=True):
    """Settings of `netdev`."""

    #: Devices to collect.
    device_include: re.Pattern[str] | None = None
    #: Devices not to collect.
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


def _column(direction: str, column: str) -> Metric:
    what = f"Field {column} of {direction} in /proc/net/dev."
    return counter(f"node_network_{direction}_{column}_total", what, ("device",))


class Netdev(Subsystem):
    """Traffic of network devices from /proc/net/dev and /sys/class/net."""

    name = "netdev"
    Settings = NetdevSettings

    columns = (
        *(_column("receive", column) for column in _RECEIVE),
        *(_column("transmit", column) for column in _TRANSMIT),
    )
    nohandler = counter(
        "node_network_receive_nohandler_total",
        "Packets received without a protocol handler (/sys/class/net/DEVICE/statistics/rx_nohandler).",
        ("device",),
    )

    settings: NetdevSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/dev", SHORT_RECORDS)
        self._devices = f"{config.sysfs}/class/net"
        settings = self.settings
        self._name_filter = NameFilter(settings.device_include, settings.device_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each selected device."""
        with self._file as content:
            for device, values in parse(content, self._name_filter):
                for metric, value in zip(self.columns, values, strict=True):
                    if value < MAX_COUNT:
                        scrape.emit(metric, value, device)
                unhandled = read_number(f"{self._devices}/{device}/statistics/rx_nohandler")
                if unhandled is not None:
                    scrape.emit(self.nohandler, unhandled, device)


def parse(
    content: bytes, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, list[int]]]:
    """Yield `(device, values)` of each wanted device, with a value for each column.

    Raises ValueError at the beginning for unknown columns, and at the end for the first unreadable line.
    """
    _, header, *rows = lines(content) if content.count(b"\n") > 1 else (b"", content)
    if header.replace(b"|", b" ").split() != _HEADER:
        raise unexpected_content(header)
    bad: bytes | None = None
    for line in rows:
        # A name may contain colons; the number after the last colon may have no space before it.
        name, _, rest = line.rpartition(b":")
        device = text(name.strip())
        if not wanted(device):
            continue
        words = rest.split()
        valid = len(words) == len(_HEADER) - 1 and b"".join(words).isdigit()
        if valid and max(map(len, words)) <= DIGITS:
            yield device, list(map(int, words))
        else:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Netdev
