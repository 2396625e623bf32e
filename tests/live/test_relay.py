"""Pages of real programs on our page, and relays that lead to ourselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_to_families

from servers import Process, free_port, listens, need, wait_until
from servers.exporter import Exporter, StartExporter
from servers.prometheus import Prometheus, promtool_check_metrics
from servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.live

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}


@pytest.fixture
def node_exporter(tmp_path: Path) -> Iterator[str]:
    """Start node_exporter; return its address."""
    port = free_port()
    program = need("prometheus-node-exporter", "prometheus-node-exporter")
    process = Process([program, f"--web.listen-address=127.0.0.1:{port}"], tmp_path)
    process.ready(lambda: listens(port))
    yield f"http://127.0.0.1:{port}"
    process.kill()


def check_page(server: Exporter) -> str:
    """Return the page, which strict readers of both formats accept."""
    status, page = server.get("/metrics")
    assert status == 200
    promtool_check_metrics(page)
    list(text_string_to_metric_families(server.get("/metrics", OPENMETRICS)[1]))
    return page


def test_page_of_node_exporter(exporter: StartExporter, node_exporter: str) -> None:
    """Each series is there, with name, type, help and labels as node_exporter has them."""
    server = exporter(
        f"collectors:\n  relay: {{name: vm, url: '{node_exporter}', labels: {{site: north}}}}\n"
    )

    page = check_page(server)
    ours = {family.name: family for family in text_to_families(page)}
    direct = server.samples("/probe?target=vm")
    assert ours["node_cpu_seconds"].type == "counter"
    assert ours["node_cpu_seconds"].documentation == "Seconds the CPUs spent in each mode."
    assert ours["go_gc_duration_seconds"].type == "summary"
    assert 'node_cpu_seconds_total{cpu="0",mode="user",target="vm",site="north"}' in page
    assert len(direct) > 300
    assert server.value("bts_exporter_collector_success", collector="relay", target="vm") == 1
    # Of the process that it comes from, next to ours.
    assert server.value("process_open_fds", target="vm", site="north") is not None
    assert server.value("process_open_fds") is not None


def test_page_of_rabbitmq(exporter: StartExporter, rabbitmq: RabbitMQ) -> None:
    """Its summaries are kept whole; filters of the settings see the names with the prefix."""
    server = exporter(
        "collectors:\n"
        f"  relay: {{url: '{rabbitmq.native_url}', prefix: mq_, metrics: {{deny: ['mq_erlang_*']}}}}\n"
    )

    page = check_page(server)
    assert "\nmq_rabbitmq_build_info{" in page
    # It has none before its first scrape.
    assert "\nmq_telemetry_scrape_duration_seconds_sum{" in check_page(server)
    assert "\nmq_erlang_" not in page
    assert server.value("relay_up") == 1


def test_relay_of_ourselves_ends_at_once(exporter: StartExporter, tmp_path: Path) -> None:
    """A relay that leads back to the exporter is refused, and does not wait until the deadline."""
    port = free_port()
    server = exporter(
        f"scrape_timeout: 60s\ncollectors:\n  relay: {{url: 'http://127.0.0.1:{port}/metrics'}}\n",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    assert server.value("relay_up") == 0
    wait_until(
        lambda: "HTTP 508; a bts-exporter is not relayed" in server.log.read_text(),
        "the line in the log",
    )


def test_relays_of_each_other_end_at_once(exporter: StartExporter) -> None:
    """Two exporters that relay each other do not wait for each other."""
    port = free_port()
    first = exporter(
        f"scrape_timeout: 60s\ncollectors:\n  relay: {{url: 'http://127.0.0.1:{port}/metrics'}}\n"
    )
    second = exporter(
        f"scrape_timeout: 60s\ncollectors:\n  relay: {{url: 'http://{first.address}/metrics'}}\n",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    assert (first.value("relay_up"), second.value("relay_up")) == (0, 0)


def test_metrics_of_other_collectors_win(exporter: StartExporter, tmp_path: Path) -> None:
    """What another collector serves already is left out of the relay, counted, and the rest is served."""
    page = tmp_path / "metrics"
    page.write_text(
        "# TYPE node_load1 counter\nnode_load1 7\n"
        "# TYPE process_open_fds gauge\nprocess_open_fds 1\nshop_orders 3\n"
    )
    port = free_port()
    argv = ["python3", "-m", "http.server", "--bind=127.0.0.1", str(port)]
    files = Process(argv, tmp_path)
    try:
        files.ready(lambda: listens(port))
        server = exporter(
            f"collectors:\n  host: {{}}\n  relay: {{url: 'http://127.0.0.1:{port}'}}\n"
        )
        text = check_page(server)

        assert "# TYPE node_load1 gauge" in text
        assert server.value("shop_orders") == 3
        assert server.value("process_open_fds") != 1
        labels = {"collector": "relay", "target": "", "reason": "conflict"}
        assert server.value("bts_exporter_collector_errors_total", **labels)
    finally:
        files.kill()


def test_prometheus_stores_what_is_relayed(
    exporter: StartExporter,
    node_exporter: str,
    prometheus: Callable[[list[str]], Prometheus],
) -> None:
    """A scrape by Prometheus has the target's label, and an instance of the exporter."""
    server = exporter(f"collectors:\n  relay: {{name: vm, url: '{node_exporter}'}}\n")
    stored = prometheus([server.address])
    stored.wait_for_target_up()

    [(labels, value)] = stored.query('node_exporter_build_info{target="vm"}')
    assert (labels["instance"], value) == (server.address, 1)
