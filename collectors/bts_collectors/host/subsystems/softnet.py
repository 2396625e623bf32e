"""The subsystem `softnet`: packets processed and dropped by each CPU."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import SHORT_RECORDS, lines, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, counter, gauge

#: Columns of the oldest supported kernels.
_LEAST_COLUMNS = 9
#: Hexadecimal digits of a 64-bit number.
_HEX_DIGITS = 16
_BACKLOG_COLUMN, _CPU_COLUMN = 11, 12
_CPU = ("cpu",)
_SOURCE = "(/proc/net/softnet_stat, column"


class Softnet(Subsystem):
    """Packet processing by CPU from /proc/net/softnet_stat."""

    name = "softnet"

    #: Metrics by column; kernels have 9 to 15 columns.
    columns = (
        (0, counter("node_softnet_processed_total", f"Packets processed {_SOURCE} 1).", _CPU)),
        (
            1,
            counter(
                "node_softnet_dropped_total",
                f"Packets dropped because the queue was full {_SOURCE} 2).",
                _CPU,
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
        (
            11,
            gauge(
                "node_softnet_backlog_len", f"Number of packets in the backlog {_SOURCE} 12).", _CPU
            ),
        ),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/softnet_stat", SHORT_RECORDS)

    def collect(self, scrape: Scrape) -> None:
        """Emit the statistics that this kernel has."""
        with self._file as content:
            for cpu, numbers in parse(content):
                for column, metric in self.columns:
                    if column < len(numbers):
                        scrape.emit(metric, numbers[column], cpu)


def parse(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield `(cpu, numbers)` of each line, with at least nine numbers.

    Since Linux 5.10 a line has the number of its CPU, and CPUs that are offline have no line. Older kernels do
    not count the backlog; it is 0 as in node_exporter, whose dashboards expect the metric. Raises ValueError
    at the end, for the first unreadable line.
    """
    rows = lines(content)
    last = content.rpartition(b"\n")[2]
    if rows and len(last) == len(
        rows[0]
    ):  # all lines have one length: only the line's end is missing
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
        raise unexpected_content(bad)


def _numbers(line: bytes) -> list[int]:
    """Return the numbers of a line; an empty list if a word is not a number."""
    words = line.split()
    # int() would accept signs and underscores.
    if not b"".join(words).isalnum() or max(map(len, words)) > _HEX_DIGITS:
        return []
    try:
        return [int(word, 16) for word in words]
    except ValueError:
        return []


COLLECTOR = Softnet
