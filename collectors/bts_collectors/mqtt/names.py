"""Names that users choose for rules, metrics, labels and pipelines, and what YAML makes of some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: A key as it arrives -> what was probably written: YAML 1.1 reads these words as values.
_READ_AS_VALUES = {
    "True": "on, yes or true",
    "False": "off, no or false",
    "None": "null or ~",
}
#: Truth values of YAML 1.1 that some programs read as such and others, like this one, do not.
_AMBIGUOUS = {"y", "Y", "n", "N"}


def check(where: str, names: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with names below the setting `where`, and the cure."""
    for name in names:
        if not name:
            yield f"{where}: each needs a name"
        elif name in _READ_AS_VALUES:
            written = _READ_AS_VALUES[name]
            yield f"{where}: YAML reads {written} as {name}: put the name in quotes, or use another"
        elif name in _AMBIGUOUS:
            yield f"{where}: YAML may read {name} as a truth value: use a longer name"
