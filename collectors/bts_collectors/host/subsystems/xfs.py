"""The subsystem `xfs`: operations of XFS file systems since they were mounted."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.devices import devices
from bts_collectors.host.kernel.files import (
    errors_in,
    is_number,
    lines,
    read_value,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Metric, Scrape, counter

_SOURCE = "/sys/fs/xfs/DEVICE/stats/stats"

#: The lines that are served, and their counters in order (fs/xfs/xfs_stats.h).
_LINES = {
    "extent_alloc": (
        "extent_allocation",
        ("extents_allocated", "blocks_allocated", "extents_freed", "blocks_freed"),
    ),
    "abt": (
        "allocation_btree",
        ("lookups", "compares", "records_inserted", "records_deleted"),
    ),
    "blk_map": (
        "block_mapping",
        (
            "reads", "writes", "unmaps", "extent_list_insertions", "extent_list_deletions",
            "extent_list_lookups", "extent_list_compares",
        ),
    ),
    "bmbt": ("block_map_btree", ("lookups", "compares", "records_inserted", "records_deleted")),
    "dir": ("directory_operation", ("lookup", "create", "remove", "getdents")),
    "ig": (
        "inode_operation",
        (
            "attempts", "found", "recycled", "missed", "duplicates", "reclaims",
            "attribute_changes",
        ),
    ),
    "rw": ("", ("write_calls", "read_calls")),
    "vnodes": (
        "vnode",
        ("active", "allocate", "get", "hold", "release", "reclaim", "remove"),
    ),
}  # fmt: skip


def _metrics(line: str, group: str, names: tuple[str, ...]) -> tuple[Metric, ...]:
    return tuple(
        counter(
            "_".join(filter(None, ("node_xfs", group, name, "total"))),
            f"{name.replace('_', ' ').capitalize()} ({_SOURCE}, {line}, field {position}).",
            ("device",),
        )
        for position, name in enumerate(names, 1)
    )


class Xfs(Subsystem):
    """XFS file systems from /sys/fs/xfs."""

    name = "xfs"

    counters = {  # noqa: RUF012  # a constant table of metrics
        line: _metrics(line, group, names) for line, (group, names) in _LINES.items()
    }

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/fs/xfs"

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each mounted file system."""
        parts = Parts()
        for device in devices(self._folder):
            path = f"{self._folder}/{device}/stats/stats"
            content = read_value(path)  # /sys/fs/xfs/stats, the sum of all file systems, has none
            if content is not None:
                with parts, errors_in(path):
                    self._emit(scrape, device, content + b"\n")
        parts.check()

    def _emit(self, scrape: Scrape, device: str, content: bytes) -> None:
        for line, values in parse(content):
            for metric, value in zip(self.counters.get(line, ()), values, strict=False):
                scrape.emit(metric, value, device)


def parse(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield `(line, counters)`; ValueError at the end, for the first unreadable line."""
    bad = None if content.strip() else b""
    for row in lines(content):
        line, *fields = row.split() or [b""]
        if fields and all(map(is_number, fields)):
            yield text(line), list(map(int, fields))
        else:
            bad = bad or row
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Xfs
