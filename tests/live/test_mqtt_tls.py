"""A mosquitto with TLS that requires a client certificate of its authority."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.config import MqttConfig
from bts_exporter import Scrape, TargetError, TLSConfig, Url
from bts_exporter.testing import samples
from servers import free_port, listens, wait_until
from servers.certificates import SERVER_NAME, Certificates
from servers.mosquitto import StartMosquitto

pytestmark = pytest.mark.live

Listen = Callable[..., Url]
Start = Callable[..., Mqtt]

BOTH = pytest.mark.parametrize("scheme", ["mqtts", "wss"])


@pytest.fixture
def listening(start_mosquitto: StartMosquitto, certificates: Certificates) -> Listen:
    """Return a function that starts a broker and returns the address of its TLS listener."""

    def listen(scheme: str, *, named: bool = False) -> Url:
        port = free_port()
        cert, key = certificates.server, certificates.server_key
        if named:
            cert, key = certificates.named, certificates.named_key
        start_mosquitto(
            f"listener {port} 127.0.0.1",
            *(["protocol websockets"] if scheme == "wss" else []),
            *(f"cafile {certificates.ca}", f"certfile {cert}", f"keyfile {key}"),
            "require_certificate true",
        )
        wait_until(lambda: listens(port), "the broker listens for TLS")
        return Url(scheme, "127.0.0.1", port)

    return listen


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a collector for an address, with TLS settings."""
    started: list[Mqtt] = []

    def start_one(url: Url, **tls: object) -> Mqtt:
        started.append(Mqtt(MqttConfig(url=url, tls=TLSConfig(**tls))))  # type: ignore[arg-type]
        started[-1].start()
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


@pytest.fixture
def known(certificates: Certificates) -> dict[str, str]:
    """Return TLS settings that the broker accepts, and that trust it."""
    return {
        "ca_file": str(certificates.ca),
        "cert_file": str(certificates.client),
        "key_file": str(certificates.client_key),
    }


def is_up(collector: Mqtt) -> Callable[[], bool]:
    """Return a condition to wait for: the broker is up."""

    def up() -> bool:
        scrape = Scrape(time.monotonic() + 20)
        try:
            collector.collect(scrape)
        except TargetError:
            return False
        return samples(collector, scrape)["mqtt_up"] == {(): 1}

    return up


def failure(collector: Mqtt) -> str:
    """Return the error of a connection; AssertionError for a reason other than TLS."""
    scrape = Scrape(time.monotonic() + 20)
    with pytest.raises(TargetError) as caught:
        collector.collect(scrape)
    collected = samples(collector, scrape)
    assert caught.value.reason == "tls", caught.value
    assert collected["mqtt_up"] == {(): 0}
    assert collected["mqtt_connect_failures_total"]["tls",] >= 1
    return str(caught.value)


@BOTH
def test_client_certificate_is_sent(
    scheme: str, listening: Listen, start: Start, known: dict[str, str]
) -> None:
    """A broker that requires one accepts the client, and refuses it without."""
    url = listening(scheme)

    wait_until(is_up(start(url, **known)), "the broker is up")
    assert str(url) in failure(start(url, ca_file=known["ca_file"]))


@BOTH
def test_other_authority_is_not_trusted(
    scheme: str, listening: Listen, start: Start, known: dict[str, str]
) -> None:
    """The broker's certificate must be signed by ca_file, unless any certificate is accepted."""
    url = listening(scheme)
    of_another = known | {"ca_file": known["cert_file"]}

    assert "TLS certificate not accepted" in failure(start(url, **of_another))
    wait_until(is_up(start(url, **of_another, insecure_skip_verify=True)), "the broker is up")


@BOTH
def test_certificate_of_another_name_is_refused(
    scheme: str, listening: Listen, start: Start, known: dict[str, str]
) -> None:
    """It must have the host's name, or that of server_name."""
    url = listening(scheme, named=True)

    wait_until(is_up(start(url, **known, server_name=SERVER_NAME)), "the broker is up")
    assert "127.0.0.1" in failure(start(url, **known))
    assert "other.test" in failure(start(url, **known, server_name="other.test"))


def test_files_are_read_at_every_connection(
    listening: Listen, start: Start, known: dict[str, str], tmp_path: Path
) -> None:
    """A file that cannot be used is named; once corrected, it needs no restart."""
    url = listening("mqtts")
    ca = tmp_path / "ca.pem"
    collector = start(url, **known | {"ca_file": str(ca)})

    assert f"ca_file {ca} cannot be used" in failure(collector)
    ca.write_bytes(Path(known["ca_file"]).read_bytes())
    wait_until(is_up(collector), "the broker is up")
