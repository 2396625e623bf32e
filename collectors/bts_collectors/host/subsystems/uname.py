"""The machine's name and kernel: what dashboards fill their variables from."""

from __future__ import annotations

import os

from bts_collectors.host.kernel.files import AT_ONCE, text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Uname(Subsystem):
    """What uname(2) says."""

    name = "uname"

    info = gauge(
        "node_uname_info",
        "A metric with a constant '1' value, labelled by what uname(2) says;"
        " domainname is that of NIS (/proc/sys/kernel/domainname).",
        ("sysname", "release", "version", "machine", "nodename", "domainname"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._domainname = KernelFile(f"{config.procfs}/sys/kernel/domainname", AT_ONCE)

    def collect(self, scrape: Scrape) -> None:
        """Emit the names, with an empty domain name where it cannot be read."""
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
