"""Clients of RabbitMQ's HTTP interfaces: the management API and RabbitMQ's own exporter."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from bts_exporter import HttpClient, Product, Secret, TLSConfig, Url

#: User and password that RabbitMQ creates when it is installed; valid on its own machine only.
DEFAULT_USER = "guest"
DEFAULT_PASSWORD = "guest"  # noqa: S105  # not secret


class Server(NamedTuple):
    """An HTTP interface of RabbitMQ, and its default port."""

    product: Product
    port: int


MANAGEMENT = Server(
    Product(
        "RabbitMQ management API",
        if_refused="is RabbitMQ running, with its management plugin"
        " (rabbitmq-plugins enable rabbitmq_management)?",
        if_closed="is this the port of the management API (15672, with TLS (https://) 15671)? 5672 is the port of"
        " AMQP (amqp:// with declare), 15692 of RabbitMQ's own exporter, 5552 of streams",
    ),
    15672,
)
EXPORTER = Server(
    Product(
        "RabbitMQ's own exporter",
        if_refused="is RabbitMQ running, with its Prometheus plugin"
        " (rabbitmq-plugins enable rabbitmq_prometheus)?",
        if_closed="is this the port of RabbitMQ's own exporter (15692, with TLS (https://) 15691)?"
        " 15672 is the port of the management API, 5672 of AMQP",
    ),
    15692,
)

_NO_TLS_SETTINGS = TLSConfig()


def connect(
    server: Server, url: Url, password: Secret | None = None, tls: TLSConfig = _NO_TLS_SETTINGS
) -> HttpClient:
    """Return a client of `server` at `url`, with the user `guest` if `url` names none; no I/O."""
    if url.username is None:
        default = url.password or Secret(DEFAULT_PASSWORD)
        url = replace(url, username=DEFAULT_USER, password=default)
    return HttpClient(server.product, url, password=password, tls=tls)
