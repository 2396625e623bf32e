"""The subsystem `selinux`: whether SELinux is enabled, and its modes."""

from __future__ import annotations

import os

from bts_collectors.host.kernel.files import errors_in, read, read_optional, unexpected_content
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_MODES = {b"disabled": -1, b"permissive": 0, b"enforcing": 1}


class Selinux(Subsystem):
    """SELinux state from /sys/fs/selinux and /etc/selinux/config."""

    name = "selinux"

    enabled = gauge("node_selinux_enabled", "Whether SELinux is enabled (/sys/fs/selinux exists).")
    configured = gauge(
        "node_selinux_config_mode",
        "Configured mode: -1 disabled, 0 permissive, 1 enforcing (/etc/selinux/config, SELINUX).",
    )
    current = gauge(
        "node_selinux_current_mode",
        "Current mode: 0 permissive, 1 enforcing (/sys/fs/selinux/enforce).",
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/fs"
        self._enforce = f"{config.sysfs}/fs/selinux/enforce"
        self._settings = f"{config.rootfs.rstrip('/')}/etc/selinux/config"

    def collect(self, scrape: Scrape) -> None:
        """Emit whether SELinux is enabled, and its modes; NotPresent without /sys/fs."""
        configured = parse(read_optional(self._settings) or b"")
        if configured is not None:
            scrape.emit(self.configured, configured)
        try:
            enforce = read(self._enforce).strip()
        except NotPresent:
            if os.path.isdir(self._folder):  # noqa: PTH112  # no Path needed
                scrape.emit(self.enabled, 0)
            elif configured is None:
                raise
            return
        scrape.emit(self.enabled, 1)
        with errors_in(self._enforce):
            if enforce not in {b"0", b"1"}:
                raise unexpected_content(enforce)
            scrape.emit(self.current, int(enforce))


def parse(content: bytes) -> int | None:
    """Return the mode in /etc/selinux/config; None if it sets no valid mode."""
    mode = None
    for line in content.splitlines():
        key, _, value = line.partition(b"=")
        if key.strip() == b"SELINUX":
            mode = _MODES.get(value.strip().lower())
    return mode


COLLECTOR = Selinux
