"""Checks names that users choose for rules, metrics, labels and pipelines: YAML changes some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: A key as parsed -> the probable spelling in the file: YAML 1.1 reads these words as values.
_READ_AS_VALUES = {
    "True": "on, yes or true",
    "False": "off, no or false",
    "None": "null or ~",
}
#: Booleans of YAML 1.1 that some parsers read as such; this one does not.
_AMBIGUOUS = {"y", "Y", "n", "N"}

#: The JSON Schema of the names that `check` accepts.
SCHEMA = {"minLength": 1, "not": {"enum": sorted({*_READ_AS_VALUES, *_AMBIGUOUS})}}


def check(where: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the problems of names below the setting `where`, with the cure."""
    for name in names:
        if not name:
            yield f"{where}: an entry has an empty name"
        elif name in _READ_AS_VALUES:
            written = _READ_AS_VALUES[name]
            yield f"{where}: YAML reads {written} as {name}: quote the name, or use another"
        elif name in _AMBIGUOUS:
            yield f"{where}: YAML may read {name} as a boolean: use a longer name"
