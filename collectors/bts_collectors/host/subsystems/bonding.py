"""The subsystem `bonding`: devices in each bond, and how many of them are up."""

from __future__ import annotations

from bts_collectors.host.kernel.files import read, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_MASTER = ("master",)


class Bonding(Subsystem):
    """Bonded network devices from /sys/class/net."""

    name = "bonding"

    slaves = gauge(
        "node_bonding_slaves",
        "Number of devices in the bond (/sys/class/net/MASTER/bonding/slaves).",
        _MASTER,
    )
    active = gauge(
        "node_bonding_active",
        "Number of devices in the bond with their link up (/sys/class/net/SLAVE/bonding_slave/mii_status).",
        _MASTER,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/net"

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of devices of each bond, and of those that are up."""
        path = f"{self._folder}/bonding_masters"
        masters = read(path).split()
        if not masters:
            msg = f"{path} is empty: no bonds"
            raise NotPresent(msg)
        for master in map(text, masters):
            slaves = read_value(f"{self._folder}/{master}/bonding/slaves")
            if slaves is None:
                continue  # the bond has just disappeared
            names = [text(slave) for slave in slaves.split()]
            scrape.emit(self.slaves, len(names), master)
            states = [self._state(master, name) for name in names]
            if None not in states:
                scrape.emit(self.active, states.count(b"up"), master)

    def _state(self, master: str, slave: str) -> bytes | None:
        """Return the state of a link; None if it is unknown."""
        # Through the master's links: the slave may be in another network namespace. Before Linux 3.19 the links
        # have another name.
        for link in ("lower", "slave"):
            state = read_value(f"{self._folder}/{master}/{link}_{slave}/bonding_slave/mii_status")
            if state is not None:
                return state
        return None


COLLECTOR = Bonding
