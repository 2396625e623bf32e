"""A whole monitored stack under load: three brokers, bts-exporter with all collectors, Prometheus.

`monitored` is one that tests share; they only query it. A test that stops something starts its own with
`start_stack`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter
from servers.load import MqttLoad, RabbitLoad, RedisLoad
from servers.mosquitto import Mosquitto
from servers.prometheus import Prometheus
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer

#: The name of the job in monitoring/prometheus/prometheus.yml, which the rules refer to.
JOB = "bts-exporter"

SETTINGS = """\
collectors:
  host:
    enable: [cgroups, interrupts]
    cpu: {{info: true}}
    stat: {{softirqs: true}}
    process_group: {{groups: [{{name: prometheus, comm: "^prometheus$"}}, {{name: redis, comm: "^redis-server$"}}]}}
    textfile: {{directories: ["{folder}"]}}
  rabbitmq:
    url: "http://guest:guest@127.0.0.1:{rabbitmq}"
    native: "{native}"
    canary: {{url: "amqp://guest:guest@127.0.0.1:{amqp}", interval: 1s, timeout: 1s}}
  redis:
    url: "{redis}"
    streams: ["bts:*"]
    stream_consumers: true
    keys: ["queues"]
    key_memory: true
    clients: true
    latency_histograms: true
    queues: {{celery: [celery], sidekiq: true, lists: [jobs]}}
  mqtt:
    url: "{mqtt}"
    persistence: {{file: "{folder}/mosquitto.db"}}
    broker_log: true
    canary: {{qos: [0, 1], interval: 1s}}
    pipelines:
      prediction: {{in_topic: "bts/{{station}}/{{parameter}}", out_topic: "predict/{{station}}/{{parameter}}"}}
    rules:
      readings:
        topic: bts/{{station}}/{{parameter}}
        event_time: {{path: reading_time}}
        per_topic: true
        expire: 1h
        metrics:
          bts_sensor_value: {{path: value, help: Latest reading of a sensor.}}
          bts_sensor_readings_total: {{type: counter, labels: [parameter], help: Readings received.}}
"""

MOSQUITTO = (
    "persistence_location {folder}/",
    "autosave_interval 1",
    "max_queued_messages 0",
    "log_dest stdout",
    "log_dest topic",
)


class MonitoredStack:
    """Brokers under load, the exporter, and a Prometheus that scrapes it each second.

    `rabbitmq`, `redis` (with `replica`) and `mosquitto` are the servers. `rabbitmq_load`, `redis_load` and `mqtt_load` have
    `stop_consumers()` and `resume_consumers()`, and the same for producers. Loads, exporter and Prometheus
    survive a restart of a broker.
    """

    def __init__(
        self,
        make_folder: Callable[[str], Path],
        *,
        troubled: bool = True,
        nodes: int = 1,
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
    ) -> None:
        """Start everything; see `start_stack` for the arguments."""
        self._running = ExitStack()
        self._folder = make_folder
        with ExitStack() as failed:
            failed.callback(self.stop)
            self._start_brokers(nodes)
            self._start_loads(troubled=troubled)
            saved = self.mosquitto.folder / "mosquitto.db"
            wait_until(saved.exists, "mosquitto has saved its sessions")
            self.exporter = self.start_exporter(self.settings())
            self.prometheus = self.start_prometheus(rule_files, alertmanagers)
            self.prometheus.wait_for_target_up(60)
            self._wait_for_data()
            failed.pop_all()

    def settings(self) -> str:
        """Return the settings of the stack's exporter."""
        return SETTINGS.format(
            folder=self.mosquitto.folder,
            rabbitmq=self.rabbitmq.mgmt,
            native=self.rabbitmq.native_url,
            amqp=self.rabbitmq.amqp,
            redis=self.redis.url,
            mqtt=self.mosquitto.url,
        )

    def start_exporter(self, settings: str) -> Exporter:
        """Start an exporter with other settings; it ends with the stack."""
        exporter = Exporter(self._folder("exporter"), settings)
        self._running.callback(exporter.kill)
        return exporter

    def start_prometheus(
        self,
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        *,
        exporter: Exporter | None = None,
        job: str = JOB,
    ) -> Prometheus:
        """Start another Prometheus, of the stack's exporter or another one; it ends with the stack."""
        server = Prometheus(
            self._folder("prometheus"),
            [(exporter or self.exporter).address],
            job=job,
            rule_files=rule_files,
            alertmanagers=alertmanagers,
        )
        self._running.callback(server.stop)
        return server

    def stop(self) -> None:
        """End all of it, in reverse order."""
        self._running.close()

    def _start_brokers(self, nodes: int) -> None:
        self.rabbitmq = RabbitMQ(self._folder("rabbitmq"))
        self._running.callback(self.rabbitmq.stop)
        self.peers = [RabbitMQ(self._folder("peer"), peer=self.rabbitmq) for _ in range(nodes - 1)]
        for peer in self.peers:
            self._running.callback(peer.stop)
        self.redis = RedisServer(self._folder("redis"), "--enable-debug-command", "yes")
        self._running.callback(self.redis.kill)
        primary = ("--replicaof", "127.0.0.1", str(self.redis.port))
        self.replica = RedisServer(self._folder("replica"), *primary)
        self._running.callback(self.replica.kill)
        folder = self._folder("mosquitto")
        (folder / "backup.prom").write_text("backup_last_success_timestamp_seconds 1764000000\n")
        lines = [line.format(folder=folder) for line in MOSQUITTO]
        self.mosquitto = Mosquitto(folder, *lines, persistence=True)
        self.mosquitto.start()
        self._running.callback(self.mosquitto.kill)

    def _start_loads(self, *, troubled: bool) -> None:
        self.rabbitmq_load = RabbitLoad(self.rabbitmq, troubled=troubled)
        self.redis_load = RedisLoad(self.redis, troubled=troubled)
        self.mqtt_load = MqttLoad(self.mosquitto, troubled=troubled)
        for load in (self.rabbitmq_load, self.redis_load, self.mqtt_load):
            load.start()
            self._running.callback(load.stop)

    def _wait_for_data(self) -> None:
        """Return when each collector succeeds, and each broker's lag is known."""

        def is_complete() -> bool:
            known = self.prometheus.query("count by (system) (messaging_lag_seconds)")
            return {labels["system"] for labels, _ in known} == {"rabbitmq", "redis", "mqtt"} and (
                self.prometheus.query("min(bts_exporter_collector_success) == 1") != []
            )

        wait_until(is_complete, "data of every broker", 60)


@contextmanager
def start_stack(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    troubled: bool = True,
    nodes: int = 1,
    rule_files: Sequence[Path] = (),
    alertmanagers: Sequence[str] = (),
) -> Iterator[MonitoredStack]:
    """Give a stack of the test's own.

    Without `troubled` no message waits for long and every queue has a consumer. `nodes` is the size of the
    RabbitMQ cluster; the exporter asks the first node. Prometheus evaluates `rule_files` each second.
    """
    stack = MonitoredStack(
        tmp_path_factory.mktemp,
        troubled=troubled,
        nodes=nodes,
        rule_files=rule_files,
        alertmanagers=alertmanagers,
    )
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredStack]:
    """Return a stack that all tests of the session share: do not stop anything in it."""
    with start_stack(tmp_path_factory, nodes=2) as stack:
        yield stack
