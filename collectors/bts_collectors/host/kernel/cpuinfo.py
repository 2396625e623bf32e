"""What /proc/cpuinfo says of each processor, in the words of the kinds of processors that Linux runs on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from bts_collectors.host.kernel.files import text, unreadable


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


#: What each label is called, by the kind of processor: x86 first, then those that use other words.
_WORDS: dict[str, tuple[str, ...]] = {
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

#: Fields that a block of a processor begins with: its number.
_BEGINS = frozenset(("processor", "cpu number"))
#: `processor 0: version = FF,  identification = 2733E8,  machine = 2964`, of s390x.
_NUMBERED = re.compile(r"processor (\d+)")

Fields = dict[str, str]


def parse_cpuinfo(content: bytes) -> list[Processor]:
    """Return the processors, at least one; ValueError where there is none."""
    # What is said outside the block of a processor: the vendor on s390x, the features on old ARM.
    common: Fields = {}
    found: dict[str, Fields] = {}
    fields = common
    for line in text(content).split("\n"):
        name, value = (part.strip() for part in line.partition(":")[::2])
        if not name:
            fields = common
        elif name in _BEGINS and value.isdecimal():
            fields = found.setdefault(value, {})
        elif named := _NUMBERED.fullmatch(name):
            found.setdefault(named[1], {})
        else:
            fields[name] = value
    if not found and "Processor" in common:  # the only one of an old ARM, without a number
        found["0"] = {}
    if not found:
        raise unreadable(content)
    return [_processor(number, common | fields) for number, fields in found.items()]


def _processor(number: str, fields: Fields) -> Processor:
    labels = {label: _first(fields, words) for label, words in _WORDS.items()}
    place = (labels.pop("package"), labels.pop("core"), number)
    return Processor(
        place=place,
        labels=(*place, *labels.values()),
        megahertz=_megahertz(_first(fields, _MEGAHERTZ).removesuffix("MHz")),
        flags=tuple(_first(fields, _FLAGS).split()),
        bugs=tuple(fields.get("bugs", "").split()),
    )


def _first(fields: Fields, words: tuple[str, ...]) -> str:
    return next((fields[word] for word in words if fields.get(word)), "")


def _megahertz(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
