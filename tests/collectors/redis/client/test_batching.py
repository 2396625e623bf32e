from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bts_collectors.redis.client.batching import RequestBatches, run
from bts_collectors.redis.client.connection import Command


def test_readers_share_their_round_trips() -> None:
    """The nth batches of all readers are sent together; each reader gets its own replies."""
    trips: list[list[Command]] = []
    got: dict[str, list[list[object]]] = {"a": [], "b": []}

    def part(name: str, *counts: int) -> RequestBatches:
        for count in counts:
            got[name].append((yield [(name, number) for number in range(count)]))

    def execute(commands: Sequence[Command], ahead: Sequence[Command]) -> list[object]:
        assert not ahead
        trips.append(list(commands))
        return [f"{name}{number}" for name, number in commands]

    run([part("a", 1, 2), part("b", 2, 0, 1)], execute)

    assert trips == [
        [("a", 0), ("b", 0), ("b", 1)],
        [("a", 0), ("a", 1)],
        [("b", 0)],
    ]
    assert got == {"a": [["a0"], ["a0", "a1"]], "b": [["b0", "b1"], [], ["b0"]]}


def test_others_take_turns_with_the_readers() -> None:
    """Every round trip announces the next commands, as the same object, so that they can be sent ahead."""
    trips: list[tuple[Sequence[Command], Sequence[Command]]] = []
    got: list[object] = []

    def part(*names: str) -> RequestBatches:
        for name in names:
            got.extend((yield [(name,)]))

    def execute(commands: Sequence[Command], ahead: Sequence[Command]) -> list[object]:
        trips.append((commands, ahead))
        return [name for (name,) in commands]

    run([part("a", "b", "c", "d")], execute, [part("x", "y")])

    assert got == ["a", "x", "b", "y", "c", "d"]
    assert [ahead for _, ahead in trips] == [[("x",)], [("b",)], [("y",)], [("c",)], (), ()]
    assert all(ahead is after[0] for (_, ahead), after in pairwise(trips) if ahead)


def test_readers_without_commands_need_no_round_trip() -> None:
    """Without commands there is no round trip."""

    def part() -> RequestBatches:
        yield []

    run([part()], lambda *_: 1 / 0)  # type: ignore[arg-type,return-value]
