"""Reads our own inventory: groups of hosts with labels."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bts_exporter.fleet.host_ranges import expand
from bts_exporter.fleet.machines import (
    BROKER_PORTS,
    PORT,
    Address,
    Broker,
    Labels,
    Machine,
    Port,
    broker_at,
)
from bts_exporter.settings.schema import Schema
from bts_exporter.settings.value_types import Url
from bts_exporter.settings.yaml_document import Document, Path_


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host, or a range of hosts."""

    #: Where Prometheus reaches it, if not by its name.
    address: Address | None = None
    port: Port | None = None
    labels: Labels = Labels()
    #: Collector type -> addresses of the brokers that the host's exporter monitors.
    brokers: dict[str, tuple[Url, ...]] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts with common labels."""

    hosts: dict[str, Host | None]
    port: Port | None = None
    labels: Labels = Labels()


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    groups: dict[str, Group]
    port: Port = PORT
    labels: Labels = Labels()


def read_own(document: Document, schema: Schema) -> Iterator[Machine]:
    """Yield the machines of an inventory of ours; problems go to the schema."""
    inventory = schema.convert(document.value, Inventory, ())
    if not schema.problems:
        yield from _Reader(document, schema).machines(inventory)


class _Reader:
    def __init__(self, document: Document, schema: Schema) -> None:
        self._document = document
        self._schema = schema

    def machines(self, inventory: Inventory) -> Iterator[Machine]:
        for name, group in inventory.groups.items():
            for pattern, listed in group.hosts.items():
                host = listed or Host()
                inherited = msgspec.structs.replace(
                    host,
                    port=host.port or group.port or inventory.port,
                    labels=Labels(inventory.labels | group.labels | host.labels),
                )
                yield from self._of_host(("groups", name, "hosts", pattern), inherited)

    def _of_host(self, path: Path_, host: Host) -> Iterator[Machine]:
        try:
            names = expand(str(path[-1]))
        except ValueError as error:
            self._schema.add_problem(path, str(error))
            return
        if host.address is not None and len(names) > 1:
            message = f"{len(names)} hosts cannot have one address: list them one by one"
            self._schema.add_problem((*path, "address"), message)
            return
        place = self._document.problem(path, "")
        for name in names:
            brokers = tuple(self._brokers((*path, "brokers"), host, name))
            port = host.port or PORT
            yield Machine(name, host.address or name, port, host.labels, brokers, place)

    def _brokers(self, path: Path_, host: Host, machine: str) -> Iterator[Broker]:
        for type_name, urls in host.brokers.items():
            if type_name not in BROKER_PORTS:
                here = (*path, type_name)
                self._schema.unknown(type_name, BROKER_PORTS, here, what="type of broker")
                continue
            for index, url in enumerate(urls):
                place = self._document.problem((*path, type_name, index), "")
                yield broker_at(type_name, url, machine, place)
