"""Parser of /proc/cpuinfo, whose field names depend on the processor architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from bts_collectors.host.kernel.files import text, unexpected_content


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor; a field that its architecture does not have is empty or None."""

    #: The numbers of package, core and processor.
    position: tuple[str, str, str]
    #: The position, then vendor, family, model, model name, microcode, stepping and cache size.
    labels: tuple[str, ...]
    megahertz: float | None
    flags: tuple[str, ...]
    bugs: tuple[str, ...]


#: Field names of each label: those of x86 first, then those of other architectures.
_FIELD_NAMES: dict[str, tuple[str, ...]] = {
    "package": ("physical id", "package"),
    "core": ("core id", "core", "hart"),
    "vendor": ("vendor_id", "cpu"),
    "family": ("cpu family", "CPU Family"),
    "model": ("model",),
    "model_name": ("model name", "Model Name", "cpu model", "isa", "Processor"),
    "microcode": ("microcode",),
    "stepping": ("stepping",),
    "cachesize": ("cache size",),
}
_MEGAHERTZ = ("cpu MHz", "CPU MHz", "cpu MHz dynamic", "clock")
_FLAGS = ("flags", "Features", "features")

#: Fields that start the block of a processor; their value is its number.
_BLOCK_STARTS = frozenset(("processor", "cpu number"))
#: `processor 0: version = FF,  identification = 2733E8,  machine = 2964` on s390x.
_NUMBERED = re.compile(r"processor (\d+)")

Fields = dict[str, str]


def parse_cpuinfo(content: bytes) -> list[Processor]:
    """Return the processors, at least one; ValueError if there are none."""
    # Fields outside of a processor's block: the vendor on s390x, the features on old ARM.
    common: Fields = {}
    found: dict[str, Fields] = {}
    fields = common
    for line in text(content).split("\n"):
        name, value = (part.strip() for part in line.partition(":")[::2])
        if not name:
            fields = common
        elif name in _BLOCK_STARTS and value.isdecimal():
            fields = found.setdefault(value, {})
        elif named := _NUMBERED.fullmatch(name):
            found.setdefault(named[1], {})
        else:
            fields[name] = value
    if not found and "Processor" in common:  # the only processor of an old ARM has no number
        found["0"] = {}
    if not found:
        raise unexpected_content(content)
    return [_processor(number, common | fields) for number, fields in found.items()]


def _processor(number: str, fields: Fields) -> Processor:
    labels = {label: _first(fields, names) for label, names in _FIELD_NAMES.items()}
    position = (labels.pop("package"), labels.pop("core"), number)
    return Processor(
        position=position,
        labels=(*position, *labels.values()),
        megahertz=_megahertz(_first(fields, _MEGAHERTZ).removesuffix("MHz")),
        flags=tuple(_first(fields, _FLAGS).split()),
        bugs=tuple(fields.get("bugs", "").split()),
    )


def _first(fields: Fields, names: tuple[str, ...]) -> str:
    return next((fields[name] for name in names if fields.get(name)), "")


def _megahertz(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
