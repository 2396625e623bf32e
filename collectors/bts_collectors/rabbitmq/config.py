"""Settings of a RabbitMQ target."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from bts_exporter import CollectorConfig, Duration, Secret, TLSConfig, Url

HTTP = ("http", "https")
AMQP = ("amqp", "amqps")
TLS = ("https", "amqps")

#: Well below the time after which the broker removes unused queues of a canary.
MAX_INTERVAL_SECONDS = 60.0

Source = Literal["auto", "management", "prometheus", "amqp"]

#: Addresses, for editors; `__post_init__` checks them.
_AnyUrl = Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*HTTP, *AMQP))]
_HttpUrl = Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*HTTP))]
_AmqpUrl = Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*AMQP))]
_CanaryInterval = Annotated[
    Duration,
    Meta(
        extra_json_schema={
            "exclusiveMinimum": 0,
            "maximum": MAX_INTERVAL_SECONDS,
        }
    ),
]


class CanarySettings(CollectorConfig, frozen=True):
    """Test messages, and the broker that they are sent through."""

    #: Address of the broker over AMQP; the path is the virtual host.
    url: _AmqpUrl
    #: Password of the user in `url`.
    password: Secret | None = None
    #: Types of the queues that the test messages are sent through.
    queue_types: tuple[Literal["classic", "quorum"], ...] = ("classic", "quorum")
    #: Time between two messages.
    interval: _CanaryInterval = Duration(10)
    #: A message that takes longer counts as failed.
    timeout: _CanaryInterval = Duration(5)

    def __post_init__(self) -> None:
        """Check combinations and ranges; ValueError names the setting."""
        check_address("url", self.url, AMQP, "amqp://host:5672/vhost")
        if self.interval > MAX_INTERVAL_SECONDS:
            msg = f"interval: {self.interval:g} s is too long (expected at most {MAX_INTERVAL_SECONDS:g} s, since the broker removes idle queues)"
            raise ValueError(msg)
        if not 0 < self.timeout <= self.interval:
            msg = f"timeout: {self.timeout:g} s is not valid (expected more than 0 and at most the interval, {self.interval:g} s)"
            raise ValueError(msg)


_VHOSTS = "virtual hosts are selected by a regular expression: vhosts_include: ^NAME$"
_QUEUES = "queues are selected by a regular expression: queues_include: ^NAME$; over AMQP by declare: [NAME]"
_NODES = "one node reports the whole cluster: url: http://HOST:15672"


class RabbitMQConfig(CollectorConfig, frozen=True):
    """Address, login, source and selection of a RabbitMQ target."""

    #: The management API or RabbitMQ's own exporter (http, https), or the broker itself (amqp, amqps).
    url: _AnyUrl = Url.from_setting("http://guest:guest@127.0.0.1:15672")
    #: Password of the user in `url`.
    password: Secret | None = None
    #: TLS settings of all addresses.
    tls: TLSConfig = TLSConfig()
    #: The interface at `url`; `auto` detects it.
    source: Source = "auto"
    #: The whole cluster, or only the node that answers.
    scope: Literal["cluster", "node"] = "cluster"
    #: RabbitMQ's own exporter on the node that answers, for metrics that the management API does not have.
    native: _HttpUrl | None = None
    #: Virtual hosts to read: like the three below, a pattern that is searched for in the name.
    vhosts_include: re.Pattern[str] | None = None
    #: Virtual hosts not to read.
    vhosts_exclude: re.Pattern[str] | None = None
    #: Queues to read.
    queues_include: re.Pattern[str] | None = None
    #: Queues not to read.
    queues_exclude: re.Pattern[str] | None = None
    #: With more queues than this, only their depths are requested.
    max_detailed_queues: int = 2000
    #: The broker's consumer_timeout, which its APIs do not contain; 0 if it is disabled.
    consumer_timeout: Duration = Duration(1800)
    #: Metric names of another exporter instead of those of RabbitMQ's own.
    compat: Literal["kbudde"] | None = None
    #: Names of the queues to read over AMQP, which has no list of queues.
    declare: tuple[str, ...] = ()
    canary: CanarySettings | None = None

    advice = {  # noqa: RUF012  # the contract
        "vhost": _VHOSTS,
        "vhosts": _VHOSTS,
        "virtual_host": _VHOSTS,
        "queue": _QUEUES,
        "queues": _QUEUES,
        "nodes": _NODES,
        "hosts": _NODES,
    }

    @property
    def over_amqp(self) -> bool:
        """Whether AMQP is the source."""
        return self.source == "amqp" or (self.source == "auto" and self.url.scheme in AMQP)

    def __post_init__(self) -> None:
        """Check combinations and ranges; ValueError names the setting."""
        if self.over_amqp:
            check_address("url", self.url, AMQP, "amqp://host:5672/vhost")
        elif self.source == "prometheus":
            check_address("url", self.url, HTTP, "http://host:15692")
        else:
            check_address("url", self.url, HTTP, "http://host:15672")
        if self.native is not None:
            check_address("native", self.native, HTTP, "http://host:15692")
        if self.declare and not self.over_amqp:
            msg = "declare: only valid with an AMQP address, such as url: amqp://host:5672/vhost"
            raise ValueError(msg)
        if self.over_amqp and not self.declare:
            msg = (
                "declare: missing; AMQP has no list of queues, so name them (declare: [NAME]), or use the"
                " management API (url: http://HOST:15672)"
            )
            raise ValueError(msg)
        if self.compat and (self.over_amqp or self.source == "prometheus" or self.native):
            msg = f"compat: {self.compat} is only valid with the management API as the only source"
            raise ValueError(msg)
        urls = (self.url, self.native, self.canary.url if self.canary else None)
        self.tls.require_used_by(*(url for url in urls if url is not None), schemes=TLS)


def check_address(key: str, url: Url, schemes: tuple[str, ...], example: str) -> None:
    """Check scheme and query of an address; ValueError, with an example for another scheme."""
    try:
        url.require_scheme(*schemes, key=key)
    except ValueError as error:
        msg = f"{error} (such as {example})"
        raise ValueError(msg) from None
    if url.query:
        msg = f"{key}: the part after ? has no effect: remove it"
        raise ValueError(msg)
