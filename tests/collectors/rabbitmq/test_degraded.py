"""Brokers of which a part is down, stopped or switched off, in the shapes of RabbitMQ 3.10 and 4.x."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Scrape, TargetError, Url, testing
from servers.exporter import StartExporter
from servers.management import FakeManagement, answer, raw, send

ONE, TWO, THREE = "rabbit@one", "rabbit@two", "rabbit@three"
Samples = testing.Samples


@contextmanager
def collector(management: FakeManagement, **settings: Any) -> Iterator[RabbitMQ]:
    """Return a collector of the fake that is stopped in the end."""
    settings = {"url": Url.from_setting(management.url), "source": "management"} | settings
    made = COLLECTOR(COLLECTOR.Config(**settings))
    try:
        yield made
    finally:
        made.stop()


def collect(management: FakeManagement, **settings: Any) -> tuple[Samples, TargetError | None]:
    """Return the samples of one collection, and what it failed with."""
    with collector(management, **settings) as made:
        scrape = Scrape(monotonic() + 20)
        try:
            made.collect(scrape)
        except TargetError as error:
            return samples_of(scrape), error
        return samples_of(scrape), None


def samples_of(scrape: Scrape) -> Samples:
    """Return what was emitted by name: metrics of a page are declared nowhere."""
    return {metric.name: dict(found) for metric, found in scrape.samples.items()}


def queue(name: str, **fields: object) -> dict[str, object]:
    """Return a queue as it is listed."""
    depth = {"messages": 3, "messages_ready": 3, "messages_unacknowledged": 0}
    return {"name": name, "vhost": "/", "type": "classic", "state": "running"} | depth | fields


@pytest.mark.parametrize(
    "fields",
    [
        # A stopped virtual host: 3.10 lists zeros.
        {"state": "stopped", "messages": 0, "messages_ready": 0},
        {"state": "stopped", "type": "rabbit_classic_queue", "messages_ready": 0, "messages": 0},
        {"state": "down", "node": TWO},
        {"state": "crashed", "messages_ready": 0, "messages": 0},
        {"type": "quorum", "leader": None, "members": [ONE, TWO, THREE], "online": [ONE]},
        {"type": "quorum", "leader": "", "members": [ONE, TWO], "online": [ONE], "state": "down"},
        {"type": "quorum", "state": "minority", "members": [ONE, TWO, THREE], "online": [ONE]},
    ],
)
def test_a_queue_that_does_not_run_has_no_numbers(
    management: FakeManagement, fields: dict[str, object]
) -> None:
    """Zeros and old values of a queue that is not running are left out."""
    management.routes["/api/queues"] = answer([queue("dead", **fields), queue("alive")])

    samples, _ = collect(management)

    assert samples["messaging_backlog_messages"] == {("rabbitmq", "alive", ""): 3}
    assert ("rabbitmq", "dead", "") not in samples.get("messaging_lag_seconds", {})
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "alive"): 3}
    assert ("/", "dead", str(fields.get("state", "running"))) in samples["rabbitmq_queue_state"]


def test_quorum_queues_that_do_not_work_are_counted(management: FakeManagement) -> None:
    """Quorum queues without a leader or majority are counted."""
    members = {"type": "quorum", "members": [ONE, TWO, THREE]}
    management.routes["/api/queues"] = answer(
        [
            queue("well", leader=ONE, online=[ONE, TWO], **members),
            queue("headless", leader=None, online=[ONE, TWO], **members),
            queue("minority", leader=ONE, online=[ONE], **members),
            queue("neither", leader="", online=[], **members),
        ]
    )

    samples, _ = collect(management)

    assert samples["rabbitmq_quorum_queues_without_leader"] == {(): 2}
    assert samples["rabbitmq_quorum_queues_without_majority"] == {(): 2}
    expected = {"well": 1, "headless": 0, "minority": 1, "neither": 0}
    leaders = {name: value for (_, name), value in samples["rabbitmq_queue_has_leader"].items()}
    assert leaders == expected


def test_a_queue_whose_numbers_were_missing_goes_on_where_it_was(
    management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages keep their age while a virtual host is stopped."""
    now = 0.0
    monkeypatch.setattr("bts_collectors.rabbitmq.management.source.Lags", clock_of(lambda: now))
    key = ("rabbitmq", "orders", "")
    stats = {"publish": 3}
    full = answer([queue("orders", message_stats=stats, consumers=1)])
    stopped = answer([queue("orders", state="stopped", messages_ready=0, messages=0)])
    empty = answer([queue("orders", messages_ready=0, messages=0, message_stats={})])
    with collector(management) as made:
        lags = []
        for now, reply in ((0, empty), (30, full), (60, stopped), (90, stopped), (120, full)):  # noqa: B007
            management.routes["/api/queues"] = reply
            lags.append(testing.collect(made).get("messaging_lag_seconds", {}).get(key))

    assert lags[2:4] == [None, None]
    assert lags[4] is not None
    assert lags[4] >= 90


def clock_of(clock: Callable[[], float]) -> Callable[[], object]:
    """Return a maker of lags with another clock."""
    from bts_collectors.rabbitmq.metrics.lag import Lags  # noqa: PLC0415  # replaced where it is used

    return lambda: Lags(clock)


def test_each_running_node_has_its_version(management: FakeManagement) -> None:
    """Build info has one series for each running node."""
    overview = {
        "node": ONE,
        "rabbitmq_version": "4.1.3",
        "erlang_version": "27.3.4",
        "product_name": "RabbitMQ",
        "product_version": "4.1.3",
    }
    management.routes["/api/overview"] = answer(overview)
    other = [{"name": "kernel", "version": "10.2"}, {"name": "rabbit", "version": "4.0.9"}]
    management.routes["/api/nodes"] = answer(
        [
            {"name": ONE, "running": True, "being_drained": False},
            {"name": TWO, "running": True, "being_drained": True, "applications": other},
            {"name": THREE, "running": False},
        ]
    )

    samples, _ = collect(management)

    assert samples["rabbitmq_build_info"] == {
        ("4.1.3", "27.3.4", "RabbitMQ", "4.1.3", ONE): 1,
        ("4.0.9", "", "RabbitMQ", "4.0.9", TWO): 1,
    }
    assert samples["rabbitmq_node_being_drained"] == {(ONE,): 0, (TWO,): 1}


def test_what_could_not_be_routed_has_the_names_of_public_rules(
    management: FakeManagement,
) -> None:
    """Unroutable messages have the names that public rules use."""
    stats = {"drop_unroutable": 5, "return_unroutable": 7}
    management.routes["/api/overview"] = answer({"message_stats": stats, "rates_mode": "none"})

    samples, _ = collect(management)

    assert samples["rabbitmq_channel_messages_unroutable_dropped_total"] == {(): 5}
    assert samples["rabbitmq_channel_messages_unroutable_returned_total"] == {(): 7}
    assert samples["rabbitmq_management_rates_mode_info"] == {("none",): 1}


def test_names_of_alerts_for_single_queues(management: FakeManagement) -> None:
    """Queues also have the names that RabbitMQ's own alerts use."""
    management.routes["/api/queues"] = answer([queue("orders", consumers=2)])

    samples, _ = collect(management)

    assert samples["rabbitmq_detailed_queue_messages"] == {("/", "orders"): 3}
    assert samples["rabbitmq_detailed_queue_consumers"] == {("/", "orders"): 2}


def test_of_many_queues_those_that_the_node_leads_are_shown_whatever_their_type(
    management: FakeManagement,
) -> None:
    """With `scope: node` and totals only, queues of all types on the node are served."""
    management.routes["/api/overview"] = answer({"node": ONE, "object_totals": {"queues": 6}})
    quorum = {"type": "quorum", "members": [ONE, TWO], "online": [ONE, TWO]}
    listed = [
        queue("classic", node=ONE),
        queue("not-mine", node=TWO),
        queue("quorum", leader=ONE, **quorum),
        queue("led-elsewhere", leader=TWO, **quorum),
        {"name": "log", "vhost": "/", "type": "stream", "state": "running", "totals": None},
        {"name": "other-log", "vhost": "/", "type": "stream", "state": "running"},
    ]
    management.routes["/api/queues"] = answer(listed)
    for name, node in (("log", ONE), ("other-log", TWO)):
        found = {"name": name, "vhost": "/", "node": node}
        management.routes[f"/api/queues/%2F/{name}"] = answer(found)

    samples, error = collect(management, scope="node", max_detailed_queues=3)

    assert error is None
    shown = {name for _, name, *_ in samples["rabbitmq_queue_info"]}
    assert shown == {"classic", "quorum", "log"}


@pytest.mark.parametrize(
    ("odd", "lost"),
    [
        ({"name": 5, "vhost": []}, set()),
        ({"name": "odd"}, set()),
        (None, set()),
        ([], set()),
        ({"name": "odd", "vhost": "/", "messages_ready": {"a": 1}}, {"odd"}),
        ({"name": "odd", "vhost": "/", "state": 7, "messages_ready": 2}, set()),
    ],
)
def test_one_invalid_queue_loses_only_itself(
    management: FakeManagement, odd: object, lost: set[str]
) -> None:
    """An invalid queue or field is left out, and the collection fails with its position."""
    management.routes["/api/queues"] = answer([queue("a"), odd, queue("b")])

    samples, error = collect(management)

    assert error is not None
    assert error.reason == "protocol"
    assert "an invalid item or field is left out" in str(error)
    backlog = samples["messaging_backlog_messages"]
    assert {("rabbitmq", "a", ""), ("rabbitmq", "b", "")} <= backlog.keys()
    assert not any(name in lost for _, name, _ in backlog)


def test_a_name_that_is_not_utf8_loses_nothing_else(management: FakeManagement) -> None:
    """Invalid bytes in a name become replacement characters."""
    body = b'[{"name": "a\xff", "vhost": "/", "messages_ready": 1}, {"name": "b", "vhost": "/"}]'
    management.routes["/api/queues"] = send(body)

    samples, error = collect(management)

    assert error is not None
    assert "UTF-8" in str(error)
    assert samples["messaging_backlog_messages"] == {("rabbitmq", "a\ufffd", ""): 1}


def test_one_invalid_field_of_the_overview_loses_only_itself(management: FakeManagement) -> None:
    """An invalid field of the overview is left out, and the broker is up."""
    management.routes["/api/overview"] = answer(
        {"node": ONE, "cluster_name": ["shop"], "object_totals": {"queues": 1}}
    )

    samples, error = collect(management)

    assert error is not None
    assert samples["rabbitmq_up"] == {(): 1}
    assert samples["rabbitmq_queues"] == {(): 1}


def test_a_user_who_may_see_nothing_has_no_permission(management: FakeManagement) -> None:
    """An empty list of queues on a broker with queues is a missing permission."""
    management.routes["/api/overview"] = answer({"object_totals": {"queues": 14}})
    management.routes["/api/queues"] = answer([])

    samples, error = collect(management)

    assert error is not None
    assert error.reason == "noperm"
    assert "any of the 14 queues" in str(error)
    assert "set_permissions" in str(error)
    assert samples["rabbitmq_permission_gap"] == {(): 14}


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (raw(b"AMQP\0\0\x09\x01"), "protocol", "this is a port of AMQP"),
        (raw(b"\x15\x03\x03\0\x02\x02\x0a"), "protocol", "https://"),
        (
            raw(
                b"HTTP/1.1 302 Found\r\nLocation: https://sso.example/login?token=s3cret\r\n"
                b"Content-Length: 0\r\n\r\n"
            ),
            "protocol",
            "redirects to https://sso.example/login;",
        ),
        (send(b"{}", 404), "protocol", "15692"),
        (raw(b""), "unreachable", "15672"),
    ],
)
def test_a_wrong_port_or_address_is_named_with_its_cure(
    management: FakeManagement, reply: Any, reason: str, words: str
) -> None:
    """The error for another service at the address contains the advice."""
    management.routes["/api/overview"] = reply

    samples, error = collect(management)

    assert error is not None
    assert error.reason == reason
    assert words in str(error)
    assert "s3cret" not in str(error)
    assert samples["rabbitmq_up"] == {(): 0}


def test_a_password_that_was_changed_in_its_file_is_read_again(
    management: FakeManagement, exporter: StartExporter, tmp_path: Path
) -> None:
    """A rotated password is used without a reload."""
    secret = tmp_path / "password"
    secret.write_text("old")
    refused = answer({"error": "not_authorized", "reason": "Login failed"}, 401)
    process = exporter(
        "plugins: none\ncollectors:\n  rabbitmq:\n"
        f"    url: http://monitor@127.0.0.1:{management.port}\n"
        f"    password: !file {secret}\n"
    )
    assert process.value("rabbitmq_up") == 1
    welcome = management.routes["/api/overview"]

    def check(handler: Any) -> None:
        new = handler.headers["Authorization"] == "Basic bW9uaXRvcjpuZXc="
        (welcome if new else refused)(handler)

    management.routes["/api/overview"] = check
    before = process.value("rabbitmq_up")
    secret.write_text("new")

    assert before == 0
    assert process.value("rabbitmq_up") == 1


PAGE = """\
# TYPE rabbitmq_build_info untyped
# HELP rabbitmq_build_info RabbitMQ & Erlang/OTP version info
rabbitmq_build_info{rabbitmq_version="4.0.2"} 1
# TYPE rabbitmq_global_messages_received_total counter
# HELP rabbitmq_global_messages_received_total Total number of messages received from publishers
rabbitmq_global_messages_received_total{protocol="amqp091"} 99
rabbitmq_global_messages_received_total{protocol="stream"} 7
# TYPE rabbitmq_global_messages_unroutable_dropped_total counter
# HELP rabbitmq_global_messages_unroutable_dropped_total Total
rabbitmq_global_messages_unroutable_dropped_total{protocol="amqp091"} 2
rabbitmq_global_messages_unroutable_dropped_total{protocol="mqtt50"} 3
# TYPE rabbitmq_raft_term_total counter
# HELP rabbitmq_raft_term_total Current Raft term number
rabbitmq_raft_term_total{vhost="/",queue="q"} 4
rabbitmq_raft_term_total{vhost="/",queue="q"} 4
"""
#: As RabbitMQ 4.0.0 to 4.0.2 write it: the label `vhost` is there twice.
DETAILED = (
    PAGE
    + """\
# TYPE rabbitmq_detailed_queue_messages_ready gauge
# HELP rabbitmq_detailed_queue_messages_ready Messages ready to be delivered to consumers
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="q"} 5
# TYPE rabbitmq_detailed_queue_messages_ram gauge
# HELP rabbitmq_detailed_queue_messages_ram Messages in memory
rabbitmq_detailed_queue_messages_ram{vhost="/",queue="q"} 5
# TYPE rabbitmq_detailed_queue_exchange_messages_published_total counter
# HELP rabbitmq_detailed_queue_exchange_messages_published_total Total
rabbitmq_detailed_queue_exchange_messages_published_total{vhost="/",queue="q",vhost="/",exchange="a"} 10
rabbitmq_detailed_queue_exchange_messages_published_total{vhost="/",queue="q",vhost="/",exchange="b"} 1
"""
)


def test_a_page_with_repeated_labels_and_series_is_understood(management: FakeManagement) -> None:
    """Repeated labels and series of some versions are accepted."""
    management.routes["/metrics"] = send(PAGE.encode())
    management.routes["/metrics/detailed"] = send(DETAILED.encode())

    samples, error = collect(management, source="prometheus")

    assert error is None
    assert samples["rabbitmq_queue_messages_published_total"] == {("/", "q"): 11}
    assert samples["rabbitmq_raft_term_total"] == {("q", "/"): 4}
    assert samples["rabbitmq_channel_messages_unroutable_dropped_total"] == {(): 5}


def test_protocols_that_the_management_api_does_not_count_are_taken_from_the_node(
    management: FakeManagement,
) -> None:
    """Each protocol is counted once, by one source."""
    management.routes["/api/overview"] = answer({"message_stats": {"publish": 100}})
    management.routes["/metrics"] = send(PAGE.encode())

    samples, error = collect(management, native=Url.from_setting(management.url))

    assert error is None
    received = samples["rabbitmq_global_messages_received_total"]
    assert received == {("amqp091",): 100, ("stream",): 7}


def test_a_long_line_of_a_page_takes_no_longer_than_its_length(
    management: FakeManagement, exporter: StartExporter
) -> None:
    """Labels of a long line are read in linear time."""
    lines = b"".join(
        b"evil{%s} 1\n" % labels
        for labels in (b"a" * 5_000_000, b'a="' * 1_000_000, b'a="",' * 1_000_000)
    )
    page = PAGE.encode() + b"# TYPE evil gauge\n# HELP evil x\n" + lines
    packed = gzip.compress(page)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    management.routes["/metrics"] = raw(head.encode() + packed)
    process = exporter(
        f"plugins: none\ncollectors:\n  rabbitmq: {{url: {json.dumps(management.url)},"
        f" native: {json.dumps(management.url)}}}\n"
    )

    _, text = process.get("/metrics")

    assert '\nrabbitmq_raft_term_total{queue="q",vhost="/"} 4\n' in text


def test_a_page_of_too_many_metrics_is_refused(management: FakeManagement) -> None:
    """A page with too many families is an error, and the management API's metrics are served."""
    many = "".join(f"# TYPE evil_{n} gauge\n# HELP evil_{n} x\nevil_{n} 1\n" for n in range(20_000))
    management.routes["/metrics"] = send((PAGE + many).encode())

    samples, error = collect(management, native=Url.from_setting(management.url))

    assert error is not None
    assert error.reason == "protocol"
    assert "evil_1" not in samples
    assert samples["rabbitmq_up"] == {(): 1}


def test_a_lag_survives_a_time_with_too_many_queues_for_details(
    management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts that were not requested are unknown, not 0, so the history continues."""
    now = 0.0
    monkeypatch.setattr("bts_collectors.rabbitmq.management.source.Lags", clock_of(lambda: now))
    orders = queue("orders", consumers=1)
    key = ("rabbitmq", "orders", "")

    def listing(queues: list[dict[str, object]], stats: dict[str, int]) -> Callable[[Any], None]:
        def reply(handler: Any) -> None:
            detailed = "disable_stats" not in handler.path
            found = [orders | {"message_stats": stats} if detailed else orders, *queues]
            answer(found)(handler)

        return reply

    consumer = {"queue": {"name": "orders", "vhost": "/"}, "ack_required": True}
    management.routes["/api/consumers"] = answer([consumer])
    others = [queue(f"other-{number}", consumers=0) for number in range(3)]
    lags = []
    with collector(management, max_detailed_queues=2) as made:
        for now, ready, published, listed in (  # noqa: B007  # read by the clock
            (0, 0, 0, []),
            (5, 3, 3, []),
            (30, 3, 3, []),
            (35, 3, 3, others),
            (40, 3, 3, others),
            (45, 3, 3, others),
            (50, 3, 3, []),
            (60, 3, 3, []),
        ):
            orders |= {"messages": ready, "messages_ready": ready}
            management.routes["/api/queues"] = listing(listed, {"publish": published})
            samples = testing.collect(made)
            lags.append(samples.get("messaging_lag_seconds", {}).get(key))

    assert lags[2] == pytest.approx(30)
    assert all(lag is None or lag >= 25 for lag in lags[3:7])
    assert lags[7] == 60
