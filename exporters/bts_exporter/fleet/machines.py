"""The machines of an inventory, and the checks that concern more than one of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bts_exporter.errors import Problem
from bts_exporter.settings.value_types import Url

_MAX_PORT = 65535
#: The rules in monitoring/prometheus name this job.
JOB = "bts-exporter"
#: Collector types whose target must have one collector, and the usual ports of one server, the first by default.
BROKER_PORTS = {
    "mqtt": (1883, 8883),
    "rabbitmq": (15672, 15671, 15692, 5672, 5671),
    "redis": (6379,),
}
#: Labels of our metrics that alerts use. As a target's label they would rename ours to exported_...
_OURS = frozenset(
    [
        "address",
        "bridge",
        "broker",
        "cause",
        "check",
        "collector",
        "db",
        "destination",
        "device",
        "device_error",
        "effect",
        "filter",
        "group",
        "instance",
        "le",
        "master_host",
        "master_port",
        "method",
        "mode",
        "mountpoint",
        "name",
        "node",
        "nodename",
        "operation",
        "parameter",
        "pipeline",
        "qos",
        "quality",
        "queue",
        "queue_type",
        "rabbitmq_cluster",
        "reason",
        "resource",
        "rule",
        "run_id",
        "setting",
        "sha256",
        "source",
        "stream",
        "system",
        "target",
        "version",
        "vhost",
    ]
)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that one machine's exporter monitors."""

    type_name: str
    address: str
    host: str
    #: The port, or the path of a socket. Usual ports of one server are the same.
    port: str
    #: Where the inventory names it; the message is empty.
    place: Problem


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with an exporter."""

    name: str
    address: str
    port: int
    labels: Mapping[str, str]
    brokers: tuple[Broker, ...]
    #: Where the inventory names it; the message is empty.
    place: Problem

    @property
    def target(self) -> str:
        """The address that Prometheus scrapes."""
        return join(self.address, self.port)


def join(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_host(text: str) -> bool:
    """Return whether `text` is a host name or an IP address."""
    return is_ipv6(text) or _HOST.fullmatch(text) is not None


def is_ipv6(text: str) -> bool:
    """Return whether `text` is an IPv6 address."""
    try:
        return ipaddress.ip_address(text).version == 6  # noqa: PLR2004  # of the protocol
    except ValueError:
        return False


class Port(int):
    """A TCP port, as a setting."""

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the port; ValueError if it is not one."""
        if not isinstance(raw, int) or isinstance(raw, bool) or not 1 <= raw <= _MAX_PORT:
            msg = f"{raw!r} is not a valid port (expected 1 to {_MAX_PORT})"
            raise ValueError(msg)
        return cls(raw)


#: The exporter's default.
PORT = Port(19100)


class Address(str):
    """A host name or an IP address, as a setting."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the address; ValueError if it is not valid."""
        if not isinstance(raw, str) or not is_host(raw):
            msg = f"{raw!r} is not a valid host name or IP address (expected one without a port)"
            raise ValueError(msg)
        return cls(raw)


class Labels(dict[str, str]):
    """Labels of targets, as a setting."""

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the labels; ValueError if one is not valid."""
        if not isinstance(raw, dict):
            msg = f"expected labels such as {{site: north}}, got {raw!r}"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        for name, value in raw.items():
            if mistake := _mistake_in_label(name, value):
                raise ValueError(mistake)
        return cls(raw)


def _mistake_in_label(name: str, value: object) -> str | None:
    if not isinstance(value, str):
        return f"the value of {name} is {value!r}, not text (put it in quotes: '{value}')"
    if not value:
        return f"the value of {name} is empty, which Prometheus treats as a missing label"
    if not _LABEL.fullmatch(name):
        return f"{name!r} is not a valid label name (expected letters, digits and _)"
    if name == "__address__":
        return "__address__ is the host and the port: set address and port"
    if name in _OURS:
        return (
            f"the label {name} belongs to the exporter's metrics: Prometheus would rename theirs to"
            f" exported_{name}, and alerts would not find it; choose another name"
        )
    return None


def broker_at(type_name: str, url: Url, machine: str, place: Problem) -> Broker:
    """Return the broker at `url`; a loopback address or a socket is that of `machine`."""
    usual = BROKER_PORTS[type_name]
    port = usual[0] if url.port is None or url.port in usual else url.port
    local = url.scheme == "unix" or _is_loopback(url.host)
    host = machine if local else url.host
    return Broker(type_name, str(url), host, url.path if url.scheme == "unix" else str(port), place)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _normal(host: str) -> str:
    return host.lower().rstrip(".")


def problems_of(machines: Sequence[Machine]) -> Iterator[Problem]:
    """Yield the machines that are listed twice, and the brokers with two collectors."""
    yield from _repeated(
        ((_normal(machine.name), machine.place) for machine in machines),
        "the host {} is listed twice, first at {}: delete one of them",
    )
    names: dict[str, str] = {}
    for machine in machines:
        first = names.setdefault(_normal(machine.target), machine.name)
        if _normal(first) != _normal(machine.name):
            message = f"{machine.target} is the address of {first}, too: give each its own address or port"
            yield machine.place._replace(message=message)
    yield from _placed_twice(machines)


def _placed_twice(machines: Sequence[Machine]) -> Iterator[Problem]:
    """Yield the brokers with two collectors, unless the two are replicas: targets whose label `replica` differs."""
    # A machine may be named by its name or its address.
    names = {_normal(machine.address): machine.name for machine in reversed(machines)}
    placed: dict[str, dict[str, Problem]] = {}
    for machine in machines:
        replica = machine.labels.get("replica", "")
        for broker in machine.brokers:
            host = _normal(names.get(_normal(broker.host), broker.host))
            key = f"{broker.type_name} at {host}:{broker.port}"
            earlier = placed.setdefault(key, {})
            if earlier and (not replica or {"", replica} & earlier.keys()):
                first = next(iter(earlier.values()))
                message = (
                    f"two collectors are placed for one broker ({key}), first at {first.file}:{first.line}: its"
                    " messages would be counted twice; keep one of them"
                )
                yield broker.place._replace(message=message)
            earlier.setdefault(replica, broker.place)


def _repeated(found: Iterable[tuple[str, Problem]], message: str) -> Iterator[Problem]:
    first: dict[str, Problem] = {}
    for key, place in found:
        earlier = first.setdefault(key, place)
        if earlier is not place:
            where = f"{earlier.file}:{earlier.line}"
            yield place._replace(message=message.format(key, where))
