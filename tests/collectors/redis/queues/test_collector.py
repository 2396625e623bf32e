from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.batching import run
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.queues import collector as queues
from bts_collectors.redis.queues.collector import MESSAGES, OLDEST, Queues
from bts_collectors.redis.queues.config import (
    CelerySettings,
    LibrarySettings,
    QueueSettings,
    WantedNames,
)
from bts_exporter import backlog

Converse = Callable[..., None]

REFUSAL = ReplyError("NOPERM this user has no permissions to run this command")
WRONGTYPE = ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")


def test_without_settings_no_command_is_sent(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Without queues there is no round trip."""
    run([Queues(QueueSettings()).read(scrape_context)], lambda *_: 1 / 0)  # type: ignore[arg-type,return-value]

    assert scrape_context.scrape.samples == {}


def test_queues_share_their_round_trips(scrape_context: ScrapeContext, converse: Converse) -> None:
    """All queues of all settings share a round trip for their lengths and one for their first messages."""
    settings = QueueSettings(rq=LibrarySettings(names=("a",)), lists=("b",))
    first: list[Command] = [
        ("LLEN", b"rq:queue:a"),
        ("LLEN", b"rq:queue:a:intermediate"),
        ("ZCARD", b"rq:wip:a"),
        ("ZCARD", b"rq:failed:a"),
        ("ZCARD", b"rq:deferred:a"),
        ("ZCARD", b"rq:scheduled:a"),
        ("ZCARD", b"rq:finished:a"),
        ("ZCARD", b"rq:canceled:a"),
        ("LINDEX", b"rq:queue:a", 0),
        ("LLEN", b"b"),
    ]
    converse(
        Queues(settings, lambda: 0.0).read(scrape_context),
        (first, [2, 0, 1, 0, 0, 0, 0, 0, b"id", 3]),
        ([("HGET", b"rq:job:id", "enqueued_at")], [b"2025-12-31T23:59:00.500000Z"]),
        ([("EVAL_RO",)], [[[3, b"", b"-" * 12, -1], [3, b"", b"-" * 12, -1]]]),
    )

    assert scrape_context.scrape.samples[OLDEST] == {("rq", "db0", "a"): 59.5}
    assert scrape_context.scrape.samples[backlog.LAG_SECONDS] == {("redis", "rq:queue:a", ""): 59.5}
    assert scrape_context.scrape.samples[backlog.LAG_METHOD] == {
        ("redis", "rq:queue:a", "", "message_time"): 1
    }
    assert scrape_context.scrape.samples[backlog.BACKLOG] == {
        ("redis", "rq:queue:a", ""): 2,
        ("redis", "b", ""): 3,
    }


def test_a_refused_registry_costs_the_names_in_it(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Without the set of queues, the queues that the settings name are still emitted."""
    converse(
        Queues(QueueSettings(sidekiq=LibrarySettings(names=("a", "*")))).read(scrape_context),
        ([("SMEMBERS", b"queues")], [REFUSAL]),
        (
            [
                ("ZCARD", b"schedule"),
                ("ZCARD", b"retry"),
                ("ZCARD", b"dead"),
                ("LLEN", b"queue:a"),
                ("LINDEX", b"queue:a", -1),
            ],
            [REFUSAL, 1, 0, 2, REFUSAL],
        ),
        ([("EVAL_RO",)], [[[2, b"", b"-" * 12, -1]]]),
    )

    assert [reason for reason, _ in scrape_context.scrape.losses] == 3 * ["noperm"]
    assert scrape_context.scrape.samples == {
        MESSAGES: {
            ("sidekiq", "db0", "", "retry"): 1,
            ("sidekiq", "db0", "", "dead"): 0,
            ("sidekiq", "db0", "a", "ready"): 2,
        },
        backlog.BACKLOG: {("redis", "queue:a", ""): 2},
    }


def test_patterns_choose_among_the_registered(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Queues from the library's own set are read if a pattern of the settings matches them."""
    converse(
        Queues(QueueSettings(sidekiq=LibrarySettings(names=("lo*",), prefix="shop"))).read(
            scrape_context
        ),
        ([("SMEMBERS", b"shop:queues")], [[b"low", b"high"]]),
        (
            [
                ("ZCARD", b"shop:schedule"),
                ("ZCARD", b"shop:retry"),
                ("ZCARD", b"shop:dead"),
                ("LLEN", b"shop:queue:low"),
                ("LINDEX", b"shop:queue:low", -1),
            ],
            [0, 0, 0, 0, None],
        ),
    )

    assert scrape_context.scrape.samples[OLDEST] == {("sidekiq", "db0", "low"): 0}


def test_queues_that_are_not_listed_are_not_new_afterwards(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """The history of a queue stays while its library's set cannot be read."""
    now = 0.0
    reader = Queues(QueueSettings(sidekiq=LibrarySettings(names=("lo*",))), clock=lambda: now)
    members = [("SMEMBERS", b"queues")]
    sets = [("ZCARD", b"schedule"), ("ZCARD", b"retry"), ("ZCARD", b"dead")]
    reading = [*sets, ("LLEN", b"queue:low"), ("LINDEX", b"queue:low", -1)]
    job = b'{"enqueued_at": 4000000000}'
    converse(reader.read(scrape_context), (members, [[b"low"]]), (reading, [0, 0, 0, 1, job]))
    assert OLDEST not in scrape_context.scrape.samples
    scrape_context.scrape.samples.clear()
    now = 15.0
    converse(reader.read(scrape_context), (members, [REFUSAL]), (sets, [0, 0, 0]))
    scrape_context.scrape.samples.clear()
    now = 30.0
    converse(reader.read(scrape_context), (members, [[b"low"]]), (reading, [0, 0, 0, 1, job]))

    assert scrape_context.scrape.samples[OLDEST] == {("sidekiq", "db0", "low"): 30}


def test_a_partial_sum_is_not_emitted(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A priority that could not be counted leaves the depth of a Celery queue unknown, not too low."""
    lists = [("LLEN", b"celery"), *(("LLEN", b"celery\x06\x16%d" % n) for n in range(1, 10))]
    oldest = ("ZRANGE", b"unacked_index", 0, 0, "WITHSCORES")
    converse(
        Queues(QueueSettings(celery=CelerySettings())).read(scrape_context),
        ([("HLEN", b"unacked"), oldest, *lists], [1, [], 5, REFUSAL, *8 * [0]]),
    )

    assert scrape_context.scrape.samples[MESSAGES] == {("celery", "db0", "", "active"): 1}
    assert backlog.BACKLOG not in scrape_context.scrape.samples


@pytest.mark.parametrize(
    ("count", "index", "held"),
    [(0, [], 0), (1, [b"tag", b"1767225540"], 60), (1, [], None), (REFUSAL, [], None)],
)
def test_how_long_workers_have_held_a_message(
    count: Reply,
    index: Reply,
    held: float | None,
    scrape_context: ScrapeContext,
    converse: Converse,
) -> None:
    """Celery's oldest delivery is the common age of messages in flight; it is unknown if hash and index differ."""
    scrape_context.now = 1_767_225_600_000
    lists = [("LLEN", b"celery"), *(("LLEN", b"celery\x06\x16%d" % n) for n in range(1, 10))]
    oldest = ("ZRANGE", b"unacked_index", 0, 0, "WITHSCORES")
    converse(
        Queues(QueueSettings(celery=CelerySettings())).read(scrape_context),
        ([("HLEN", b"unacked"), oldest, *lists], [count, index, *10 * [0]]),
    )

    samples = scrape_context.scrape.samples
    common = ("redis", "unacked", "")
    assert samples.get(backlog.IN_FLIGHT_OLDEST) == (None if held is None else {common: held})
    methods = {(*common, "delivery_time"): 1} if held else None
    assert samples.get(backlog.IN_FLIGHT_METHOD) == methods


def test_a_found_key_of_another_type_is_forgotten(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A key that is no longer a list is an error that names it if the settings do, not if a pattern found it."""
    reader = Queues(QueueSettings(lists=("a", "b*")))
    reader.names["queues.lists"].add([b"b1"])
    converse(
        reader.read(scrape_context), ([("LLEN", b"a"), ("LLEN", b"b1")], [WRONGTYPE, WRONGTYPE])
    )

    ((reason, message),) = scrape_context.scrape.losses
    assert reason == "protocol"
    assert "refused LLEN of the key 'a': WRONGTYPE" in message
    assert "see its TYPE" in message
    converse(reader.read(scrape_context), ([("LLEN", b"a")], [0]))


def test_a_name_in_two_settings_is_read_once(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A key that two kinds of plain keys want, such as one that changed its type, has one series."""
    converse(
        Queues(QueueSettings(lists=("a",), zsets=("a",))).read(scrape_context),
        ([("LLEN", b"a")], [0]),
    )

    assert scrape_context.scrape.samples[MESSAGES] == {("", "db0", "a", "ready"): 0}
    assert scrape_context.scrape.losses == []


def test_arq_without_a_clock(scrape_context: ScrapeContext, converse: Converse) -> None:
    """Without the server's clock, jobs that are due cannot be distinguished from later ones."""
    scrape_context.now = None
    run([Queues(QueueSettings(arq=WantedNames())).read(scrape_context)], lambda *_: 1 / 0)  # type: ignore[arg-type,return-value]

    assert scrape_context.scrape.samples == {}


def test_arq_with_more_running_than_are_looked_at(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """If all jobs that were read are running, the others may be running, too, and are not emitted."""
    assert scrape_context.now is not None
    jobs = [b"%d" % number for number in range(250)]
    words = (0, 249, "WITHSCORES")
    converse(
        Queues(QueueSettings(arq=WantedNames())).read(scrape_context),
        (
            [
                ("ZCARD", b"arq:queue"),
                ("ZCOUNT", b"arq:queue", "-inf", scrape_context.now),
                ("ZRANGE", b"arq:queue", *words),
            ],
            [400, 300, [word for job in jobs for word in (job, b"1")]],
        ),
        ([("EXISTS", b"arq:in-progress:" + job) for job in jobs], 250 * [1]),
    )

    assert scrape_context.scrape.samples[MESSAGES] == {
        ("arq", "db0", "arq:queue", "scheduled"): 100
    }
    assert backlog.BACKLOG not in scrape_context.scrape.samples


@pytest.mark.parametrize("time", [b"inf", b"-inf", b"nan", b"-1e308", b"1e300", b"x"])
def test_an_invalid_time_costs_only_one_age(scrape_context: ScrapeContext, time: bytes) -> None:
    """Producers write the time: an invalid time gives no age, and costs nothing else."""
    answers = {"HGET": time, "LINDEX": b"id", "ZRANGE": []}

    def execute(commands: Sequence[Command], _: object) -> list[object]:
        return [answers.get(str(command[0]), 1) for command in commands]

    run([Queues(QueueSettings(bullmq=LibrarySettings(names=("q",)))).read(scrape_context)], execute)

    assert OLDEST not in scrape_context.scrape.samples
    assert ("bullmq", "db0", "q", "ready") in scrape_context.scrape.samples[MESSAGES]


def test_many_queues_are_read_in_batches(scrape_context: ScrapeContext) -> None:
    """A round trip transfers the messages of at most a hundred queues."""
    names = tuple(f"q{number}" for number in range(2 * queues.BATCH + 5))
    trips: list[int] = []

    def execute(commands: Sequence[Command], _: object) -> list[object]:
        trips.append(len(commands))
        return [1 for _ in commands]

    run([Queues(QueueSettings(sets=names)).read(scrape_context)], execute)

    assert len(scrape_context.scrape.samples[MESSAGES]) == len(names)
    assert len(trips) == 3
    assert max(trips) <= queues.BATCH


def test_more_registered_queues_than_are_looked_at(
    scrape_context: ScrapeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric says that queues are left out, as long as some are."""
    monkeypatch.setattr(queues, "MOST_NAMES", 2)
    registered = [b"rq:queue:a", b"rq:queue:b", b"rq:queue:c"]

    def execute(commands: Sequence[Command], _: object) -> list[object]:
        answers = {"SMEMBERS": registered, "LINDEX": None}
        return [answers.get(str(command[0]), 0) for command in commands]

    rq = Queues(QueueSettings(rq=LibrarySettings(on=True)))
    run([rq.read(scrape_context)], execute)
    assert rq.truncated == {"queues.rq"}
    assert {labels[2] for labels in scrape_context.scrape.samples[MESSAGES]} == {"a", "b"}

    registered.pop()
    scrape_context.scrape.samples.clear()
    run([rq.read(scrape_context)], execute)
    assert rq.truncated == set()
