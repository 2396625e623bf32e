"""The subsystem `zfs`: caches, intent log, pools and datasets of ZFS."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host.kernel.devices import devices, entries
from bts_collectors.host.kernel.files import (
    errors_in,
    lines,
    read,
    read_optional,
    read_value,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Kind, Scrape, Template, gauge

#: Files of the kernel module, and the prefix of their metrics.
_FILES = {
    "abdstats": "abd",
    "arcstats": "arc",
    "dbufstats": "dbuf",
    "dmu_tx": "dmu_tx",
    "dnodestats": "dnode",
    "fm": "fm",
    "vdev_cache_stats": "vdev_cache",
    "vdev_mirror_stats": "vdev_mirror",
    "xuio_stats": "xuio",
    "zfetchstats": "zfetch",
    "zil": "zil",
}
_STATES = ("online", "degraded", "faulted", "offline", "removed", "unavail", "suspended")
#: Types of numeric fields: signed and unsigned, 32 and 64 bits (sys/kstat.h).
_NUMBERS = {b"1", b"2", b"3", b"4"}
_INVALID_CHARACTER = re.compile(r"\W", re.ASCII)
_SOURCE = "/proc/spl/kstat/zfs"


def _template(group: str, source: str, labels: tuple[str, ...] = ()) -> Template:
    name = f"node_zfs_{group}_{{field}}"
    return Template(name, f"Field {{field}} ({_SOURCE}/{source}).", Kind.UNTYPED, labels)


class Zfs(Subsystem):
    """ZFS statistics from /proc/spl/kstat/zfs."""

    name = "zfs"

    fields = {file: _template(group, file) for file, group in _FILES.items()}  # noqa: RUF012  # a constant table of metrics
    pool_io = _template("zpool", "POOL/io", ("zpool",))
    dataset = _template("zpool_dataset", "POOL/objset-*", ("zpool", "dataset"))
    state = gauge(
        "node_zfs_zpool_state",
        f"1 for the current state of the pool, 0 for the others ({_SOURCE}/POOL/state).",
        ("zpool", "state"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.procfs}/spl/kstat/zfs"

    def collect(self, scrape: Scrape) -> None:
        """Emit the module's fields, then each pool."""
        names = devices(self._folder)
        parts = Parts()
        for name in names:
            if name in self.fields:
                with parts, errors_in(f"{self._folder}/{name}"):
                    self._emit_fields(scrape, name)
            else:
                self._emit_pool(scrape, name, parts)
        parts.check()

    def _emit_fields(self, scrape: Scrape, file: str) -> None:
        for field, value in parse_fields(read(f"{self._folder}/{file}")):
            scrape.emit(self.fields[file].of(field), value)

    def _emit_pool(self, scrape: Scrape, pool: str, parts: Parts) -> None:
        folder = f"{self._folder}/{pool}"
        state = text(read_value(f"{folder}/state") or b"").lower()
        if state in _STATES:
            for each in _STATES:
                scrape.emit(self.state, int(each == state), pool, each)
        for file in entries(folder):
            path = f"{folder}/{file}"
            if file == "io":
                with parts, errors_in(path):
                    for field, value in parse_io(read(path)):
                        scrape.emit(self.pool_io.of(field), value, pool)
            elif file.startswith("objset-"):
                with parts, errors_in(path):
                    self._emit_dataset(scrape, path, pool)

    def _emit_dataset(self, scrape: Scrape, path: str, pool: str) -> None:
        content = read_optional(path)
        if content is None:
            return  # just destroyed
        name = dataset_name(content)
        for field, value in parse_fields(content):
            scrape.emit(self.dataset.of(field), value, pool, name)


def parse_fields(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield `(field, value)` of each number; ValueError at the end, for the first unreadable line."""
    rows = _rows(content, b"name")
    bad: bytes | None = None
    for line in rows:
        words = line.split()
        if len(words) > 1 and words[1] not in _NUMBERS:
            continue  # text, such as the name of a dataset
        try:
            name, _, value = words
            yield _field(name), int(value)
        except ValueError:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def parse_io(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield `(field, value)` of a pool's `io`: a line of names above a line of values."""
    rows = lines(content)
    names, values = (row.split() for row in rows[1:3]) if len(rows) > 2 else ((), ())  # noqa: PLR2004  # a heading and these two lines
    if not names or len(names) != len(values):
        raise unexpected_content(content)
    for name, value in zip(names, values, strict=True):
        yield _field(name), int(value)


def dataset_name(content: bytes) -> str:
    """Return the field dataset_name, which may contain spaces; ValueError if it is missing."""
    for line in lines(content):
        words = line.split(None, 2)
        if len(words) > 2 and words[0] == b"dataset_name":  # noqa: PLR2004  # name, type, text
            return text(words[2].rstrip())
    raise unexpected_content(content)


def _rows(content: bytes, heading: bytes) -> list[bytes]:
    """Return the lines after the heading; ValueError if there is no heading."""
    rows = lines(content)
    for number, line in enumerate(rows[:2]):
        if line.split()[:1] == [heading]:
            return rows[number + 1 :]
    raise unexpected_content(content)


def _field(name: bytes) -> str:
    return _INVALID_CHARACTER.sub("_", text(name))


COLLECTOR = Zfs
