from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Metric, Scrape, TargetError, Url, testing
from servers import free_port
from servers.management import FakeManagement, Reply, answer, drip, hang, raw, send

PAGES = Path(__file__).parents[1] / "responses" / "native"
PAGE = (PAGES / "3.10-metrics.txt").read_bytes()
NODE = ("rabbit@one",)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

Samples = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def exporter(management: FakeManagement) -> FakeManagement:
    """Return a fake of RabbitMQ's own exporter."""
    management.routes.clear()
    management.routes["/metrics"] = send(PAGE)
    management.routes["/metrics/detailed"] = send((PAGES / "3.10-detailed.txt").read_bytes())
    return management


@contextmanager
def collector(url: str, **settings: object) -> Iterator[RabbitMQ]:
    """Return a collector that is stopped in the end."""
    config = COLLECTOR.Config(url=Url.from_setting(url), **settings)  # type: ignore[arg-type]
    made = COLLECTOR(config, lambda: 1_700_000_600.0)
    try:
        yield made
    finally:
        made.stop()


def collect(made: RabbitMQ, seconds: float = 20.0) -> tuple[Samples, TargetError | None]:
    """Return the samples of one collection, passed on ones too, and the error that it ends in."""
    scrape = Scrape(monotonic() + seconds)
    failure = None
    try:
        made.collect(scrape)
    except TargetError as error:
        failure = error
    assert scrape.losses == []
    return {metric.name: dict(values) for metric, values in scrape.samples.items()}, failure


def from_native(url: str, seconds: float = 20.0) -> tuple[Samples, TargetError | None]:
    """Return what one collection with RabbitMQ's own exporter as the source gives."""
    with collector(url, source="prometheus") as made:
        return collect(made, seconds)


def test_there_is_one_identity_with_the_clusters_permanent_id(exporter: FakeManagement) -> None:
    """The page's identity is emitted once, with the permanent id of the cluster."""
    samples, failure = from_native(exporter.url)

    assert failure is None
    identity = ("rabbit@one", "shop", "rabbitmq-cluster-id-1", "aggregated")
    assert samples["rabbitmq_identity_info"] == {identity: 1}
    assert samples["rabbitmq_build_info"] == {("3.10.8", "25.2.3", "", "", "rabbit@one"): 1}
    assert samples["rabbitmq_up"] == {(): 1}


def test_what_the_management_api_has_too_has_the_same_labels(exporter: FakeManagement) -> None:
    """Metrics that both sources have get the same labels."""
    samples, _ = from_native(exporter.url)

    assert samples["rabbitmq_process_open_fds"] == {NODE: 41}
    assert samples["rabbitmq_alarms_memory_used_watermark"] == {NODE: 0}
    assert samples["rabbitmq_erlang_uptime_seconds"] == {NODE: 52.981}
    assert samples["rabbitmq_queue_index_read_ops_total"] == {NODE: 0}
    assert samples["rabbitmq_connections"] == {(): 1}
    assert samples["rabbitmq_global_messages_received_total"]["amqp091",] == 15
    delivered = samples["rabbitmq_global_messages_delivered_total"]
    assert delivered["amqp091", "rabbit_quorum_queue"] == 2


def test_alarms_and_connections_of_nodes_name_node_and_cluster(exporter: FakeManagement) -> None:
    """Metrics of the node have its name, and connections also that of the cluster, as rules expect."""
    page = (
        b"# TYPE rabbitmq_alarms_file_descriptor_limit untyped\n"
        b"rabbitmq_alarms_file_descriptor_limit 0\n"
        b"# TYPE erlang_vm_dist_node_state gauge\n"
        b'erlang_vm_dist_node_state{peer="rabbit@two"} 3\n'
    )
    exporter.routes["/metrics"] = send(PAGE + page)

    samples, _ = from_native(exporter.url)

    (cluster,) = (labels[1] for labels in samples["rabbitmq_identity_info"])
    assert samples["erlang_vm_dist_node_state"] == {("rabbit@one", "rabbit@two", cluster): 3}
    assert cluster
    assert samples["rabbitmq_alarms_file_descriptor_limit"] == {NODE: 0}


def test_queues_are_there_one_by_one_and_not_as_sums(exporter: FakeManagement) -> None:
    """Sums over queues are left out, since each queue has its own series."""
    samples, _ = from_native(exporter.url)

    assert samples["rabbitmq_queue_messages_ready"]["/", "cq"] == 2
    assert samples["rabbitmq_queue_messages_ready"]["/", 'we"ird\\q/ü'] == 0
    assert "rabbitmq_queue_process_reductions_total" not in samples
    assert "rabbitmq_queue_messages_published_total" not in samples


def test_depth_is_backlog_and_the_log_of_a_stream_is_none(exporter: FakeManagement) -> None:
    """Depth is emitted as backlog, except for streams."""
    samples, _ = from_native(exporter.url)

    assert samples["messaging_backlog_messages"]["rabbitmq", "cq", ""] == 2
    assert samples["messaging_in_flight_messages"]["rabbitmq", "cq", ""] == 3
    assert ("rabbitmq", "sq", "") not in samples["messaging_backlog_messages"]


def test_what_only_this_source_has_is_passed_on(exporter: FakeManagement) -> None:
    """Other families keep name, type, help and labels."""
    with collector(exporter.url, source="prometheus") as made:
        scrape = Scrape(monotonic() + 20)
        made.collect(scrape)
    named = {metric.name: metric for metric in scrape.samples}

    assert named["rabbitmq_auth_attempts_total"].labels == ("protocol",)
    assert named["rabbitmq_auth_attempts_total"].kind == "counter"
    assert named["rabbitmq_auth_attempts_total"].help == "Total number of authorization attempts"
    assert scrape.samples[named["rabbitmq_raft_term_total"]] == {(): 1}
    assert scrape.samples[named["erlang_vm_time_correction"]] == {(): 1}


def test_what_would_be_untrue_is_not_passed_on(exporter: FakeManagement) -> None:
    """Metrics of the broker's process, and sums that fall, are left out."""
    samples, _ = from_native(exporter.url)

    assert "process_start_time_seconds" not in samples
    assert "telemetry_scrape_duration_seconds" not in samples
    assert "rabbitmq_channel_messages_published_total" not in samples
    assert "rabbitmq_connection_incoming_bytes_total" not in samples
    assert samples["rabbitmq_connection_pending_packets"] == {(): 0}


def test_a_page_of_4_1_has_the_lag_of_streams_and_sums_that_are_ours_by_object(
    exporter: FakeManagement,
) -> None:
    """A sum with the name of one of our metrics by object is left out."""
    exporter.routes["/metrics"] = send(
        PAGE
        + b"# TYPE rabbitmq_stream_consumer_max_offset_lag gauge\n"
        + b"rabbitmq_stream_consumer_max_offset_lag 4\n"
        + b"# TYPE rabbitmq_exchange_messages_published_total counter\n"
        + b"rabbitmq_exchange_messages_published_total 3\n"
    )
    detailed = (PAGES / "4.1-detailed.txt").read_bytes()
    exporter.routes["/metrics/detailed"] = send(detailed)

    samples, failure = from_native(exporter.url)

    assert failure is None
    assert samples["rabbitmq_stream_consumer_max_offset_lag"] == {("prod", "log"): 4}
    assert "rabbitmq_exchange_messages_published_total" not in samples
    assert samples["rabbitmq_queue_messages_published_total"] == {("/", "orders"): 18}


def test_histograms_and_series_by_channel(exporter: FakeManagement) -> None:
    """Histograms are passed on completely; series by channel are left out."""
    exporter.routes["/metrics"] = send(
        PAGE
        + b"# TYPE rabbitmq_message_size_bytes histogram\n"
        + b"# HELP rabbitmq_message_size_bytes Size\n"
        + b'rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="100"} 2\n'
        + b'rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="+Inf"} 3\n'
        + b'rabbitmq_message_size_bytes_count{protocol="amqp091"} 3\n'
        + b'rabbitmq_message_size_bytes_sum{protocol="amqp091"} 900\n'
        + b"# TYPE rabbitmq_channel_prefetch gauge\n"
        + b'rabbitmq_channel_prefetch{channel="<0.1.0>"} 3\n'
    )

    samples, failure = from_native(exporter.url)

    assert failure is None
    assert samples["rabbitmq_message_size_bytes"] == {
        ("_bucket", "amqp091", "100"): 2,
        ("_bucket", "amqp091", "+Inf"): 3,
        ("_count", "amqp091"): 3,
        ("_sum", "amqp091"): 900,
    }
    assert samples.get("rabbitmq_channel_prefetch", {}) == {}


def test_series_are_the_same_objects_at_each_scrape(exporter: FakeManagement) -> None:
    """Metric objects are reused between scrapes, so that the engine reuses rendered series."""
    found: list[dict[str, Metric]] = []
    with collector(exporter.url, source="prometheus") as made:
        for _ in range(2):
            scrape = Scrape(monotonic() + 20)
            made.collect(scrape)
            found.append({metric.name: metric for metric in scrape.samples})

    assert all(found[0][name] is metric for name, metric in found[1].items())


def test_a_broker_that_shows_queues_on_its_page_shows_them_once(exporter: FakeManagement) -> None:
    """Queues are emitted once with prometheus.return_per_object_metrics."""
    by_queue = b'# TYPE rabbitmq_queue_messages_ready gauge\nrabbitmq_queue_messages_ready{vhost="/",queue="cq"} 2\n'
    exporter.routes["/metrics"] = send(PAGE + by_queue)

    samples, failure = from_native(exporter.url)

    assert failure is None
    assert samples["rabbitmq_queue_messages_ready"]["/", "cq"] == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(answer({}, 401), "auth", id="401"),
        pytest.param(answer({}, 403), "noperm", id="403"),
        pytest.param(answer({}, 404), "protocol", id="404"),
        pytest.param(answer({}, 500), "protocol", id="500"),
        pytest.param(answer({}, 799), "protocol", id="an unknown status"),
        pytest.param(send(b"<html>Login</html>"), "protocol", id="HTML"),
        pytest.param(
            send(b"# TYPE go_goroutines gauge\ngo_goroutines 3\n"), "protocol", id="not RabbitMQ"
        ),
        pytest.param(send(b"\xff\xfe\x00"), "protocol", id="no text"),
        pytest.param(
            raw(HEAD + b"Content-Length: 90000\r\n\r\n# TYPE"), "unreachable", id="cut off"
        ),
        pytest.param(hang, "timeout", id="hang"),
        pytest.param(drip(HEAD + b"\r\n", b"#", 60, b""), "timeout", id="drip"),
    ],
)
def test_a_page_that_cannot_be_had_has_a_reason_and_the_place(
    exporter: FakeManagement, reply: Reply, reason: str
) -> None:
    """A failed page has a reason and an address, within the deadline."""
    exporter.routes["/metrics"] = reply

    samples, failure = from_native(exporter.url, 1.0 if reason == "timeout" else 20.0)

    assert failure is not None
    assert failure.reason == reason
    assert f"{exporter.url}/metrics" in str(failure)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_nothing_listening_names_the_plug_in() -> None:
    """The error contains the command that enables the plugin."""
    samples, failure = from_native(f"http://127.0.0.1:{free_port()}")

    assert failure is not None
    assert failure.reason == "refused"
    assert "rabbitmq-plugins enable rabbitmq_prometheus" in str(failure)
    assert samples == {"rabbitmq_up": {(): 0}}


@pytest.mark.parametrize("reply", [answer({}, 404), send(b"<html>"), raw(b"")])
def test_queues_that_cannot_be_had_lose_only_the_queues(
    exporter: FakeManagement, reply: Reply
) -> None:
    """If the request for queues fails, metrics of the node are still served."""
    exporter.routes["/metrics/detailed"] = reply

    samples, failure = from_native(exporter.url)

    assert failure is not None
    assert "/metrics/detailed" in str(failure)
    assert samples["rabbitmq_up"] == {(): 1}
    assert samples["rabbitmq_process_open_fds"] == {NODE: 41}
    assert "rabbitmq_queue_messages_ready" not in samples


# Beside the management API


@pytest.fixture
def both(management: FakeManagement) -> FakeManagement:
    """Return a fake that is a management API and RabbitMQ's own exporter."""
    management.routes["/metrics"] = send(PAGE)
    return management


def test_beside_the_management_api_it_adds_what_it_lacks(both: FakeManagement) -> None:
    """With `native` there is one identity, each queue once, and no metric with values of both sources."""
    with collector(both.url, native=Url.from_setting(both.url)) as made:
        samples, failure = collect(made)

    assert failure is None
    assert samples["rabbitmq_identity_info"] == {("rabbit@one", "shop", "", "management"): 1}
    assert samples["rabbitmq_queue_messages_ready"] == {("/", "orders"): 7}
    assert samples["rabbitmq_node_running"] == {NODE: 1}
    assert samples["rabbitmq_auth_attempts_total"] == {("amqp091",): 1}
    assert "/metrics/detailed" not in {path.partition("?")[0] for path in both.requests}


def test_counts_of_a_cluster_without_statistics_come_from_the_node(both: FakeManagement) -> None:
    """Counters that the management API does not have come from the node."""
    overview = {"node": "rabbit@one", "disable_stats": True}
    both.routes["/api/overview"] = answer(overview)
    name = b"rabbitmq_global_messages_unroutable_dropped_total"
    dropped = b'# TYPE %s counter\n%s{protocol="amqp091"} 2\n' % (name, name)
    both.routes["/metrics"] = send(PAGE + dropped)
    with collector(both.url, native=Url.from_setting(both.url)) as made:
        samples, failure = collect(made)

    assert failure is None
    assert samples["rabbitmq_global_messages_received_total"]["amqp091",] == 15
    assert samples["rabbitmq_channel_messages_unroutable_dropped_total"] == {(): 2}


@pytest.mark.parametrize("path", ["/metrics", "/api/overview"])
def test_one_of_the_two_that_fails_loses_only_its_own_metrics(
    both: FakeManagement, path: str
) -> None:
    """If one source fails, the other is served."""
    both.routes[path] = answer({"error": "not_authorized", "reason": "Login failed"}, 401)
    with collector(both.url, native=Url.from_setting(both.url)) as made:
        samples, failure = collect(made)

    assert failure is not None
    assert failure.reason == "auth"
    assert f"{both.url}{path}" in str(failure)
    assert samples["rabbitmq_up"] == {(): float(path == "/metrics")}
    assert ("rabbitmq_auth_attempts_total" in samples) is (path != "/metrics")


def test_secrets_are_in_no_error(both: FakeManagement) -> None:
    """Errors contain no credentials."""
    both.routes["/metrics"] = answer({}, 500)
    url = both.url.replace("//", "//monitor:s3cret@")
    with collector(both.url, native=Url.from_setting(url)) as made:
        _, failure = collect(made)

    assert failure is not None
    assert "s3cret" not in str(failure)


def test_metrics_of_the_collector_are_declared(exporter: FakeManagement) -> None:
    """All emitted metrics are declared, except families that are passed on."""
    exporter.routes["/metrics"] = send(
        b"".join(b"# TYPE " + block for block in PAGE.split(b"# TYPE ") if b"_info{" in block)
    )
    with collector(exporter.url, source="prometheus") as made:
        assert "rabbitmq_queue_consumers" in testing.collect(made)
