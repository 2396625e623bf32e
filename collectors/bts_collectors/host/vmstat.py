"""What the memory management did: paging, swapping, faults, and whom it had to kill."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host._files import lines, text, unreadable
from bts_collectors.host._kernelfile import KernelFile
from bts_collectors.host._subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, Metric, Scrape, Template


class VmstatSettings(CollectorConfig, frozen=True):
    """Settings of `vmstat`."""

    fields: re.Pattern[str] = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault).*")


class VmstatConfig(Paths, frozen=True):
    """Settings of `vmstat`, and where the files are."""

    settings: VmstatSettings = VmstatSettings()


class Vmstat(Subsystem):
    """Events and states of the memory management from /proc/vmstat."""

    name = "vmstat"
    Config = VmstatConfig
    Settings = VmstatSettings

    field = Template("node_vmstat_{field}", "Field {field} of /proc/vmstat.", Kind.UNTYPED)

    config: VmstatConfig

    def __init__(self, config: VmstatConfig) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/vmstat")
        #: What becomes of a field: decided once for each.
        self._metrics: dict[bytes, Metric | None] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the fields that are wanted."""
        metrics = self._metrics
        with self._file as content:
            for field, value in parse(content):
                if field not in metrics:
                    metrics[field] = self._metric(field)
                metric = metrics[field]
                if metric is not None:
                    scrape.emit(metric, value)

    def _metric(self, field: bytes) -> Metric | None:
        name = text(field)
        if not self.config.settings.fields.search(name):
            return None
        return self.field.of(name) if name.isascii() and name.isidentifier() else None


def parse(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield `(field, number)`; ValueError at the end, for the first line that is no such pair."""
    rows = lines(content)
    bad = None if rows else content
    for line in rows:
        field, _, value = line.partition(b" ")
        if value.isdigit():
            yield field, int(value)
        else:
            bad = bad or line
    if bad is not None:
        raise unreadable(bad)


COLLECTOR = Vmstat
