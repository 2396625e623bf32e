"""The settings of a RabbitMQ target."""

from __future__ import annotations

import re
from typing import Literal

from bts_exporter import CollectorConfig, Duration, Secret, TLSConfig, Url

HTTP = ("http", "https")
AMQP = ("amqp", "amqps")
TLS = ("https", "amqps")

#: Seconds, well below those after which the broker removes a queue that an exporter left behind.
MAX_INTERVAL_SECONDS = 60.0

Source = Literal["auto", "management", "prometheus", "amqp"]


class CanarySettings(CollectorConfig, frozen=True):
    """Messages of our own, and where to send them."""

    #: The broker's port for AMQP; the path is the virtual host.
    url: Url
    password: Secret | None = None
    queue_types: tuple[Literal["classic", "quorum"], ...] = ("classic", "quorum")
    interval: Duration = Duration(10)
    #: What takes longer failed.
    timeout: Duration = Duration(5)

    def __post_init__(self) -> None:
        """Check what the types cannot say; ValueError says it."""
        expect_scheme("url", self.url, AMQP, "amqp://host:5672/vhost")
        if self.interval > MAX_INTERVAL_SECONDS:
            msg = f"interval: at most {MAX_INTERVAL_SECONDS:g} s: an idle queue removes itself"
            raise ValueError(msg)
        if not 0 < self.timeout <= self.interval:
            msg = f"timeout: more than 0 and at most the interval, {self.interval:g} s"
            raise ValueError(msg)


_VHOSTS = "virtual hosts are chosen by a regular expression: vhosts_include: ^NAME$"
_QUEUES = (
    "queues are chosen by a regular expression: queues_include: ^NAME$; over AMQP declare: [NAME]"
)
_NODES = "one node reports the whole cluster: url: http://HOST:15672"


class RabbitMQConfig(CollectorConfig, frozen=True):
    """Where RabbitMQ is, as whom to read it, and what of it."""

    #: The management API or RabbitMQ's own exporter (http, https), or the broker itself (amqp, amqps).
    url: Url = Url.from_setting("http://guest:guest@127.0.0.1:15672")
    password: Secret | None = None
    #: For all addresses.
    tls: TLSConfig = TLSConfig()
    #: What `url` is the address of; `auto` looks.
    source: Source = "auto"
    #: The whole cluster, or of it the node that answers.
    scope: Literal["cluster", "node"] = "cluster"
    #: RabbitMQ's own exporter on the node that answers, for what the management API does not tell.
    native: Url | None = None
    #: What is searched for in the names of virtual hosts and queues that are wanted, and unwanted.
    vhosts_include: re.Pattern[str] | None = None
    vhosts_exclude: re.Pattern[str] | None = None
    queues_include: re.Pattern[str] | None = None
    queues_exclude: re.Pattern[str] | None = None
    #: Of more queues than these, depths are asked for and no details.
    max_detailed_queues: int = 2000
    #: Names of another exporter in the place of RabbitMQ's own.
    compat: Literal["kbudde"] | None = None
    #: Names of the queues to ask for over AMQP, which has no list of them.
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
        """Check what the types cannot say; ValueError says it."""
        if self.over_amqp:
            expect_scheme("url", self.url, AMQP, "amqp://host:5672/vhost")
        elif self.source == "prometheus":
            expect_scheme("url", self.url, HTTP, "http://host:15692")
        else:
            expect_scheme("url", self.url, HTTP, "http://host:15672")
        if self.native is not None:
            expect_scheme("native", self.native, HTTP, "http://host:15692")
        if self.declare and not self.over_amqp:
            msg = "declare: the names of queues go with an address of AMQP, amqp://host:5672/vhost"
            raise ValueError(msg)
        if self.over_amqp and not self.declare:
            msg = (
                "declare: over AMQP, which has no list of them, queues need naming: declare: [NAME];"
                " the management API has one: url: http://HOST:15672"
            )
            raise ValueError(msg)
        if self.compat and (self.over_amqp or self.source == "prometheus" or self.native):
            msg = f"compat: the names of {self.compat} are for the management API alone"
            raise ValueError(msg)
        urls = (self.url, self.native, self.canary and self.canary.url)
        if self.tls != TLSConfig() and not any(url and url.scheme in TLS for url in urls):
            # Nobody means to send a password in the clear who says whom to trust.
            msg = f"tls: only https:// and amqps:// speak TLS, and url is {self.url.scheme}://"
            raise ValueError(msg)


def expect_scheme(key: str, url: Url, schemes: tuple[str, ...], example: str) -> None:
    """Refuse an address of another protocol; ValueError names the one that is expected."""
    if url.scheme not in schemes:
        msg = f"{key}: expected an address such as {example}, not {url.scheme}://"
        raise ValueError(msg)
    if url.query:
        msg = f"{key}: what follows ? has no effect: leave it out"
        raise ValueError(msg)
