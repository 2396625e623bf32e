"""The REST service as a process."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
import pytest
from bts_stack import Stack

from bts import model
from servers import wait_until

pytestmark = pytest.mark.live

WINDOW = [[[0.074], [-0.003], [-0.08], [-0.157], [-0.235], [-0.312]]]


def post(stack: Stack, body: bytes, content_type: str) -> tuple[int, Any]:
    """Return status and decoded answer of POST /prediction."""
    url = f"http://127.0.0.1:{stack.ports['service']}/prediction"
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def test_form_of_the_tutorials_client_is_answered(stack: Stack) -> None:
    """The form field `inputs` with JSON gives `prediction_result`, a number as text; JSON gives the same."""
    stack.start("service")
    form = urllib.parse.urlencode({"inputs": json.dumps(WINDOW)}).encode()

    by_form = post(stack, form, "application/x-www-form-urlencoded")
    by_json = post(stack, json.dumps({"inputs": WINDOW}).encode(), "application/json")

    expected = model.load().predict(np.array(WINDOW)[:, :, 0])[0]
    assert by_form == by_json
    assert by_form[0] == 200
    assert float(by_form[1]["prediction_result"]) == pytest.approx(expected)
    assert stack.get("service", "/health") == "live"
    assert stack.value("service", 'bts_predictions_total{outcome="ok",source="http"}') == 2
    assert stack.value("service", "input_variance") == pytest.approx(np.var(WINDOW))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"inputs": null}'),
        ("application/json", b'{"inputs": [[[1], [2]]]}'),
        ("application/json", b'{"inputs": [[[1], [2], [3], [4], [5], ["x"]]]}'),
        ("application/json", b'{"inputs": [[[1], [2], [3], [4], [5], [NaN]]]}'),
        ("application/json", b'{"inputs": [[[1], [2], [3], [4], [5], [1' + b"0" * 400 + b"]]]}"),
        ("application/json", b'{"inputs": ' + b"[" * 50_000),
        ("application/x-www-form-urlencoded", b"inputs=nothing"),
        ("application/x-www-form-urlencoded", b"other=1"),
        ("text/plain", b"inputs"),
    ],
)
def test_inputs_that_are_none_are_refused_with_the_reason(
    service: Stack, content_type: str, body: bytes
) -> None:
    """A request without six finite numbers is answered with 400 and an error, and counted."""
    status, answer = post(service, body, content_type)

    assert status == 400
    assert "inputs" in answer["error"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a service whose brokers are not there."""

    class Nothing:
        port = amqp = 1
        url = "redis://127.0.0.1:1"

    nothing: Any = Nothing()
    stack = Stack(tmp_path_factory.mktemp("service"), nothing, nothing, nothing)
    stack.start("service")
    yield stack
    stack.stop()


def test_latest_prediction_of_a_station_is_served(stack: Stack) -> None:
    """A reading that goes in by MQTT comes out as the prediction of its station; unknown ones give 404."""
    for role in ("service", "bridge", "worker"):
        stack.start(role)
    stack.start("sensors", "--rate=100", "--stations=1")

    def predicted() -> bool:
        try:
            answer = json.loads(stack.get("service", "/prediction/1161114001"))
        except urllib.error.HTTPError:
            return False
        return bool(answer["source"] == "model" and 0 <= answer["prediction"] <= 40)

    wait_until(predicted, "prediction")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        stack.get("service", "/prediction/1")
    wait_until(
        lambda: (stack.value("service", "bts_end_to_end_latency_seconds_count") or 0) > 50,
        "latency",
    )
    assert "bts_model_info" in stack.get("service")


def test_service_is_not_ready_without_redis_and_is_again_when_it_returns(stack: Stack) -> None:
    """/ready follows Redis, /health does not: a restart of the service would not help."""
    stack.start("service")

    def ready() -> bool:
        try:
            return stack.get("service", "/ready") == "ready"
        except urllib.error.HTTPError:
            return False

    wait_until(ready, "ready")
    stack.redis.kill()
    wait_until(lambda: not ready(), "not ready")
    assert stack.get("service", "/health") == "live"
    stack.redis.restart()
    wait_until(ready, "ready again")
