"""The subsystem `vmstat`: paging, swapping, page faults and OOM kills."""

from __future__ import annotations

import re

from bts_collectors.host.kernel.files import text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.pairs import Pairs
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, Metric, Scrape, Template


class VmstatSettings(CollectorConfig, frozen=True):
    """Settings of `vmstat`."""

    #: Fields to collect.
    fields: re.Pattern[str] = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault).*")


class Vmstat(Subsystem):
    """Virtual memory statistics from /proc/vmstat."""

    name = "vmstat"
    Settings = VmstatSettings

    field = Template("node_vmstat_{field}", "Field {field} of /proc/vmstat.", Kind.UNTYPED)

    settings: VmstatSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/vmstat")
        self._pairs = Pairs(self._metric)

    def collect(self, scrape: Scrape) -> None:
        """Emit the selected fields."""
        with self._file as content:
            self._pairs.emit(scrape, content)

    def _metric(self, field: bytes) -> Metric | None:
        name = text(field)
        if not self.settings.fields.search(name):
            return None
        return self.field.of(name) if name.isascii() and name.isidentifier() else None


COLLECTOR = Vmstat
