"""What each CPU's share of receiving packets is, and what it dropped for lack of time."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import TABLE, lines, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, counter, gauge

#: The oldest kernel has so many columns.
_LEAST_COLUMNS = 9
#: Of 64 bits.
_HEX_DIGITS = 16
_BACKLOG_COLUMN, _CPU_COLUMN = 11, 12
_CPU = ("cpu",)
_SOURCE = "(/proc/net/softnet_stat, column"


class Softnet(Subsystem):
    """Packets by CPU from /proc/net/softnet_stat."""

    name = "softnet"

    #: By column; kernels have 9 to 15 of them.
    columns = (
        (0, counter("node_softnet_processed_total", f"Packets processed {_SOURCE} 1).", _CPU)),
        (
            1,
            counter(
                "node_softnet_dropped_total", f"Packets dropped: queue full {_SOURCE} 2).", _CPU
            ),
        ),
        (
            2,
            counter(
                "node_softnet_times_squeezed_total",
                f"Times that processing ran out of quota {_SOURCE} 3).",
                _CPU,
            ),
        ),
        (
            8,
            counter(
                "node_softnet_cpu_collision_total",
                f"Collisions on a device lock while sending {_SOURCE} 9).",
                _CPU,
            ),
        ),
        (
            9,
            counter(
                "node_softnet_received_rps_total",
                f"Times that the CPU was woken to process packets {_SOURCE} 10).",
                _CPU,
            ),
        ),
        (
            10,
            counter(
                "node_softnet_flow_limit_count_total",
                f"Times that the limit of a flow was reached {_SOURCE} 11).",
                _CPU,
            ),
        ),
        (11, gauge("node_softnet_backlog_len", f"Packets in the backlog {_SOURCE} 12).", _CPU)),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/softnet_stat", TABLE)

    def collect(self, scrape: Scrape) -> None:
        """Emit what this kernel counts."""
        with self._file as content:
            for cpu, numbers in parse(content):
                for column, metric in self.columns:
                    if column < len(numbers):
                        scrape.emit(metric, numbers[column], cpu)


def parse(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield `(cpu, numbers)` of each line, at least nine; ValueError at the end, for the first odd line.

    Kernels from 5.10 on say which CPU it is, since those offline are left out. Those before count
    no backlog: it is 0 for them, as in the anchor, on whose dashboards the panel would be empty.
    """
    rows = lines(content)
    last = content.rpartition(b"\n")[2]
    if rows and len(last) == len(rows[0]):  # all are of one length: its end alone is missing
        rows.append(last)
    bad = None if rows else content
    for position, line in enumerate(rows):
        numbers = _numbers(line)
        if len(numbers) < _LEAST_COLUMNS:
            bad = bad or line
            continue
        cpu = numbers[_CPU_COLUMN] if len(numbers) > _CPU_COLUMN else position
        if len(numbers) == _BACKLOG_COLUMN:
            numbers.append(0)
        yield str(cpu), numbers
    if bad is not None:
        raise unreadable(bad)


def _numbers(line: bytes) -> list[int]:
    """Return the numbers of a line; none where a word is not a number."""
    words = line.split()
    # Neither a sign nor an underscore.
    if not b"".join(words).isalnum() or max(map(len, words)) > _HEX_DIGITS:
        return []
    try:
        return [int(word, 16) for word in words]
    except ValueError:
        return []


COLLECTOR = Softnet
