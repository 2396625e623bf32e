"""The subsystem `entropy`: available entropy of the kernel."""

from __future__ import annotations

from bts_collectors.host.kernel.files import SINGLE_RECORD
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.sysctl import read_sysctl
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Entropy(Subsystem):
    """Entropy pool from /proc/sys/kernel/random."""

    name = "entropy"

    values = (
        (
            "entropy_avail",
            gauge("node_entropy_available_bits", "Bits of available entropy (entropy_avail)."),
        ),
        (
            "poolsize",
            gauge("node_entropy_pool_size_bits", "Size of the entropy pool in bits (poolsize)."),
        ),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        folder = f"{config.procfs}/sys/kernel/random"
        self._files = [
            (KernelFile(f"{folder}/{file}", SINGLE_RECORD), metric) for file, metric in self.values
        ]

    def collect(self, scrape: Scrape) -> None:
        """Emit both numbers."""
        parts = Parts()
        for file, metric in self._files:
            with parts:
                scrape.emit(metric, read_sysctl(file))
        parts.check()


COLLECTOR = Entropy
