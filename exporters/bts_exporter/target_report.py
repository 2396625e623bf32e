"""What `check --connect` prints about the targets: failures first, absent parts last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from bts_exporter.collection.runner import Snapshot
from bts_exporter.errors import place_of, words_of
from bts_exporter.matches import Match


def lines_about(shots: Sequence[Snapshot]) -> list[str]:
    """Return a line for each target, and for each collector of a target that has something to say.

    A type such as `host` is built of many collectors: those that are fine are counted in one line.
    """
    lines: list[tuple[int, str]] = []
    for _, group in groupby(shots, lambda shot: (shot.runner.kind, shot.runner.target)):
        lines += _lines_of(list(group))
    return [line for _, line in sorted(lines, key=lambda line: line[0])]


def _lines_of(shots: Sequence[Snapshot]) -> Iterator[tuple[int, str]]:
    """Yield the lines of one target, each with its rank."""
    fine: list[Snapshot] = []
    absent: list[Snapshot] = []
    for shot in shots:
        matches = list(_matches(shot)) if shot.outcome.success else []
        if not shot.outcome.success:
            yield 0, _line(shot, matches)
        elif len(shots) == 1 or matches:
            matched = all(isinstance(it, Match) and it.found for it in matches)
            yield (2 if matched and shot.outcome.supported else 1), _line(shot, matches)
        else:
            (fine if shot.outcome.supported else absent).append(shot)
    kind, target = shots[0].runner.kind, shots[0].runner.target
    name = f"{kind}[{target}]" if target else kind
    if fine:
        series = sum(shot.series for shot in fine)
        yield 3, f"{name}: ok; {len(fine)} collectors, {series} series"
    if absent:
        names = ", ".join(shot.runner.name for shot in absent)
        yield 4, f"{name}: nothing to read for: {names} (--log.level=debug shows why)"


def _line(shot: Snapshot, matches: Sequence[Match | str]) -> str:
    outcome = shot.outcome
    if not outcome.success:
        return f"{shot.runner.identity}: FAILS ({outcome.reason}): {outcome.message}"
    said = [f"nothing to read: {outcome.message}"]
    if outcome.supported:
        said = ["ok", f"{shot.series} series", *map(str, matches)]
    if shot.runner.may_be_absent:
        said.append(
            "optional: its absence will not be reported as a failure (delete `optional: true` if it must be there)"
        )
    return f"{shot.runner.identity}: {'; '.join(said)}"


def _matches(shot: Snapshot) -> Iterator[Match | str]:
    """Yield what each pattern of the settings matched, or why that is unknown."""
    if not shot.outcome.supported:
        return
    try:
        yield from shot.runner.collector.matches(shot.samples)
    except Exception as error:  # noqa: BLE001  # a plug-in's own code
        yield f"matches: {words_of(error)}{place_of(error)}"
