"""The subsystem `rapl`: energy used by CPU packages and memory (RAPL)."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from bts_collectors.host.kernel.devices import devices
from bts_collectors.host.kernel.files import (
    errors_in,
    is_number,
    read,
    read_value,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Kind, NotPresent, Scrape, Template

_MICROJOULES = 1e6

#: Errors of drivers for a zone that the hardware does not count.
_NO_COUNTER = frozenset((errno.EINVAL, errno.ENODATA, errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP))

#: A name such as `package-0`: the number is the index among zones of the same name.
_NUMBERED = re.compile(r"([^-]*)-(\d{1,9})")
_INVALID_CHARACTER = re.compile(r"\W", re.ASCII)


class Rapl(Subsystem):
    """Energy counters from /sys/class/powercap."""

    name = "rapl"

    joules = Template(
        "node_rapl_{field}_joules_total",
        "Energy used by {field} (/sys/class/powercap/ZONE/energy_uj).",
        Kind.COUNTER,
        ("index", "path"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/powercap"

    def collect(self, scrape: Scrape) -> None:
        """Emit the counter of each zone that can be read; NotPresent if none can."""
        names = (
            (f"{self._folder}/{z}", read_value(f"{self._folder}/{z}/name"))
            for z in devices(self._folder)
        )
        zones = list(indexed((path, text(name)) for path, name in names if name))
        if not zones:
            msg = f"{self._folder} has no zones"
            raise NotPresent(msg)
        parts = Parts()
        for path, name, index in zones:
            with parts:
                energy = _microjoules(f"{path}/energy_uj") / _MICROJOULES
                scrape.emit(self.joules.of(_INVALID_CHARACTER.sub("_", name)), energy, index, path)
        parts.check()


def _microjoules(path: str) -> int:
    """Return the counter of a zone; NotPresent without permission, or if the hardware has no counter."""
    try:
        content = read(path).strip()
    except PermissionError:
        # Root only, since it leaks information about computations (CVE-2020-8694).
        msg = f"{path} can be read only by root, or with CAP_DAC_READ_SEARCH"
        raise NotPresent(msg) from None
    except OSError as error:
        if error.errno not in _NO_COUNTER:
            raise
        msg = f"{path}: {error.strerror}"
        raise NotPresent(msg) from None
    with errors_in(path):
        if not is_number(content):
            raise unexpected_content(content)
        return int(content)


def indexed(zones: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield `(path, name, index)` for each `(path, name)`: the number in the name, else a running number."""
    seen: Counter[str] = Counter()
    for path, full in zones:
        if found := _NUMBERED.fullmatch(full):
            name, index = found[1], int(found[2])
        else:
            name, index = full, seen[full]
        seen[name] = index + 1
        yield path, name, str(index)


COLLECTOR = Rapl
