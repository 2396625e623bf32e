import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bts_collectors.mqtt import collector as collector_module
from bts_collectors.mqtt.client.topics import Pattern
from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.config import MqttConfig
from bts_collectors.mqtt.probes.canary import CanaryConfig
from bts_collectors.mqtt.probes.pipeline import PipelineConfig
from bts_collectors.mqtt.sessions.emqx import EmqxConfig
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig
from bts_exporter import Scrape, TargetError, Url
from bts_exporter.testing import Samples, samples
from servers import wait_until
from servers.management import FakeManagement, answer, hang
from stubs import collect, runner_of

PATH = "/api/v5/clients"
CLIENT = {"clientid": "consumer", "mqueue_len": 5, "inflight_cnt": 1, "mqueue_dropped": 0}


@pytest.fixture
def closed_port() -> Iterator[Url]:
    """Return the address of a closed port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield Url("mqtt", "127.0.0.1", unused.getsockname()[1])


@pytest.fixture
def api() -> Iterator[FakeManagement]:
    """Return EMQX's REST API with one client."""
    with FakeManagement() as fake:
        fake.routes[PATH] = answer({"data": [CLIENT], "meta": {"hasnext": False}})
        yield fake


def look(config: MqttConfig, seconds: float = 20) -> tuple[Samples, TargetError]:
    """Return the samples and the error of a collection without a broker."""
    collector = Mqtt(config)
    collector.start()
    scrape = Scrape(time.monotonic() + seconds)
    try:
        with pytest.raises(TargetError) as failure:
            collector.collect(scrape)
    finally:
        collector.stop()
    return samples(collector, scrape), failure.value


def test_api_is_read_although_the_broker_refuses_the_connection(
    closed_port: Url, api: FakeManagement
) -> None:
    """Each source is independent of the other."""
    found, error = look(MqttConfig(url=closed_port, emqx=EmqxConfig(url=Url.from_setting(api.url))))

    assert error.reason == "refused"
    assert found["mqtt_up"] == {(): 0}
    assert found["messaging_backlog_messages"] == {("mqtt", "", "consumer"): 5}


def test_api_that_hangs_is_reported_at_every_scrape(closed_port: Url, api: FakeManagement) -> None:
    """An API that hangs uses up the time of each scrape, and its own error is reported, not `busy`."""
    api.routes[PATH] = hang
    config = MqttConfig(url=closed_port, emqx=EmqxConfig(url=Url.from_setting(api.url)))
    with runner_of(Mqtt(config), timeout=1.0) as runner:
        shots = [collect(runner) for _ in range(2)]

    for shot in shots:
        assert set(shot.outcome.reasons) == {"refused"}
        assert "EMQX REST API" in shot.outcome.message


def test_lost_broker_is_the_failure_when_both_fail(closed_port: Url, api: FakeManagement) -> None:
    """The first reason is that of the broker."""
    api.routes[PATH] = answer({}, 401)
    _, error = look(MqttConfig(url=closed_port, emqx=EmqxConfig(url=Url.from_setting(api.url))))

    assert error.reason == "refused"


def test_hanging_api_does_not_exceed_the_deadline(
    closed_port: Url, api: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics of the connection are emitted before the request."""
    monkeypatch.setattr(collector_module, "FIRST_REPLY_SECONDS", 0.1)
    api.routes[PATH] = hang
    config = MqttConfig(url=closed_port, emqx=EmqxConfig(url=Url.from_setting(api.url)))
    found, _ = look(config, seconds=1)

    assert found["mqtt_up"] == {(): 0}


def test_stop_interrupts_a_request_to_the_api(
    closed_port: Url, api: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload does not wait for an API that hangs."""
    monkeypatch.setattr(collector_module, "FIRST_REPLY_SECONDS", 0.1)
    api.routes[PATH] = hang
    collector = Mqtt(MqttConfig(url=closed_port, emqx=EmqxConfig(url=Url.from_setting(api.url))))
    collector.start()
    with ThreadPoolExecutor() as pool:
        collection = pool.submit(collector.collect, Scrape(time.monotonic() + 60))
        wait_until(lambda: bool(api.requests), "requested")
        collector.stop()

    assert "the collector is stopped" in str(collection.exception(timeout=20))


def test_counters_of_probes_start_at_zero(closed_port: Url) -> None:
    """Canaries and pipelines have their series before the first message."""
    pipeline = PipelineConfig(
        in_topic=Pattern.from_setting("in/{s}"), out_topic=Pattern.from_setting("out/{s}")
    )
    found, _ = look(
        MqttConfig(
            url=closed_port, broker_log=True, canary=CanaryConfig(), pipelines={"predict": pipeline}
        )
    )

    assert found["mqtt_canary_lost_total"] == {("0",): 0}
    assert found["mqtt_canary_round_trip_seconds"]["_count", "0"] == 0
    assert found["mqtt_pipeline_timeouts_total"] == {("predict",): 0}
    assert found["mosquitto_drop_episodes_total"] == {(): 0}
    assert "mqtt_pipeline_pending_messages" not in found


def test_nothing_is_measured_unasked(closed_port: Url) -> None:
    """Without their settings, probes have no series."""
    found, _ = look(MqttConfig(url=closed_port))

    assert [name for name in found if "canary" in name or "pipeline" in name] == []
    assert "mqtt_client_queues_left_out" not in found


def test_two_sources_of_the_same_queues_are_refused() -> None:
    """A broker has only one of them, and both would emit a client's backlog."""
    with pytest.raises(ValueError, match="persistence, emqx: set only one of them"):
        MqttConfig(persistence=PersistenceConfig(), emqx=EmqxConfig())


def test_pipeline_without_a_name_is_refused() -> None:
    """Its backlog would be mistaken for the broker's."""
    pipeline = PipelineConfig(
        in_topic=Pattern.from_setting("in/{s}"), out_topic=Pattern.from_setting("out/{s}")
    )
    with pytest.raises(ValueError, match="pipelines: an entry has an empty name"):
        MqttConfig(pipelines={"": pipeline})
