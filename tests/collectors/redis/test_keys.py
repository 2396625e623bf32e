from __future__ import annotations

from collections.abc import Callable

from hiredis import ReplyError

from bts_collectors.redis.discovery import Names
from bts_collectors.redis.keys import KEPT_WHEN_EMPTY, SIZE, Keys
from bts_collectors.redis.visit import Visit
from bts_exporter import backlog

Converse = Callable[..., None]


def found(*names: bytes) -> Names:
    """Return names that a pattern matched."""
    found = Names(["*"])
    found.walk(lambda _: [[b"0", list(names)]], lambda: False)
    return found


def test_every_type_has_its_size(visit: Visit, converse: Converse) -> None:
    """Each key is asked for with the command of its type, all in one round."""
    converse(
        Keys(Names(["l", "s", "z", "h", "x", "t"])).read(visit),
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
    )

    names = "lszhxt"
    assert visit.scrape.samples[SIZE] == {("db0", n): i for i, n in enumerate(names, 1)}
    assert visit.scrape.samples[backlog.BACKLOG] == {("redis", "l", ""): 1}


def test_a_list_that_ran_empty_stays_at_0_for_an_hour(visit: Visit, converse: Converse) -> None:
    """Redis deletes an empty list; its series goes on at 0, until nobody misses it."""
    now = 0.0
    names = found(b"l")
    keys = Keys(names, clock=lambda: now)
    there = ([("TYPE", b"l")], [b"list"]), ([("LLEN", b"l")], [3])
    gone = ([("TYPE", b"l")], [b"none"]), ([], [])
    converse(keys.read(visit), *there)

    for now, expected in ((KEPT_WHEN_EMPTY - 1, {("db0", "l"): 0}), (KEPT_WHEN_EMPTY, None)):  # noqa: B007  # keys' clock
        visit.scrape.samples.clear()
        converse(keys.read(visit), *gone)
        assert visit.scrape.samples.get(SIZE) == expected
    assert names.all() == []


def test_a_string_that_is_gone_is_forgotten(visit: Visit, converse: Converse) -> None:
    """A key that does not vanish by running empty is gone at once."""
    names = found(b"t")
    keys = Keys(names)
    converse(keys.read(visit), ([("TYPE", b"t")], [b"string"]), ([("STRLEN", b"t")], [3]))
    visit.scrape.samples.clear()
    converse(keys.read(visit), ([("TYPE", b"t")], [b"none"]), ([], []))

    assert visit.scrape.samples == {}
    assert names.all() == []


def test_a_key_of_the_settings_is_0_while_it_is_not_there(visit: Visit, converse: Converse) -> None:
    """A key spelled out in the settings has size 0, and a backlog once it is known to be a list."""
    now = 0.0
    keys = Keys(Names(["l"]), clock=lambda: now)
    gone = ([("TYPE", b"l")], [b"none"]), ([], [])
    converse(keys.read(visit), *gone)
    assert visit.scrape.samples == {SIZE: {("db0", "l"): 0}}
    visit.scrape.samples.clear()
    converse(keys.read(visit), ([("TYPE", b"l")], [b"list"]), ([("LLEN", b"l")], [3]))
    visit.scrape.samples.clear()
    now = 2 * KEPT_WHEN_EMPTY

    converse(keys.read(visit), *gone)

    assert visit.scrape.samples[SIZE] == {("db0", "l"): 0}
    assert visit.scrape.samples[backlog.BACKLOG] == {("redis", "l", ""): 0}


def test_a_refused_key_is_lost_alone(visit: Visit, converse: Converse) -> None:
    """A key that may not be read is a loss; the others are served."""
    refusal = ReplyError("NOPERM no permissions to access a key")
    converse(
        Keys(Names(["a", "b", "c"])).read(visit),
        ([("TYPE", b"a"), ("TYPE", b"b"), ("TYPE", b"c")], [refusal, b"list", b"list"]),
        ([("LLEN", b"b"), ("LLEN", b"c")], [refusal, 3]),
    )

    assert [loss.reason for loss in visit.losses] == ["noperm", "noperm"]
    assert visit.scrape.samples[SIZE] == {("db0", "c"): 3}


def test_a_type_of_a_module_is_left_out(visit: Visit, converse: Converse) -> None:
    """A key that has no size command has no size."""
    converse(Keys(found(b"j")).read(visit), ([("TYPE", b"j")], [b"ReJSON-RL"]), ([], []))

    assert visit.scrape.samples == {}
