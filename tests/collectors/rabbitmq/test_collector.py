from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.metrics.health import CHECKS
from bts_exporter import Metric, Scrape, TargetError, Url, testing
from servers import free_port
from servers.management import FakeManagement, Reply, answer, hang, send

HERE = Path(__file__).parent
NOW = 1_700_000_600.0

REFUSED = answer({"error": "not_authorised", "reason": "Not monitor user"}, 401)


@contextmanager
def collector(url: str) -> Iterator[RabbitMQ]:
    """Return a collector that is stopped in the end."""
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(url)), lambda: NOW)
    try:
        yield made
    finally:
        made.stop()


def failing(url: str, seconds: float = 20.0) -> tuple[TargetError, testing.Samples]:
    """Return what a collection that fails raises, and what it emitted before."""
    with collector(url) as made:
        scrape = Scrape(monotonic() + seconds)
        with pytest.raises(TargetError) as caught:
            made.collect(scrape)
        return caught.value, testing.samples(made, scrape)


def lines(made: RabbitMQ, samples: testing.Samples) -> str:
    """Return samples as text, sorted."""
    # With the names of another exporter, some have other labels.
    labels = {
        (metric.name, len(metric.labels)): metric.labels
        for metric in made.declared()
        if isinstance(metric, Metric)
    }
    return "".join(
        f"{name}{{{','.join(f'{key}={value!r}' for key, value in zip(labels[name, len(values)], values, strict=True))}}}"
        f" {sample:.15g}\n"
        for name, found in sorted(samples.items())
        for values, sample in sorted(found.items())
    )


@pytest.mark.parametrize("version", ["3.10", "4.1"])
def test_a_brokers_answers_give_exactly_these_samples(
    management: FakeManagement, version: str, bts_golden: testing.Golden
) -> None:
    """Recorded responses of 3.10, and responses modelled on 4.1, give exactly the expected samples."""
    management.serve(HERE / "responses" / version)
    with collector(management.url) as made:
        found = lines(made, testing.collect(made))

    bts_golden.check(found, f"{version}.txt")


def test_a_broker_is_asked_no_more_than_is_needed(management: FakeManagement) -> None:
    """A scrape sends only the necessary requests."""
    with collector(management.url) as made:
        testing.collect(made)
        without = [path.partition("=")[0] for path in management.requests]
        management.requests.clear()
        management.serve(HERE / "responses" / "3.10")
        testing.collect(made)
        batch = [path.partition("=")[0] for path in management.requests]

    common = ["/api/overview", *CHECKS.values(), "/api/nodes", "/api/queues?columns"]
    assert without == common
    more = [f"/api/{name}?columns" for name in ("consumers", "stream/consumers", "exchanges")]
    assert batch == [*common, *more]


def test_there_is_one_identity(management: FakeManagement) -> None:
    """A scrape has exactly one identity."""
    with collector(management.url) as made:
        samples = testing.collect(made)

    assert samples["rabbitmq_identity_info"] == {("rabbit@one", "shop", "", "management"): 1}


@pytest.mark.parametrize(
    "part",
    [
        ("/api/nodes", "rabbitmq_node_running", "rabbitmq_queue_messages_ready"),
        ("/api/queues", "rabbitmq_queue_messages_ready", "rabbitmq_node_running"),
        ("/api/health/checks/alarms", "rabbitmq_health_check_ok", "rabbitmq_node_running"),
    ],
)
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (REFUSED, "noperm"),
        (answer({"error": "Internal Server Error"}, 500), "protocol"),
        (send(b"<html>"), "protocol"),
    ],
)
def test_a_request_without_answer_loses_only_its_own_metrics(
    management: FakeManagement, part: tuple[str, str, str], reply: Reply, reason: str
) -> None:
    """A failed request loses only its own metrics, and the collection names it."""
    path, lost, kept = part
    management.routes[path] = reply

    error, samples = failing(management.url)

    assert error.reason == reason
    assert f"{management.url}{path}" in str(error)
    assert lost not in samples
    assert samples["rabbitmq_up"] == {(): 1}
    assert kept in samples


@pytest.mark.parametrize("path", ["/api/nodes", "/api/health/checks/alarms"])
def test_a_request_that_hangs_leaves_time_for_the_others(
    management: FakeManagement, path: str
) -> None:
    """A request that hangs leaves time for the queues."""
    management.routes[path] = hang

    error, samples = failing(management.url, 2.0)

    assert error.reason == "timeout"
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "orders"): 7}


def test_without_the_list_of_consumers_auto_ack_consumers_are_unknown(
    management: FakeManagement,
) -> None:
    """If the list of consumers fails, only consumers with automatic acknowledgement are unknown."""
    management.serve(HERE / "responses" / "3.10")
    management.routes["/api/consumers"] = REFUSED

    error, samples = failing(management.url)

    assert error.reason == "noperm"
    assert ("/", "blind") not in samples["rabbitmq_queue_consumers_auto_ack"]
    assert samples["rabbitmq_queue_consumers"]["/", "blind"] == 1


def test_all_failures_are_named_and_the_first_gives_the_reason(management: FakeManagement) -> None:
    """The error contains all failures and the reason of the first."""
    management.routes["/api/nodes"] = REFUSED
    management.routes["/api/queues"] = send(b"[{")

    error, _ = failing(management.url)

    assert error.reason == "noperm"
    assert "/api/nodes: HTTP 401 (Not monitor user)" in str(error)
    assert "/api/queues: unexpected reply, not from a management API" in str(error)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer({"error": "not_authorized", "reason": "Login failed"}, 401), "auth"),
        (answer({"error": "not_authorised", "reason": "Not management user"}, 401), "noperm"),
        (answer({}, 403), "noperm"),
    ],
)
def test_a_user_who_is_not_let_in_is_not_tried_again_in_the_same_collection(
    management: FakeManagement, reply: Reply, reason: str
) -> None:
    """A refused login is tried once in a collection."""
    management.routes["/api/overview"] = reply

    error, samples = failing(management.url)

    assert error.reason == reason
    assert samples == {"rabbitmq_up": {(): 0}}
    assert management.requests == ["/api/overview"]


def test_nothing_listening_is_a_broker_that_is_down() -> None:
    """If the connection is refused, rabbitmq_up 0 is the only metric, and the reason is `refused`."""
    error, samples = failing(f"http://127.0.0.1:{free_port()}")

    assert error.reason == "refused"
    assert samples == {"rabbitmq_up": {(): 0}}


def test_a_broker_that_hangs_is_down_before_time_is_up(management: FakeManagement) -> None:
    """rabbitmq_up 0 is emitted before the deadline."""
    management.routes["/api/overview"] = hang

    error, samples = failing(management.url, 1.0)

    assert error.reason == "timeout"
    assert "no reply in time" in str(error)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_a_broker_whose_overview_fails_still_shows_its_queues(management: FakeManagement) -> None:
    """If only the overview fails, the broker is down but its queues are served."""
    management.routes["/api/overview"] = answer({"error": "Internal Server Error"}, 500)

    error, samples = failing(management.url)

    assert error.reason == "protocol"
    assert samples["rabbitmq_up"] == {(): 0}
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "orders"): 7}


def test_an_alarm_is_no_failure(management: FakeManagement) -> None:
    """The health check's 503 does not fail the collection."""
    management.routes["/api/health/checks/alarms"] = answer({"status": "failed"}, 503)
    with collector(management.url) as made:
        samples = testing.collect(made)

    assert samples["rabbitmq_health_check_ok"] == {("alarms",): 0}


def test_a_broker_without_the_health_check_has_no_sample_of_it(management: FakeManagement) -> None:
    """Before RabbitMQ 3.8.10 the check does not exist and has no metric."""
    del management.routes["/api/health/checks/alarms"]
    with collector(management.url) as made:
        samples = testing.collect(made)

    assert "rabbitmq_health_check_ok" not in samples


def test_a_broker_without_statistics_is_requested_totals_and_not_for_consumers(
    management: FakeManagement,
) -> None:
    """With disabled statistics, depths are served and consumers are not requested."""
    management.routes["/api/overview"] = answer({"disable_stats": True})
    with collector(management.url) as made:
        samples = testing.collect(made)

    listing = "/api/queues?disable_stats=true&enable_queue_totals=true&columns=name,vhost,"
    assert management.requests[-1].startswith(listing)
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "orders"): 7}
    assert samples["rabbitmq_management_stats_disabled"] == {(): 1}


def test_credentials_are_in_no_error(management: FakeManagement) -> None:
    """Errors contain no credentials."""
    for reply in (REFUSED, send(b"<html>"), answer({}, 500)):
        management.routes["/api/overview"] = reply
        error, _ = failing(management.url.replace("//", "//monitor:s3cret@"))

        assert "s3cret" not in str(error)


def test_of_the_node_that_answers_only_what_is_on_it_is_shown(management: FakeManagement) -> None:
    """With `scope: node`, sums over all nodes are those of the cluster."""
    management.routes["/api/overview"] = answer(
        {"node": "rabbit@two", "object_totals": {"queues": 2, "exchanges": 7}}
    )
    nodes = [{"name": name, "running": True} for name in ("rabbit@one", "rabbit@two")]
    management.routes["/api/nodes"] = answer(nodes)
    queues = [
        {"name": f"q-{node}", "vhost": "/", "node": node, "type": "classic", "messages_ready": 1}
        for node in ("rabbit@one", "rabbit@two", None)
    ]
    management.routes["/api/queues"] = answer(queues)
    config = COLLECTOR.Config(url=Url.from_setting(management.url), scope="node")
    made = COLLECTOR(config, lambda: NOW)
    samples = testing.collect(made)
    made.stop()

    assert samples["rabbitmq_node_running"] == {("rabbit@two",): 1}
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "q-rabbit@two"): 1}
    assert samples["messaging_backlog_messages"] == {("rabbitmq", "q-rabbit@two", ""): 1}
    assert "rabbitmq_queues" not in samples
    assert "/api/exchanges" not in {path.partition("?")[0] for path in management.requests}


def test_what_came_through_exchanges_is_shown(management: FakeManagement) -> None:
    """Exchanges of selected virtual hosts are served if there are not too many."""
    totals = {"node": "rabbit@one", "object_totals": {"exchanges": 7}}
    management.routes["/api/overview"] = answer(totals)
    stats = {"message_stats": {"publish_in": 3}}
    exchanges = [{"name": "amq.topic", "vhost": vhost} | stats for vhost in ("prod", "test")]
    management.routes["/api/exchanges"] = answer(exchanges)
    management.routes["/api/vhosts"] = answer([{"name": "prod"}, {"name": "test"}])
    management.routes["/api/queues/prod"] = answer([])
    unwanted = re.compile("test")
    config = COLLECTOR.Config(url=Url.from_setting(management.url), vhosts_exclude=unwanted)
    made = COLLECTOR(config)
    samples = testing.collect(made)
    made.stop()

    assert samples["rabbitmq_exchange_messages_published_total"] == {("prod", "amq.topic"): 3}


def test_without_settings_it_is_the_broker_on_this_machine() -> None:
    """The default settings fit a new RabbitMQ on the same machine."""
    assert str(COLLECTOR.Config().url) == "http://127.0.0.1:15672"
