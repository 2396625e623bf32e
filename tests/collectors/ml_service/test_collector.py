from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bts_collectors.ml_service import COLLECTOR
from bts_collectors.ml_service.config import MlServiceConfig, ProbeConfig
from bts_collectors.ml_service.json_path import JsonPath
from bts_exporter import Secret, TLSConfig, Url
from bts_exporter.testing import Samples, collect, look
from servers import free_port
from servers.certificates import SERVER_NAME, Certificates
from servers.exporter import StartExporter
from servers.management import FakeManagement, answer, drip, hang, raw, send

HEALTH = ProbeConfig(path="/health")
PREDICT = ProbeConfig(path="/predict", json={"inputs": [1]}, value=JsonPath.from_setting("y[0]"))
BOTH = {"health": HEALTH, "predict": PREDICT}


@pytest.fixture
def service() -> Iterator[FakeManagement]:
    """Return a service that is healthy and predicts."""
    with FakeManagement() as fake:
        fake.routes = {"/health": send(b"live"), "/predict": answer({"y": [12.5]})}
        yield fake


def collector(url: str, **settings: object) -> COLLECTOR:
    """Return a collector with two probes."""
    found = {"url": Url.from_setting(url), "probes": BOTH, **settings}
    return COLLECTOR(MlServiceConfig(**found))  # type: ignore[arg-type]


def phases(samples: Samples, probe: str) -> list[str]:
    """Return the phases of a probe that have a duration."""
    return [p for name, p in samples["ml_service_phase_duration_seconds"] if name == probe]


def test_service_that_works(service: FakeManagement) -> None:
    """Each probe sends one request, and has its status, validity and the phases that happened."""
    samples = collect(collector(service.url))

    durations = samples.pop("ml_service_phase_duration_seconds")
    assert samples == {
        "ml_service_up": {("health",): 1, ("predict",): 1},
        "ml_service_http_status_code": {("health",): 200, ("predict",): 200},
        "ml_service_response_valid": {("health",): 1, ("predict",): 1},
        "ml_service_prediction_value": {("predict",): 12.5},
    }
    assert [key[1] for key in durations] == ["connect", "processing", "receive"] * 2
    assert (service.requests, service.bodies) == (["/health", "/predict"], [b'{"inputs": [1]}'])


def test_service_that_is_down() -> None:
    """Nothing but ml_service_up is emitted, and the error names the address."""
    port = free_port()
    samples, error = look(collector(f"http://127.0.0.1:{port}", model="load"))

    assert samples == {"ml_service_up": {("health",): 0, ("predict",): 0}}
    assert error is not None
    assert error.reason == "refused"
    assert f"http://127.0.0.1:{port}/health: connection refused; is the service" in str(error)


def test_optional_service_may_be_absent(exporter: StartExporter) -> None:
    """If no probe finds anything that listens, an optional service is not a failure."""
    probes = "probes: {a: {path: /a}, b: {path: /b}}"
    block = f"{{url: 'http://127.0.0.1:{free_port()}', optional: true, {probes}}}"
    server = exporter(f"collectors: {{ml_service: {block}}}\n")

    labels = {"collector": "ml_service", "target": ""}
    assert server.value("bts_exporter_collector_success", **labels) == 1
    assert server.value("bts_exporter_collector_supported", **labels) == 0


def test_response_that_is_invalid(service: FakeManagement) -> None:
    """The service is up, the response is not valid, and the error says why; the other probe is not affected."""
    service.routes["/predict"] = answer({"error": "no model"})
    samples, error = look(collector(service.url))

    assert samples["ml_service_up"] == {("health",): 1, ("predict",): 1}
    assert samples["ml_service_response_valid"] == {("health",): 1, ("predict",): 0}
    assert "ml_service_prediction_value" not in samples
    assert error is not None
    assert "probe predict: prediction service at" in str(error)
    assert "y[0] is missing (no key 'y')" in str(error)


def test_status_that_is_not_expected(service: FakeManagement) -> None:
    """A service that answers with an error is up, with the status as a metric."""
    service.routes["/predict"] = answer({"y": [1]}, 503)
    samples, error = look(collector(service.url))

    assert samples["ml_service_http_status_code"]["predict",] == 503
    assert samples["ml_service_response_valid"]["predict",] == 0
    assert samples["ml_service_up"]["predict",] == 1
    assert error is not None
    assert "HTTP 503, expected 200 to 299" in str(error)


def test_probe_that_hangs_leaves_time_for_the_others(service: FakeManagement) -> None:
    """The first probe has half of the time, and its phases end with the connection."""
    service.routes["/health"] = hang
    samples, error = look(collector(service.url), seconds=1.0)

    assert samples["ml_service_up"] == {("health",): 0, ("predict",): 1}
    assert samples["ml_service_prediction_value"] == {("predict",): 12.5}
    assert phases(samples, "health") == ["connect"]
    assert error is not None
    assert (error.reason, "probe health" in str(error)) == ("timeout", True)


@pytest.mark.parametrize(
    "reply",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x", 100, b""),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123"),
        send(b"\0" * 200_000_000),
        raw(b"SSH-2.0-OpenSSH\r\n"),
        raw(b""),
    ],
    ids=["drips", "too large", "cut off", "gzip bomb", "not HTTP", "closed"],
)
def test_response_that_does_not_arrive(service: FakeManagement, reply: object) -> None:
    """Without a complete response the probe is down, within the time and with bounded memory."""
    service.routes["/health"] = reply  # type: ignore[assignment]
    samples, error = look(collector(service.url, probes={"health": HEALTH}), seconds=2.0)

    assert samples["ml_service_up"] == {("health",): 0}
    assert "ml_service_response_valid" not in samples
    assert error is not None


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({"token": Secret("t0ken")}, "Authorization", "Bearer t0ken"),
        ({"headers": {"X-Api-Key": Secret("k3y")}}, "X-Api-Key", "k3y"),
        ({"url": "http://me:pw@{}"}, "Authorization", "Basic bWU6cHc="),
    ],
)
def test_login(
    service: FakeManagement, settings: dict[str, object], header: str, value: str
) -> None:
    """A token, a header with a key, or user and password are sent with each request."""
    found = dict(settings)
    url = str(found.pop("url", "http://{}")).format(service.url.partition("//")[2])
    collect(collector(url, **found))

    assert [sent[header] for sent in service.headers] == [value, value]


def test_refused_login_is_not_tried_twice(service: FakeManagement) -> None:
    """Each address gets one request per collection, whatever the answer is."""
    service.routes["/predict"] = answer({}, 401)
    secret = Secret("old", lambda: "new")
    _, error = look(collector(service.url.replace("//", "//me@"), password=secret))

    assert error is not None
    assert error.reason == "auth"
    assert service.requests == ["/health", "/predict"]


def test_expiry_of_the_certificate(certificates: Certificates, tmp_path: Path) -> None:
    """It is one sample for the service, and the handshake is a phase."""
    both = tmp_path / "server.pem"
    both.write_bytes(certificates.server.read_bytes() + certificates.server_key.read_bytes())
    tls = TLSConfig(ca_file=str(certificates.ca), server_name=SERVER_NAME)
    with FakeManagement(both) as fake:
        fake.routes = {"/health": send(b"live"), "/predict": answer({"y": [1]})}
        samples = collect(collector(fake.url, tls=tls))

    expiry = samples["ml_service_certificate_expiry_timestamp_seconds"][()]
    assert 0 < expiry - time.time() < 3 * 86400
    assert phases(samples, "predict") == ["connect", "tls", "processing", "receive"]


def test_certificate_that_is_not_trusted_is_an_error(
    certificates: Certificates, tmp_path: Path
) -> None:
    """The service is down for its clients, too; what is wrong is in the error."""
    both = tmp_path / "server.pem"
    both.write_bytes(certificates.server.read_bytes() + certificates.server_key.read_bytes())
    with FakeManagement(both) as fake:
        samples, error = look(collector(fake.url))

    assert samples["ml_service_up"] == {("health",): 0, ("predict",): 0}
    assert error is not None
    assert (error.reason, "set tls.ca_file" in str(error)) == ("tls", True)


METADATA = ProbeConfig(
    path="/v2/models/load",
    model_path=JsonPath.from_setting("name"),
    version_path=JsonPath.from_setting("versions[0]"),
)


@pytest.mark.parametrize(
    ("settings", "models"),
    [
        ({"model": "load", "version": "3"}, [("load", "3")]),
        ({"model": "load"}, [("load", "")]),
        ({"probes": {"health": HEALTH, "metadata": METADATA}}, [("load", "7")]),
        ({"probes": {"metadata": METADATA}, "model": "other", "version": "1"}, [("load", "7")]),
    ],
)
def test_model(
    service: FakeManagement, settings: dict[str, object], models: list[tuple[str, str]]
) -> None:
    """Name and version come from the responses, and from the settings where these have none."""
    service.routes["/v2/models/load"] = answer({"name": "load", "versions": ["7"]})
    samples = collect(collector(service.url, **settings))

    assert sorted(samples["ml_service_model_info"]) == models


def test_probes_that_see_different_versions(service: FakeManagement) -> None:
    """Both are emitted, so that a rule can count them."""
    service.routes["/predict"] = answer({"name": "load", "versions": ["8"]})
    service.routes["/v2/models/load"] = answer({"name": "load", "versions": ["7"]})
    other = ProbeConfig(
        path="/predict", model_path=METADATA.model_path, version_path=METADATA.version_path
    )
    samples = collect(collector(service.url, probes={"a": METADATA, "b": other}))

    assert sorted(samples["ml_service_model_info"]) == [("load", "7"), ("load", "8")]
