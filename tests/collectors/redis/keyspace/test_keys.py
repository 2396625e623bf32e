from __future__ import annotations

from collections.abc import Callable

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.keyspace.keys import MEMORY, SIZE, VALUE, Keys
from bts_collectors.redis.keyspace.scanner import Names

Converse = Callable[..., None]

#: A round without commands.
NOTHING_MORE = ([], [])


def matched(*names: bytes) -> Names:
    """Return names that a pattern matched."""
    pattern_names = Names(["*"])
    pattern_names.add(names)
    return pattern_names


def test_every_type_has_its_size(scrape_context: ScrapeContext, converse: Converse) -> None:
    """Each key is read with the command of its type, all in one round trip."""
    converse(
        Keys(Names(["l", "s", "z", "h", "x", "t"])).read(scrape_context),
        (
            [("TYPE", name) for name in (b"l", b"s", b"z", b"h", b"x", b"t")],
            [b"list", b"set", b"zset", b"hash", b"stream", b"string"],
        ),
        (
            [
                ("LLEN", b"l"),
                ("SCARD", b"s"),
                ("ZCARD", b"z"),
                ("HLEN", b"h"),
                ("XLEN", b"x"),
                ("STRLEN", b"t"),
            ],
            [1, 2, 3, 4, 5, 6],
        ),
        NOTHING_MORE,
    )

    names = "lszhxt"
    assert scrape_context.scrape.samples == {SIZE: {("db0", n): i for i, n in enumerate(names, 1)}}


def test_a_list_that_ran_empty_stays_at_0(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Redis deletes an empty list; its series stays at 0 as long as its name is known."""
    names = matched(b"l")
    keys = Keys(names)
    converse(
        keys.read(scrape_context),
        ([("TYPE", b"l")], [b"list"]),
        ([("LLEN", b"l")], [3]),
        NOTHING_MORE,
    )
    scrape_context.scrape.samples.clear()

    converse(keys.read(scrape_context), ([("TYPE", b"l")], [b"none"]), NOTHING_MORE, NOTHING_MORE)

    assert scrape_context.scrape.samples == {SIZE: {("db0", "l"): 0}}
    assert names.all() == [b"l"]


def test_a_string_that_is_gone_is_forgotten(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """The series of a deleted stream or string disappears at once."""
    names = matched(b"t")
    keys = Keys(names)
    converse(
        keys.read(scrape_context),
        ([("TYPE", b"t")], [b"string"]),
        ([("STRLEN", b"t")], [3]),
        NOTHING_MORE,
    )
    scrape_context.scrape.samples.clear()
    converse(keys.read(scrape_context), ([("TYPE", b"t")], [b"none"]), NOTHING_MORE, NOTHING_MORE)

    assert scrape_context.scrape.samples == {}
    assert names.all() == []


def test_a_key_of_the_settings_is_0_while_it_is_not_there(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A missing key that the settings name has size 0, whatever its type was."""
    keys = Keys(Names(["t"]))
    converse(keys.read(scrape_context), ([("TYPE", b"t")], [b"none"]), NOTHING_MORE, NOTHING_MORE)

    assert scrape_context.scrape.samples == {SIZE: {("db0", "t"): 0}}


def test_memory_and_numbers(scrape_context: ScrapeContext, converse: Converse) -> None:
    """If the settings enable them, the memory usage of every key and the number in a short string are emitted."""
    names = [b"n", b"word", b"long", b"l", b"gone"]
    converse(
        Keys(matched(*names), memory=True, values=True).read(scrape_context),
        (
            [("TYPE", name) for name in names],
            [b"string", b"string", b"string", b"list", b"string"],
        ),
        (
            [
                ("STRLEN", b"n"),
                ("STRLEN", b"word"),
                ("STRLEN", b"long"),
                ("LLEN", b"l"),
                ("STRLEN", b"gone"),
            ],
            [4, 3, 65, 1, 0],
        ),
        (
            [
                ("MEMORY", "USAGE", b"n"),
                ("GET", b"n"),
                ("MEMORY", "USAGE", b"word"),
                ("GET", b"word"),
                ("MEMORY", "USAGE", b"long"),
                ("MEMORY", "USAGE", b"l"),
                ("MEMORY", "USAGE", b"gone"),
                ("GET", b"gone"),
            ],
            [56, b"-1.5", 57, b"1_0", 150, 80, None, None],
        ),
    )

    assert scrape_context.scrape.samples[MEMORY] == {
        ("db0", "n"): 56,
        ("db0", "word"): 57,
        ("db0", "long"): 150,
        ("db0", "l"): 80,
    }
    assert scrape_context.scrape.samples[VALUE] == {("db0", "n"): -1.5}


@pytest.mark.parametrize("text", [b"", b"nan", b"inf", b"1e999", b"0x1", b"\xff", b"1 2"])
def test_strings_that_are_not_numbers(
    scrape_context: ScrapeContext, converse: Converse, text: bytes
) -> None:
    """A string that is not a finite number has no value."""
    converse(
        Keys(matched(b"t"), values=True).read(scrape_context),
        ([("TYPE", b"t")], [b"string"]),
        ([("STRLEN", b"t")], [len(text)]),
        ([("GET", b"t")], [text]),
    )

    assert VALUE not in scrape_context.scrape.samples


def test_a_refused_key_costs_only_itself(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A key that may not be read is a loss; the others are served."""
    refusal = ReplyError("NOPERM no permissions to access a key")
    converse(
        Keys(Names(["a", "b", "c"])).read(scrape_context),
        ([("TYPE", b"a"), ("TYPE", b"b"), ("TYPE", b"c")], [refusal, b"list", b"list"]),
        ([("LLEN", b"b"), ("LLEN", b"c")], [refusal, 3]),
        NOTHING_MORE,
    )

    assert [reason for reason, _ in scrape_context.scrape.losses] == ["noperm", "noperm"]
    assert scrape_context.scrape.samples[SIZE] == {("db0", "c"): 3}


def test_a_type_of_a_module_is_left_out(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A key that has no size command has no size."""
    converse(
        Keys(matched(b"j")).read(scrape_context),
        ([("TYPE", b"j")], [b"ReJSON-RL"]),
        *2 * [NOTHING_MORE],
    )

    assert scrape_context.scrape.samples == {}


def test_a_key_that_changes_its_type_between_two_commands_is_not_an_error(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A key whose type changes between two commands has no size in this scrape, and is not an error."""
    converse(
        Keys(Names(["k"])).read(scrape_context),
        ([("TYPE", b"k")], [b"list"]),
        ([("LLEN", b"k")], [ReplyError("WRONGTYPE Operation against a key")]),
        NOTHING_MORE,
    )

    assert (scrape_context.scrape.losses, scrape_context.scrape.samples) == ([], {})


def test_a_key_of_a_modules_type(scrape_context: ScrapeContext, converse: Converse) -> None:
    """The size of a key with a module's type is unknown; its memory usage is emitted."""
    converse(
        Keys(Names(["g"]), memory=True).read(scrape_context),
        ([("TYPE", b"g")], [b"graphdata"]),
        ([], []),
        ([("MEMORY", "USAGE", b"g")], [24]),
    )

    assert scrape_context.scrape.samples == {MEMORY: {("db0", "g"): 24}}
