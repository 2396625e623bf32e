"""A broker that speaks TLS on each of its ports and requires a client certificate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.config import CanarySettings
from bts_exporter import Scrape, TargetError, TLSConfig, Url
from servers import wait_until
from servers.certificates import SERVER_NAME, Certificates
from servers.rabbitmq import quiet_port, start

pytestmark = pytest.mark.live

CONFIG = """\
listeners.ssl.1 = 127.0.0.1:{amqps}
ssl_options.cacertfile = {files.ca}
ssl_options.certfile = {files.server}
ssl_options.keyfile = {files.server_key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
#: Of a plug-in that speaks HTTP.
PLUGIN = """\
{plugin}.ssl.ip = 127.0.0.1
{plugin}.ssl.port = {port}
{plugin}.ssl.cacertfile = {files.ca}
{plugin}.ssl.certfile = {files.server}
{plugin}.ssl.keyfile = {files.server_key}
{plugin}.ssl.verify = verify_peer
{plugin}.ssl.fail_if_no_peer_cert = true
"""

Addresses = dict[str, Url]
Samples = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture(scope="module")
def addresses(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Addresses]:
    """Return where the broker speaks TLS, by interface."""
    ports = {name: quiet_port() for name in ("management", "prometheus", "amqps")}
    config = CONFIG.format(amqps=ports["amqps"], files=certificates)
    for plugin in ("management", "prometheus"):
        config += PLUGIN.format(plugin=plugin, port=ports[plugin], files=certificates)
    broker = start(tmp_path_factory, config)
    yield {
        name: Url("amqps" if name == "amqps" else "https", "127.0.0.1", port)
        for name, port in ports.items()
    }
    broker.stop()


@pytest.fixture
def known(certificates: Certificates) -> dict[str, str]:
    """Return the settings that the broker lets in, and that trust it."""
    return {
        "ca_file": str(certificates.ca),
        "cert_file": str(certificates.client),
        "key_file": str(certificates.client_key),
    }


@contextmanager
def collector(url: Url, tls: dict[str, str], **settings: object) -> Iterator[RabbitMQ]:
    """Return a collector at work, that is stopped in the end."""
    if url.scheme == "amqps":
        settings["declare"] = ("orders",)
    config = COLLECTOR.Config(url=url, tls=TLSConfig(**tls), **settings)  # type: ignore[arg-type]
    made = COLLECTOR(config)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def collect(made: RabbitMQ) -> tuple[Samples, TargetError | None]:
    """Return the samples of one collection and the error that it ends in."""
    scrape = Scrape(monotonic() + 20)
    failure = None
    try:
        made.collect(scrape)
    except TargetError as error:
        failure = error
    return {metric.name: dict(values) for metric, values in scrape.samples.items()}, failure


@pytest.mark.parametrize("interface", ["management", "prometheus", "amqps"])
@pytest.mark.parametrize("server_name", [None, SERVER_NAME])
def test_each_source(
    addresses: Addresses, known: dict[str, str], interface: str, server_name: str | None
) -> None:
    """Each source works with client certificate and server name."""
    named = known | ({"server_name": server_name} if server_name else {})
    with collector(addresses[interface], named) as made:
        found, failure = collect(made)

    assert failure is None
    assert found["rabbitmq_up"] == {(): 1}


@pytest.mark.parametrize("interface", ["management", "prometheus", "amqps"])
def test_who_is_not_let_in_and_whom_we_do_not_trust(
    addresses: Addresses, known: dict[str, str], interface: str
) -> None:
    """A missing client certificate, another authority or another name has the reason `tls`."""
    for settings in (
        {"ca_file": known["ca_file"]},
        known | {"ca_file": known["cert_file"]},
        known | {"server_name": "other.test"},
    ):
        with collector(addresses[interface], settings) as made:
            found, failure = collect(made)

        assert failure is not None
        assert failure.reason == "tls", failure
        assert str(addresses[interface]) in str(failure)
        assert found["rabbitmq_up"] == {(): 0}


def test_the_settings_are_shared(addresses: Addresses, known: dict[str, str]) -> None:
    """The TLS settings apply to management API, RabbitMQ's own exporter and canary."""
    canary = CanarySettings(url=addresses["amqps"], queue_types=("classic",))
    url, native = addresses["management"], addresses["prometheus"]
    with collector(url, known, native=native, canary=canary) as made:
        up = ("/", "classic")
        wait_until(
            lambda: collect(made)[0].get("rabbitmq_canary_up", {}).get(up) == 1, "a message is back"
        )
        found, failure = collect(made)

    assert failure is None
    assert found["rabbitmq_up"] == {(): 1}
    assert "rabbitmq_auth_attempts_total" in found
