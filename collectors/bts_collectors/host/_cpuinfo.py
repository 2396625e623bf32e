"""What /proc/cpuinfo says of each processor, in the words of x86 and where they differ of ARM."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from bts_collectors.host._files import text, unreadable


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor; what its kind does not tell is empty, or None."""

    #: package, core and cpu: the numbers that tell it from others.
    place: tuple[str, str, str]
    #: The place, then vendor, family, model, model name, microcode, stepping and size of the cache.
    labels: tuple[str, ...]
    megahertz: float | None
    flags: tuple[str, ...]
    bugs: tuple[str, ...]


def parse_cpuinfo(content: bytes) -> list[Processor]:
    """Return the processors, at least one; ValueError where there is none."""
    found = []
    for block in text(content).split("\n\n"):
        fields = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        # Some machines have a block about themselves behind those of the processors.
        if fields.get("processor", "").isdecimal():
            found.append(_processor(fields))
    if not found:
        raise unreadable(content)
    return found


def _processor(fields: dict[str, str]) -> Processor:
    place = (
        fields.get("physical id", ""),
        fields.get("core id", ""),
        fields["processor"],
    )
    kind = ("vendor_id", "cpu family", "model", "model name", "microcode", "stepping", "cache size")
    return Processor(
        place=place,
        labels=(*place, *(fields.get(name, "") for name in kind)),
        megahertz=_megahertz(fields.get("cpu MHz", "")),
        flags=tuple((fields.get("flags") or fields.get("Features", "")).split()),
        bugs=tuple(fields.get("bugs", "").split()),
    )


def _megahertz(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
