"""The subsystem `netclass`: properties and link state of network devices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import known, text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import with_room
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NameFilter, NotPresent, Scrape, counter, gauge

_DEVICE = ("device",)
_IFF_UP = 1
#: The speed of a link is unknown: -1 as an unsigned 16-bit number.
_UNKNOWN_SPEED = 65535
_BYTES_PER_MEGABIT = 1_000_000 // 8
#: Devices whose files stay open between scrapes; each has 22.
_KEPT_OPEN = 6
#: Files with text, which become labels of the info metric.
_STATES = ("address", "broadcast", "duplex", "operstate", "ifalias")
_NUMBER = re.compile(rb"0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")


class NetclassSettings(CollectorConfig, frozen=True):
    """Settings of `netclass`."""

    #: Devices to collect.
    device_include: re.Pattern[str] | None = None
    #: Devices not to collect.
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


class _Field(NamedTuple):
    """A file of a device, the metric for its number, and the factor to the metric's unit."""

    file: str
    metric: Metric
    factor: int = 1


def _field(file: str, name: str, what: str, factor: int = 1) -> _Field:
    declare = counter if name.endswith("_total") else gauge
    metric = declare(f"node_network_{name}", f"{what} (/sys/class/net/DEVICE/{file}).", _DEVICE)
    return _Field(file, metric, factor)


class Netclass(Subsystem):
    """Network devices from /sys/class/net."""

    name = "netclass"
    Settings = NetclassSettings

    up = gauge(
        "node_network_up", "Whether operstate is up (/sys/class/net/DEVICE/operstate).", _DEVICE
    )
    info = gauge(
        "node_network_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/net/DEVICE;"
        " adminstate is from the flag IFF_UP.",
        ("device", "address", "broadcast", "duplex", "operstate", "adminstate", "ifalias"),
    )
    flags = gauge(
        "node_network_flags", "Flags of the device (/sys/class/net/DEVICE/flags).", _DEVICE
    )
    fields = (
        _field("addr_assign_type", "address_assign_type", "Address assignment type"),
        _field("carrier", "carrier", "Whether the link has a carrier"),
        _field("carrier_changes", "carrier_changes_total", "Carrier changes"),
        _field("carrier_up_count", "carrier_up_changes_total", "Times that the carrier came up"),
        _field(
            "carrier_down_count", "carrier_down_changes_total", "Times that the carrier went down"
        ),
        _field(
            "dev_id", "device_id", "Number of the device among those that share a hardware address"
        ),
        _field(
            "dormant",
            "dormant",
            "Whether the device waits for an event, such as authentication, before it is usable",
        ),
        _field("ifindex", "iface_id", "Index of the device"),
        _field("iflink", "iface_link", "Index of the device that it is linked to"),
        _field("link_mode", "iface_link_mode", "Link mode"),
        _field("mtu", "mtu_bytes", "MTU"),
        _field("name_assign_type", "name_assign_type", "Name assignment type"),
        _field("netdev_group", "net_dev_group", "Device group"),
        _field(
            "speed",
            "speed_bytes",
            "Speed in bytes per second, absent if unknown",
            _BYTES_PER_MEGABIT,
        ),
        _field("tx_queue_len", "transmit_queue_length", "Length of the transmit queue"),
        _field("type", "protocol_type", "ARP protocol type of the device"),
    )

    settings: NetclassSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/net"
        settings = self.settings
        self._name_filter = NameFilter(settings.device_include, settings.device_exclude)
        self._devices: dict[tuple[str, int], _Device] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each selected device."""
        previous, self._devices = self._devices, {}
        # A new device with the name of an old one has another inode number.
        for name, inode in self._entries():
            device = previous.get((name, inode)) or _Device(f"{self._folder}/{name}")
            if len(self._devices) < _KEPT_OPEN:
                self._devices[name, inode] = device
            self._emit(scrape, name, device)

    def _entries(self) -> list[tuple[str, int]]:
        try:
            with with_room(os.scandir, self._folder) as entries:
                found = [(entry.name, entry.inode()) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{self._folder} is absent"
            raise NotPresent(msg) from None
        return sorted(entry for entry in found if self._name_filter(entry[0]))

    def _emit(self, scrape: Scrape, name: str, device: _Device) -> None:
        values = device.read()
        if values != device.values:  # most never change
            device.values, device.samples = values, list(self._samples(name, *values))
        for metric, labels, value in device.samples:
            scrape.emit(metric, value, *labels)

    def _samples(
        self, name: str, flags: bytes | None, *others: bytes | None
    ) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
        """Yield `(metric, labels, value)` for the content of a device's files."""
        if flags is None:
            return  # a file such as bonding_masters, or the device has just disappeared
        number = parse_number(flags)
        words = [text(value or b"") for value in others[: len(_STATES)]]
        address, broadcast, duplex, operstate, alias = words
        admin = "" if number is None else "up" if number & _IFF_UP else "down"
        yield self.up, (name,), int(operstate == "up")
        yield self.info, (name, address, broadcast, duplex, operstate, admin, alias), 1
        if number is not None:
            yield self.flags, (name,), number
        for (file, metric, factor), content in zip(
            self.fields, others[len(_STATES) :], strict=True
        ):
            value = parse_number(content)
            if value is None or known(value) is None:
                continue
            if file != "speed" or value != _UNKNOWN_SPEED:
                yield metric, (name,), value * factor


class _Device:
    """The files of one device, their last content and the samples made from it."""

    def __init__(self, folder: str) -> None:
        files = ("flags", *_STATES, *(field.file for field in Netclass.fields))
        self._files = [KernelFile(f"{folder}/{file}") for file in files]
        self.values: list[bytes | None] = []
        self.samples: list[tuple[Metric, tuple[str, ...], int]] = []

    def read(self) -> list[bytes | None]:
        """Return the content of each file, None for one that cannot be read; [None] if there is no device."""
        flags, *others = self._files
        value = flags.value()
        return [value, *[file.value() for file in others]] if value is not None else [None]


def parse_number(value: bytes | None) -> int | None:
    """Return a decimal or `0x...` number of /sys; None for anything else, such as -1 for "unknown"."""
    found = _NUMBER.fullmatch(value or b"")
    return int(found[0], 0) if found else None


COLLECTOR = Netclass
