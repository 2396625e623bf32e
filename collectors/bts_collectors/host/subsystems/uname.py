"""The subsystem `uname`: host name and kernel version, which dashboards use for their variables."""

from __future__ import annotations

import os

from bts_collectors.host.kernel.files import SINGLE_RECORD, text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Uname(Subsystem):
    """Host name and kernel version from uname(2)."""

    name = "uname"

    info = gauge(
        "node_uname_info",
        "A metric with a constant '1' value, labelled by the fields of uname(2);"
        " domainname is the NIS domain (/proc/sys/kernel/domainname).",
        ("sysname", "release", "version", "machine", "nodename", "domainname"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._domainname = KernelFile(f"{config.procfs}/sys/kernel/domainname", SINGLE_RECORD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the names; the domain name is empty if it cannot be read."""
        names = os.uname()
        scrape.emit(
            self.info,
            1,
            names.sysname,
            names.release,
            names.version,
            names.machine,
            names.nodename,
            text(self._domainname.value() or b""),
        )


COLLECTOR = Uname
