"""The subsystem `interrupts`: interrupts by type and CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import is_number, lines, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, NameFilter, Scrape, counter


class InterruptsSettings(CollectorConfig, frozen=True):
    """Settings of `interrupts`; the expressions match `type;info;devices`."""

    #: Interrupts to collect; matches `type;info;devices`.
    name_include: re.Pattern[str] | None = None
    #: Interrupts not to collect; matches `type;info;devices`.
    name_exclude: re.Pattern[str] | None = None
    #: Whether to emit counts of 0: there is a series for each interrupt and CPU, and most stay 0.
    include_zeros: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("name", self.name_include, self.name_exclude)


class Interrupt(NamedTuple):
    """A line of /proc/interrupts: number or name, interrupt controller, devices, count for each CPU."""

    kind: str
    info: str
    devices: str
    counts: list[int]


class Interrupts(Subsystem):
    """Interrupts from /proc/interrupts."""

    name = "interrupts"
    by_default = False
    Settings = InterruptsSettings

    total = counter(
        "node_interrupts_total",
        "Interrupts by type and CPU (/proc/interrupts).",
        ("cpu", "type", "info", "devices"),
    )

    settings: InterruptsSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/interrupts")
        self._name_filter = NameFilter(self.settings.name_include, self.settings.name_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the counts of each selected interrupt."""
        zeros = self.settings.include_zeros
        with self._file as content:
            cpus, interrupts = parse(content)
            for kind, info, devices, counts in interrupts:
                if not self._name_filter(f"{kind};{info};{devices}"):
                    continue
                for cpu, count in zip(cpus, counts, strict=True):
                    if count or zeros:
                        scrape.emit(self.total, count, cpu, kind, info, devices)


def parse(content: bytes) -> tuple[list[str], Iterator[Interrupt]]:
    """Return the CPUs and the interrupts; ValueError for an unknown heading.

    The iterator of interrupts raises ValueError at the end, for the first unreadable line.
    """
    header, *rows = lines(content) or [b""]
    columns = header.split()
    if not columns or not all(cpu.startswith(b"CPU") and cpu[3:].isdigit() for cpu in columns):
        raise unexpected_content(header)
    # CPUs that are offline have no column.
    return [text(cpu[3:]) for cpu in columns], _interrupts(rows, len(columns))


def _interrupts(rows: list[bytes], cpus: int) -> Iterator[Interrupt]:
    bad: bytes | None = None
    for row in rows:
        kind, colon, rest = row.partition(b":")
        fields = rest.split()
        if not colon:
            bad = bad or row
            continue
        if len(fields) <= cpus:
            continue  # ERR and MIS have one count for all CPUs
        counts = fields[:cpus]
        if not all(map(is_number, counts)):
            bad = bad or row
            continue
        name = kind.strip()
        # A numbered interrupt has its controller, then its devices; others have a description.
        end = cpus + 1 if name.isdigit() else len(fields)
        info, devices = b" ".join(fields[cpus:end]), b" ".join(fields[end:])
        yield Interrupt(text(name), text(info), text(devices), list(map(int, counts)))
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Interrupts
