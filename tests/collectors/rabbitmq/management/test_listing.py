from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, quote

import pytest

from bts_collectors.rabbitmq.api.client import MANAGEMENT, connect
from bts_collectors.rabbitmq.api.models import Consumer, ObjectTotals, Overview, QueueName
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.management.listing import (
    QueueLister,
    QueueListing,
    count,
    is_selected_name,
    queues_query,
)
from bts_exporter import NameFilter, Url
from servers.management import FakeManagement, answer, send

EVERYTHING = NameFilter()
TOTALS = "disable_stats=true&enable_queue_totals=true&columns=name,vhost,type,"


def selection(include: str | None = None, exclude: str | None = None) -> NameFilter:
    """Return what two expressions choose."""
    return NameFilter(*(each and re.compile(each) for each in (include, exclude)))


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
        self.lister = QueueLister(EVERYTHING, EVERYTHING, 2000)
        self.client = connect(MANAGEMENT, Url.from_setting(fake.url))
        self.round = RequestBatch(self.client, 20)

    def choose(
        self, vhosts: NameFilter = EVERYTHING, queues: NameFilter = EVERYTHING, most: int = 2000
    ) -> None:
        """Ask with these settings from now on."""
        self.lister = QueueLister(vhosts, queues, most)

    def list_queues(self, overview: Overview = Overview()) -> QueueListing:  # noqa: B008  # not changed
        """Return what the broker lists."""
        self.round = RequestBatch(self.client, 20)
        self.fake.requests.clear()
        found = self.lister.request(self.round, overview)
        assert found is not None
        return found

    def paths(self) -> list[str]:
        """Return what was asked for, without parameters."""
        return [path.partition("?")[0] for path in self.fake.requests]


def test_queues_of_canaries_are_never_selected() -> None:
    """Canary queues are left out even if a filter includes them."""
    own = "bts-exporter-canary-classic-0a1b2c3d"

    assert not is_selected_name(EVERYTHING, own)
    assert not is_selected_name(selection(include="canary"), own)
    assert is_selected_name(EVERYTHING, "canary")


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
def test_an_old_or_unknown_broker_is_requested_columns(version: str | None) -> None:
    """Before 3.13, columns make the listing cheap; every version supports them."""
    query = queues_query(Overview(rabbitmq_version=version), totals=False)

    assert query.startswith("columns=name,vhost,type,")
    assert queues_query(Overview(), totals=False) == query


@pytest.mark.parametrize("version", ["3.13.0", "3.13.0-rc.1", "4.1.3+12", "10.0"])
def test_a_new_broker_is_not_requested_columns(version: str) -> None:
    """From 3.13 on, columns make the broker compute details, so they are not requested."""
    assert queues_query(Overview(rabbitmq_version=version), totals=False) == ""


@pytest.mark.parametrize("version", ["3.10.8", "4.1.3"])
def test_totals_are_requested_with_columns_of_any_broker(version: str) -> None:
    """Totals are requested with columns, so that no unused field is sent."""
    assert queues_query(Overview(rabbitmq_version=version), totals=True).startswith(TOTALS)


def test_without_filters_one_request_is_for_all_queues(broker: Asking) -> None:
    """Without filters, one request returns all queues, and another one all consumers."""
    found = broker.list_queues()

    assert broker.paths() == ["/api/queues", "/api/consumers"]
    assert len(found.queues) == 6


def test_only_the_virtual_hosts_that_are_wanted_are_requested(broker: Asking) -> None:
    """Only selected virtual hosts are requested, with slashes in their names escaped."""
    broker.choose(vhosts=selection(include="^prod", exclude="eu2"))
    found = broker.list_queues()

    assert broker.paths() == ["/api/vhosts", "/api/queues/prod%2Feu", "/api/consumers/prod%2Feu"]
    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.auto_ack == {("prod/eu", "orders"): 1}


def test_a_filter_that_lets_all_virtual_hosts_pass_asks_for_all_at_once(broker: Asking) -> None:
    """If a filter selects every virtual host, one request returns all queues."""
    broker.choose(vhosts=selection(exclude="^staging"))
    broker.list_queues()

    assert broker.paths() == ["/api/vhosts", "/api/queues", "/api/consumers"]


def test_queues_that_are_not_wanted_are_left_out(broker: Asking) -> None:
    """Queues are selected by `queues_include` and `queues_exclude`."""
    broker.choose(queues=selection(include="o"))
    assert {each.name for each in broker.list_queues().queues} == {"orders"}

    broker.choose(queues=selection(exclude="^ord"))
    assert {each.name for each in broker.list_queues().queues} == {"mail"}
    assert broker.paths() == ["/api/queues"], "the queues that are left have no consumers"


def test_hidden_queues_are_counted_where_all_were_requested(broker: Asking) -> None:
    """Queues without permission are counted only if all virtual hosts were requested."""
    overview = Overview(object_totals=ObjectTotals(queues=10))
    assert broker.list_queues(overview).hidden == 4
    assert broker.list_queues().hidden is None

    broker.choose(queues=selection(include="mail"))
    assert broker.list_queues(overview).hidden == 4
    assert broker.list_queues(Overview(object_totals=ObjectTotals(queues=5))).hidden == 0

    broker.choose(vhosts=selection(include="prod"))
    assert broker.list_queues(overview).hidden is None


def test_a_virtual_host_deleted_between_two_requests_has_no_queues(broker: Asking) -> None:
    """A virtual host that disappears during a collection is not a failure."""
    del broker.fake.routes["/api/queues/test"]
    broker.choose(vhosts=selection(exclude="^/$"))
    found = broker.list_queues()

    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.unlisted == set()
    assert not broker.round.failures


def test_a_virtual_host_that_gives_no_answer_is_reported(broker: Asking) -> None:
    """A virtual host whose request failed is reported as unlisted, so its history is kept."""
    broker.fake.routes["/api/queues/test"] = answer({"error": "x"}, 500)
    broker.choose(vhosts=selection(exclude="^/$"))
    found = broker.list_queues()

    assert {each.vhost for each in found.queues} == {"prod/eu"}
    assert found.unlisted == {"test"}
    assert [error.reason for error in broker.round.failures] == ["protocol"]


def test_no_virtual_host_that_is_wanted_is_no_failure(broker: Asking) -> None:
    """A filter that selects no virtual host is not a failure."""
    broker.choose(vhosts=selection(include="staging"))

    assert broker.list_queues().queues == []


def test_without_a_list_of_virtual_hosts_nothing_is_known(broker: Asking) -> None:
    """If the list of virtual hosts fails, no queue is requested."""
    broker.fake.routes["/api/vhosts"] = send(b"<html>")
    broker.choose(vhosts=selection(include="prod"))
    batch = RequestBatch(broker.client, 20)

    assert broker.lister.request(batch, Overview()) is None
    assert len(batch.failures) == 1


@pytest.mark.parametrize("overview", [Overview(), Overview(object_totals=ObjectTotals(queues=6))])
def test_of_many_queues_only_depths_are_listed(broker: Asking, overview: Overview) -> None:
    """Whether only depths are listed depends on the overview's count, then on the previous listing."""
    broker.choose(most=5)
    broker.list_queues(overview)
    broker.list_queues(overview)

    assert broker.fake.requests[0].startswith(f"/api/queues?{TOTALS}")


def test_of_many_queues_the_deepest_with_consumers_are_requested_one_by_one(
    broker: Asking,
) -> None:
    """The deepest queues with consumers get their counts; one that is deleted meanwhile is ignored."""
    listed = [queue("idle"), queue("dead", ready=9), queue("a/b", ready=5), queue("gone", ready=7)]
    broker.fake.routes["/api/queues"] = answer(listed)
    broker.fake.routes["/api/consumers"] = answer(
        [consumer("idle"), consumer("a/b"), consumer("a/b", ack=False), consumer("gone")]
    )
    detailed = queue("a/b", ready=4, message_stats={"publish": 50})
    broker.fake.routes["/api/queues/%2F/a%2Fb"] = answer(detailed)
    broker.choose(most=3)
    broker.list_queues()
    found = broker.list_queues()

    batch = ["/api/queues", "/api/consumers", "/api/queues/%2F/gone", "/api/queues/%2F/a%2Fb"]
    assert broker.paths() == batch
    assert not broker.round.failures
    shown = {each.name: (each.messages_ready, each.consumers) for each in found.queues}
    assert shown == {"idle": (0, 1), "dead": (9, 0), "a/b": (5, 2), "gone": (7, 1)}
    counted = {each.name for each in found.queues if each.message_stats is not None}
    assert counted == {"a/b"}
    assert found.auto_ack == {("/", "a/b"): 1, ("/", "idle"): 0, ("/", "gone"): 0}


def test_when_one_of_them_gives_no_answer_the_others_are_not_requested(broker: Asking) -> None:
    """After one failed request for details the others are skipped, and the depths are kept."""
    broker.fake.routes["/api/queues"] = answer([queue("a", ready=9), queue("b", ready=5)])
    broker.fake.routes["/api/consumers"] = answer([consumer("a"), consumer("b")])
    broker.fake.routes["/api/queues/%2F/a"] = answer({}, 500)
    broker.choose(most=1)
    found = broker.list_queues(Overview(object_totals=ObjectTotals(queues=2)))

    assert broker.paths() == ["/api/queues", "/api/consumers", "/api/queues/%2F/a"]
    assert len(broker.round.failures) == 1
    assert len(found.queues) == 2


def test_no_more_than_fifty_queues_are_requested_one_by_one(broker: Asking) -> None:
    """At most the 50 deepest queues are requested one by one."""
    listed = [queue(f"q{number}", ready=number) for number in range(1, 81)]
    broker.fake.routes["/api/queues"] = answer(listed)
    broker.fake.routes["/api/consumers"] = answer([consumer(f"q{n}") for n in range(1, 81)])
    broker.choose(most=10)
    broker.list_queues(Overview(object_totals=ObjectTotals(queues=80)))

    batch = {path.rpartition("/")[2] for path in broker.paths()[2:]}
    assert batch == {f"q{number}" for number in range(31, 81)}


def test_a_broker_without_statistics_is_requested_totals_and_for_nothing_else(
    broker: Asking,
) -> None:
    """With disabled statistics, only totals are requested."""
    found = broker.list_queues(Overview(disable_stats=True))

    assert len(broker.fake.requests) == 1
    assert broker.fake.requests[0].startswith(f"/api/queues?{TOTALS}")
    assert found.auto_ack is None


def test_consumers_are_requested_only_where_one_may_be_auto_ack(broker: Asking) -> None:
    """The list of consumers is requested only if a queue that is not a stream has consumers."""
    listed = [queue("a", consumers=0), queue("b"), queue("c", consumers=1, type="stream")]
    broker.fake.routes["/api/queues"] = answer(listed)
    found = broker.list_queues()

    assert broker.paths() == ["/api/queues"]
    assert found.auto_ack == {}


def test_without_the_list_of_consumers_auto_ack_consumers_are_unknown(broker: Asking) -> None:
    """If the list of consumers fails, only consumers with automatic acknowledgement are unknown."""
    broker.fake.routes["/api/consumers"] = answer({}, 500)
    found = broker.list_queues()

    assert found.auto_ack is None
    assert len(found.queues) == 6


def test_consumers_that_acknowledge_nothing_are_counted_by_queue() -> None:
    """Consumers with automatic acknowledgement are counted; an unknown mode does not count."""
    consumers = [
        Consumer(QueueName("q", "/"), ack_required=False),
        Consumer(QueueName("q", "/"), ack_required=False),
        Consumer(QueueName("q", "/"), ack_required=True),
        Consumer(QueueName("q", "prod"), ack_required=False),
        Consumer(QueueName("other", "/")),
    ]
    found = count(consumers)

    assert found.all == {("/", "q"): 3, ("prod", "q"): 1, ("/", "other"): 1}
    assert found.auto_ack == {("/", "q"): 2, ("prod", "q"): 1, ("/", "other"): 0}


@pytest.mark.parametrize("name", ["a/b", 'say "hi"', "очередь 🐇", "%2F", "a?b#c", "a b+c"])
def test_any_name_of_a_virtual_host_or_queue_is_one_part_of_a_path(
    broker: Asking, name: str
) -> None:
    """Any name is escaped into one segment of the path."""
    spelled = quote(name, "")
    one = queue(name, name, ready=1)
    broker.fake.routes["/api/vhosts"] = answer([{"name": name}, {"name": "unwanted"}])
    broker.fake.routes[f"/api/queues/{spelled}"] = answer([one])
    broker.fake.routes[f"/api/consumers/{spelled}"] = answer([consumer(name, name)])
    broker.fake.routes[f"/api/queues/{spelled}/{spelled}"] = answer({**one, "message_stats": {}})
    broker.choose(vhosts=selection(exclude="^unwanted$"), most=0)
    found = broker.list_queues(Overview(object_totals=ObjectTotals(queues=1)))

    assert found.queues[0].message_stats is not None
    assert found.queues[0].consumers == 1


def test_the_parameters_of_a_request_are_well_formed() -> None:
    """Columns are never empty or repeated."""
    batch = parse_qs(queues_query(Overview(), totals=True), strict_parsing=True)
    columns = batch["columns"][0].split(",")

    assert batch["disable_stats"] == batch["enable_queue_totals"] == ["true"]
    assert all(columns)
    assert len(set(columns)) == len(columns)
