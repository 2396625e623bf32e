"""One scrape of the exporter covers the machine, the brokers and the service."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from bts_stack import Stack
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bts import scene
from servers import wait_until
from servers.exporter import Exporter
from servers.prometheus import promtool_check_metrics

pytestmark = pytest.mark.live

ROLES = ("bridge", "worker", "service")
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}


def ports(stack: Stack) -> dict[str, int]:
    """Return the ports as the demo's settings name them."""
    return {
        "management": stack.rabbitmq.mgmt,
        "redis": stack.redis.port,
        "mosquitto": stack.mosquitto.port,
        **stack.ports,
    }


def test_one_scrape_has_all_three_layers(stack: Stack, exporter: Callable[..., Exporter]) -> None:
    """With the settings of the demo, the page has the host, the three brokers, and the service's own metrics."""
    for role in ROLES:
        stack.start(role)
    stack.start("sensors", "--rate=100", "--count=300", "--stations=5")
    server = exporter(scene.exporter_settings(ports(stack), relayed=[*ROLES, "sensors"]))
    wait_until(lambda: server.value("bts_readings_total", **VALID), "readings on the page")

    samples = server.samples()
    names = {name for name, _ in samples}
    assert {
        "node_memory_MemAvailable_bytes",
        "rabbitmq_queue_messages_ready",
        "redis_up",
        "mqtt_up",
        "messaging_backlog_messages",
        "bts_bridge_messages_total",
        "bts_prediction_duration_seconds_bucket",
        "bts_model_info",
        "bts_sensors_published_total",
    } <= names
    up = {
        dict(labels)["target"]: value
        for (name, labels), value in samples.items()
        if name == "relay_up"
    }
    assert up == dict.fromkeys([*ROLES, "sensors"], 1)
    promtool_check_metrics(server.get("/metrics")[1])
    list(text_string_to_metric_families(server.get("/metrics", OPENMETRICS)[1]))


VALID = {"parameter": "122", "quality": "valid", "target": "worker"}


def test_rest_service_is_probed(stack: Stack, exporter: Callable[..., Exporter]) -> None:
    """The demo's probes send the form of the tutorial's client, and read health and prediction."""
    stack.start("service")
    server = exporter(scene.exporter_settings(ports(stack), relayed=[]))

    def ml(name: str, probe: str) -> float | None:
        return server.value(f"ml_service_{name}", probe=probe, target="bts-rest")

    assert [ml("up", probe) for probe in ("health", "ready", "predict")] == [1, 1, 1]
    assert ml("http_status_code", "predict") == 200
    assert ml("response_valid", "predict") == 1
    prediction = ml("prediction_value", "predict")
    assert prediction is not None
    assert 5 < prediction < 25
    sent = json.dumps({"inputs": scene.PROBE_INPUTS})
    assert len(json.loads(sent)["inputs"][0]) == 6
    # Each scrape is one prediction: nothing else asked.
    before = stack.value("service", COUNTED)
    server.samples()
    after = stack.value("service", COUNTED)
    assert before is not None
    assert after == before + 1

    stack.processes["service"].kill()
    assert ml("up", "predict") == 0
    assert ml("response_valid", "predict") is None


COUNTED = 'bts_predictions_total{outcome="ok",source="http"}'
