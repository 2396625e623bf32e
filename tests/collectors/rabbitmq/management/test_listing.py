from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, quote

import pytest

from bts_collectors.rabbitmq.api.client import MANAGEMENT, connect
from bts_collectors.rabbitmq.api.models import Consumer, ObjectTotals, Overview, QueueName
from bts_collectors.rabbitmq.api.requests import Round
from bts_collectors.rabbitmq.management.listing import (
    Found,
    Listing,
    Selection,
    count,
    queues_query,
)
from bts_exporter import Url
from servers.management import FakeManagement, answer, send

EVERYTHING = Selection()
TOTALS = "disable_stats=true&enable_queue_totals=true&columns=name,vhost,type,"


def selection(include: str | None = None, exclude: str | None = None) -> Selection:
    """Return what two expressions choose."""
    return Selection(*(each and re.compile(each) for each in (include, exclude)))


def queue(name: str, vhost: str = "/", ready: int = 0, **fields: object) -> dict[str, object]:
    """Return a queue as the API lists it."""
    return {"name": name, "vhost": vhost, "type": "classic", "messages_ready": ready, **fields}


def consumer(name: str, vhost: str = "/", *, ack: bool = True) -> dict[str, object]:
    """Return a consumer as the API lists it."""
    return {"queue": {"name": name, "vhost": vhost}, "ack_required": ack}


class Asking:
    """A broker that is asked with the settings of a test."""

    def __init__(self, fake: FakeManagement) -> None:
        self.fake = fake
        self.listing = Listing(EVERYTHING, EVERYTHING, 2000)
        self.client = connect(MANAGEMENT, Url.from_setting(fake.url))
        self.round = Round(self.client, 20)

    def choose(
        self, vhosts: Selection = EVERYTHING, queues: Selection = EVERYTHING, most: int = 2000
    ) -> None:
        """Ask with these settings from now on."""
        self.listing = Listing(vhosts, queues, most)

    def ask(self, overview: Overview = Overview()) -> Found:  # noqa: B008  # not changed
        """Return what the broker lists."""
        self.round = Round(self.client, 20)
        self.fake.requests.clear()
        found = self.listing.ask(self.round, overview)
        assert found is not None
        return found

    def paths(self) -> list[str]:
        """Return what was asked for, without parameters."""
        return [path.partition("?")[0] for path in self.fake.requests]


def test_queues_of_canaries_are_never_wanted() -> None:
    """They come and go with exporters, under other names each time."""
    own = "bts-exporter-canary-classic-0a1b2c3d"

    assert not EVERYTHING(own)
    assert not selection(include="canary")(own)
    assert EVERYTHING("canary")


@pytest.fixture
def broker(management: FakeManagement) -> Iterator[Asking]:
    """Return a broker with three virtual hosts, of which one has a slash in its name."""
    names = ("/", "prod/eu", "test")
    management.routes["/api/vhosts"] = answer([{"name": name} for name in names])
    lists = {name: [queue("orders", name, consumers=1), queue("mail", name)] for name in names}
    management.routes["/api/queues"] = answer([each for found in lists.values() for each in found])
    for name, path in zip(names, ("%2F", "prod%2Feu", "test"), strict=True):
        management.routes[f"/api/queues/{path}"] = answer(lists[name])
        management.routes[f"/api/consumers/{path}"] = answer([consumer("orders", name, ack=False)])
    made = Asking(management)
    yield made
    made.client.close()


@pytest.mark.parametrize("version", ["3.8.34", "3.12.14", "strange", None])
def test_an_old_or_unknown_broker_is_asked_for_columns(version: str | None) -> None:
    """Before 3.13 it is what makes the listing cheap, and it works everywhere."""
    query = queues_query(Overview(rabbitmq_version=version), totals=False)

    assert query.startswith("columns=name,vhost,type,")
    assert queues_query(Overview(), totals=False) == query


@pytest.mark.parametrize("version", ["3.13.0", "3.13.0-rc.1", "4.1.3+12", "10.0"])
def test_a_new_broker_is_not_asked_for_columns(version: str) -> None:
    """From 3.13 on they make the broker compute the details that a plain listing is spared."""
    assert queues_query(Overview(rabbitmq_version=version), totals=False) == ""


@pytest.mark.parametrize("version", ["3.10.8", "4.1.3"])
def test_totals_are_asked_for_with_columns_of_any_broker(version: str) -> None:
    """Without them it sends what nobody reads."""
    assert queues_query(Overview(rabbitmq_version=version), totals=True).startswith(TOTALS)


def test_without_filters_one_question_is_for_all_queues(broker: Asking) -> None:
    """And another for all consumers."""
    found = broker.ask()

    assert broker.paths() == ["/api/queues", "/api/consumers"]
    assert len(found.queues) == 6


def test_only_the_virtual_hosts_that_are_wanted_are_asked_for(broker: Asking) -> None:
    """What is not wanted costs the broker nothing; slashes in names are no slashes in paths."""
    broker.choose(vhosts=selection(include="^prod", exclude="eu2"))
    found = broker.ask()

    assert broker.paths() == ["/api/vhosts", "/api/queues/prod%2Feu", "/api/consumers/prod%2Feu"]
    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.blind == {("prod/eu", "orders"): 1}


def test_a_filter_that_lets_all_virtual_hosts_pass_asks_for_all_at_once(broker: Asking) -> None:
    """One question is cheaper than many."""
    broker.choose(vhosts=selection(exclude="^staging"))
    broker.ask()

    assert broker.paths() == ["/api/vhosts", "/api/queues", "/api/consumers"]


def test_queues_that_are_not_wanted_are_left_out(broker: Asking) -> None:
    """Found by `queues_exclude`, or not by `queues_include`."""
    broker.choose(queues=selection(include="o"))
    assert {each.name for each in broker.ask().queues} == {"orders"}

    broker.choose(queues=selection(exclude="^ord"))
    assert {each.name for each in broker.ask().queues} == {"mail"}
    assert broker.paths() == ["/api/queues"], "the queues that are left have no consumers"


def test_hidden_queues_are_counted_where_all_were_asked_for(broker: Asking) -> None:
    """Filters hide no queue from the user; those of other virtual hosts were not looked at."""
    overview = Overview(object_totals=ObjectTotals(queues=10))
    assert broker.ask(overview).hidden == 4
    assert broker.ask().hidden is None

    broker.choose(queues=selection(include="mail"))
    assert broker.ask(overview).hidden == 4
    assert broker.ask(Overview(object_totals=ObjectTotals(queues=5))).hidden == 0

    broker.choose(vhosts=selection(include="prod"))
    assert broker.ask(overview).hidden is None


def test_a_virtual_host_deleted_between_two_questions_has_no_queues(broker: Asking) -> None:
    """That is no failure."""
    del broker.fake.routes["/api/queues/test"]
    broker.choose(vhosts=selection(exclude="^/$"))
    found = broker.ask()

    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.unlisted == set()
    assert not broker.round.failures


def test_a_virtual_host_that_gives_no_answer_is_told_apart(broker: Asking) -> None:
    """What was known of its queues is not forgotten for that."""
    broker.fake.routes["/api/queues/test"] = answer({"error": "x"}, 500)
    broker.choose(vhosts=selection(exclude="^/$"))
    found = broker.ask()

    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.unlisted == {"test"}
    assert [error.reason for error in broker.round.failures] == ["protocol"]


def test_no_virtual_host_that_is_wanted_is_no_failure(broker: Asking) -> None:
    """It may come later."""
    broker.choose(vhosts=selection(include="staging"))

    assert broker.ask().queues == []


def test_without_a_list_of_virtual_hosts_nothing_is_known(broker: Asking) -> None:
    """To ask for all of them is what was not wanted."""
    broker.fake.routes["/api/vhosts"] = send(b"<html>")
    broker.choose(vhosts=selection(include="prod"))
    asked = Round(broker.client, 20)

    assert broker.listing.ask(asked, Overview()) is None
    assert len(asked.failures) == 1


@pytest.mark.parametrize("overview", [Overview(), Overview(object_totals=ObjectTotals(queues=6))])
def test_of_many_queues_depths_alone_are_listed(broker: Asking, overview: Overview) -> None:
    """By the overview, or else by how many there were last."""
    broker.choose(most=5)
    broker.ask(overview)
    broker.ask(overview)

    assert broker.fake.requests[0].startswith(f"/api/queues?{TOTALS}")


def test_of_many_queues_the_deepest_with_consumers_are_asked_for_one_by_one(
    broker: Asking,
) -> None:
    """Their counts are what a lag in seconds is made of; one that is gone by then is none."""
    listed = [queue("idle"), queue("dead", ready=9), queue("a/b", ready=5), queue("gone", ready=7)]
    broker.fake.routes["/api/queues"] = answer(listed)
    broker.fake.routes["/api/consumers"] = answer(
        [consumer("idle"), consumer("a/b"), consumer("a/b", ack=False), consumer("gone")]
    )
    detailed = queue("a/b", ready=4, message_stats={"publish": 50})
    broker.fake.routes["/api/queues/%2F/a%2Fb"] = answer(detailed)
    broker.choose(most=3)
    broker.ask()
    found = broker.ask()

    asked = ["/api/queues", "/api/consumers", "/api/queues/%2F/gone", "/api/queues/%2F/a%2Fb"]
    assert broker.paths() == asked
    assert not broker.round.failures
    shown = {each.name: (each.messages_ready, each.consumers) for each in found.queues}
    assert shown == {"idle": (0, 1), "dead": (9, 0), "a/b": (5, 2), "gone": (7, 1)}
    counted = {each.name for each in found.queues if each.message_stats is not None}
    assert counted == {"a/b"}
    assert found.blind == {("/", "a/b"): 1, ("/", "idle"): 0, ("/", "gone"): 0}


def test_when_one_of_them_gives_no_answer_the_others_are_not_asked_for(broker: Asking) -> None:
    """They would take as long to fail, and the depths are known."""
    broker.fake.routes["/api/queues"] = answer([queue("a", ready=9), queue("b", ready=5)])
    broker.fake.routes["/api/consumers"] = answer([consumer("a"), consumer("b")])
    broker.fake.routes["/api/queues/%2F/a"] = answer({}, 500)
    broker.choose(most=1)
    found = broker.ask(Overview(object_totals=ObjectTotals(queues=2)))

    assert broker.paths() == ["/api/queues", "/api/consumers", "/api/queues/%2F/a"]
    assert len(broker.round.failures) == 1
    assert len(found.queues) == 2


def test_no_more_than_fifty_queues_are_asked_for_one_by_one(broker: Asking) -> None:
    """The deepest; each costs the broker a millisecond."""
    listed = [queue(f"q{number}", ready=number) for number in range(1, 81)]
    broker.fake.routes["/api/queues"] = answer(listed)
    broker.fake.routes["/api/consumers"] = answer([consumer(f"q{n}") for n in range(1, 81)])
    broker.choose(most=10)
    broker.ask(Overview(object_totals=ObjectTotals(queues=80)))

    asked = {path.rpartition("/")[2] for path in broker.paths()[2:]}
    assert asked == {f"q{number}" for number in range(31, 81)}


def test_a_broker_without_statistics_is_asked_for_totals_and_for_nothing_else(
    broker: Asking,
) -> None:
    """The list of consumers would be an error, and there are no counts."""
    found = broker.ask(Overview(disable_stats=True))

    assert len(broker.fake.requests) == 1
    assert broker.fake.requests[0].startswith(f"/api/queues?{TOTALS}")
    assert found.blind is None


def test_consumers_are_asked_for_only_where_one_may_be_blind(broker: Asking) -> None:
    """The list is expensive, and the consumers of streams acknowledge in another way."""
    listed = [queue("a", consumers=0), queue("b"), queue("c", consumers=1, type="stream")]
    broker.fake.routes["/api/queues"] = answer(listed)
    found = broker.ask()

    assert broker.paths() == ["/api/queues"]
    assert found.blind == {}


def test_without_the_list_of_consumers_blind_ones_are_unknown(broker: Asking) -> None:
    """And the queues are known."""
    broker.fake.routes["/api/consumers"] = answer({}, 500)
    found = broker.ask()

    assert found.blind is None
    assert len(found.queues) == 6


def test_consumers_that_acknowledge_nothing_are_counted_by_queue() -> None:
    """A consumer of which it is not known is not counted as one."""
    consumers = [
        Consumer(QueueName("q", "/"), ack_required=False),
        Consumer(QueueName("q", "/"), ack_required=False),
        Consumer(QueueName("q", "/"), ack_required=True),
        Consumer(QueueName("q", "prod"), ack_required=False),
        Consumer(QueueName("other", "/")),
    ]
    found = count(consumers)

    assert found.all == {("/", "q"): 3, ("prod", "q"): 1, ("/", "other"): 1}
    assert found.blind == {("/", "q"): 2, ("prod", "q"): 1, ("/", "other"): 0}


@pytest.mark.parametrize("name", ["a/b", 'say "hi"', "очередь 🐇", "%2F", "a?b#c", "a b+c"])
def test_any_name_of_a_virtual_host_or_queue_is_one_part_of_a_path(
    broker: Asking, name: str
) -> None:
    """Whatever is in it."""
    spelled = quote(name, "")
    one = queue(name, name, ready=1)
    broker.fake.routes["/api/vhosts"] = answer([{"name": name}, {"name": "unwanted"}])
    broker.fake.routes[f"/api/queues/{spelled}"] = answer([one])
    broker.fake.routes[f"/api/consumers/{spelled}"] = answer([consumer(name, name)])
    broker.fake.routes[f"/api/queues/{spelled}/{spelled}"] = answer({**one, "message_stats": {}})
    broker.choose(vhosts=selection(exclude="^unwanted$"), most=0)
    found = broker.ask(Overview(object_totals=ObjectTotals(queues=1)))

    assert found.queues[0].message_stats is not None
    assert found.queues[0].consumers == 1


def test_the_parameters_of_a_question_are_well_formed() -> None:
    """No column is empty, and none is asked for twice."""
    asked = parse_qs(queues_query(Overview(), totals=True), strict_parsing=True)
    columns = asked["columns"][0].split(",")

    assert asked["disable_stats"] == asked["enable_queue_totals"] == ["true"]
    assert all(columns)
    assert len(set(columns)) == len(columns)
