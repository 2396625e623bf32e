"""Reads an Ansible inventory in YAML: groups with hosts, children and vars.

Only the variables below are used. Others may hold templates and vaults, which only Ansible can read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bts_exporter.errors import Problem
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
from bts_exporter.settings.schema import INVALID, Schema
from bts_exporter.settings.value_types import Url
from bts_exporter.settings.yaml_document import Document, Path_, format_path

ADDRESS, SSH_ADDRESS = "bts_exporter_address", "ansible_host"
LABELS = "bts_exporter_labels"
COLLECTORS = "bts_exporter_collectors"
PORT_OF_EXPORTER = "bts_exporter_port"
#: Where a group of this name exists, only its hosts have an exporter.
GROUP = "bts_exporter"
_KEYS = frozenset({"hosts", "children", "vars"})
#: Ansible's form NAME:PORT has the port of SSH.
_WITH_SSH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])+):\d+")
_UNREADABLE = (
    "templates, vaults and tags are not read here: write the value (127.0.0.1 in the address of a broker is the"
    " host itself)"
)

#: A variable's value, and where it is.
Located = tuple[Any, Path_]


@dataclass
class _Group:
    """A group: what all its occurrences in the file say together."""

    hosts: set[str] = field(default_factory=set)
    children: set[str] = field(default_factory=set)
    variables: dict[str, Located] = field(default_factory=dict)
    depth: int = 0


def looks_like_ansible(content: object) -> bool:
    """Return whether a document has the form of an Ansible inventory."""
    return isinstance(content, dict) and all(
        group is None or (isinstance(group, dict) and group.keys() <= _KEYS)
        for group in content.values()
    )


def read_ansible(document: Document, schema: Schema) -> Iterator[Machine]:
    """Yield the machines of an Ansible inventory; problems go to the schema."""
    # Values that are not read may be vaults, templates and other text that is not ours.
    unreadable = {problem.path for problem in schema.problems}
    schema.problems = [p for p in schema.problems if p.message == "given twice"]
    yield from _Reader(document, schema, unreadable).machines()


class _Reader:
    def __init__(self, document: Document, schema: Schema, unreadable: set[str]) -> None:
        self._document = document
        self._schema = schema
        self._unreadable = unreadable
        self._groups: dict[str, _Group] = {}
        #: Host -> its own variables, and where it is first named.
        self._hosts: dict[str, tuple[dict[str, Located], Path_]] = {}

    def machines(self) -> Iterator[Machine]:
        for name, content in self._document.value.items():
            self._add_group(name, content, (name,))
        members = self._members(self._below_each())
        by_depth = sorted(self._groups, key=lambda name: (self._groups[name].depth, name))
        members["all"] = set(self._hosts)
        wanted = members.get(GROUP, members["all"])
        for host, (own, path) in self._hosts.items():
            if host in wanted:
                levels = [
                    self._groups[name].variables for name in by_depth if host in members[name]
                ]
                yield self._machine(host, path, [*levels, own])

    def _add_group(self, name: str, content: Any, path: Path_) -> None:
        group = self._groups.setdefault(name, _Group())
        content = self._block(content, path)
        for key in content.keys() - _KEYS:
            self._schema.unknown(key, _KEYS, (*path, key))
        for pattern, variables in self._block(content.get("hosts"), (*path, "hosts")).items():
            self._add_hosts(group, pattern, variables, (*path, "hosts", pattern))
        for child, of_child in self._block(content.get("children"), (*path, "children")).items():
            group.children.add(child)
            self._add_group(child, of_child, (*path, "children", child))
        group.variables.update(self._variables(content.get("vars"), (*path, "vars")))

    def _below_each(self) -> dict[str, list[str]]:
        """Return the groups directly below each group, a group before those below it.

        A group that is below itself, which Ansible refuses, is left out there.
        """
        done: dict[str, list[str]] = {}
        under_way: dict[str, Iterator[str]] = {}
        for first in self._groups:
            under_way[first] = iter(sorted(self._groups[first].children))
            while under_way:
                name, children = next(reversed(under_way.items()))
                child = next((c for c in children if c not in done and c not in under_way), None)
                if child is not None:
                    under_way[child] = iter(sorted(self._groups[child].children))
                    continue
                del under_way[name]
                if name not in done:
                    done[name] = [c for c in self._groups[name].children if c in done]
        return dict(reversed(done.items()))

    def _add_hosts(self, group: _Group, pattern: str, variables: Any, path: Path_) -> None:
        match = _WITH_SSH_PORT.fullmatch(pattern)
        try:
            hosts = expand(match[1] if match else pattern)
        except ValueError as error:
            self._schema.add_problem(path, str(error))
            return
        group.hosts.update(hosts)
        for host in hosts:
            self._hosts.setdefault(host, ({}, path))[0].update(self._variables(variables, path))

    def _variables(self, raw: Any, path: Path_) -> dict[str, Located]:
        return {name: (value, (*path, name)) for name, value in self._block(raw, path).items()}

    def _block(self, raw: Any, path: Path_) -> dict[str, Any]:
        if raw is None:
            return {}
        if isinstance(raw, dict):
            return raw
        self._schema.add_problem(
            path, "expected a block of keys, as in `ansible-inventory --list --yaml`"
        )
        return {}

    def _members(self, below: dict[str, list[str]]) -> dict[str, set[str]]:
        """Return the hosts of each group and of the groups below it; note the longest way to each group.

        Variables of deeper groups have precedence.
        """
        for name, children in below.items():
            group = self._groups[name]
            group.depth = max(group.depth, 0 if name == "all" else 1)
            for child in children:
                self._groups[child].depth = max(self._groups[child].depth, group.depth + 1)
        members: dict[str, set[str]] = {}
        for name, children in reversed(below.items()):
            members[name] = self._groups[name].hosts.union(*(members[c] for c in children))
        return members

    def _machine(self, host: str, path: Path_, levels: list[dict[str, Located]]) -> Machine:
        """Return a machine from its variables, those with the highest precedence last."""
        variables = {name: located for level in levels for name, located in level.items()}
        labels: dict[str, str] = {}
        for level in levels:
            labels |= self._value(level, LABELS, Labels, {})
        port = self._value(variables, PORT_OF_EXPORTER, Port, PORT)
        address_from = ADDRESS if ADDRESS in variables else SSH_ADDRESS
        address = self._value(variables, address_from, Address, host)
        brokers = tuple(self._brokers(variables.get(COLLECTORS), host))
        return Machine(host, address, port, labels, brokers, self._document.problem(path, ""))

    def _value(self, variables: dict[str, Located], name: str, kind: Any, default: Any) -> Any:
        """Return a variable as `kind`, or the default if it is absent or has a problem."""
        if name not in variables:
            return default
        raw, path = variables[name]
        keys = [(*path, key) for key in raw] if isinstance(raw, dict) else []
        for key in (path, *keys):
            if format_path(key) in self._unreadable:
                self._add_once(self._document.problem(key, _UNREADABLE))
                return default
        before, self._schema.problems = self._schema.problems, []
        value = self._schema.convert(raw, kind, path)
        added, self._schema.problems = self._schema.problems, before
        for problem in added:
            self._add_once(problem)
        return default if value is INVALID else value

    def _add_once(self, problem: Problem) -> None:
        if problem not in self._schema.problems:  # a group's variable is that of many hosts
            self._schema.problems.append(problem)

    def _brokers(self, located: Located | None, host: str) -> Iterator[Broker]:
        raw, path = located or (None, ())
        if not isinstance(raw, dict):
            return
        for type_name in sorted(BROKER_PORTS.keys() & raw.keys()):
            blocks = raw[type_name]
            for index, block in enumerate(blocks if isinstance(blocks, list) else [blocks]):
                here = (*path, type_name, index) if isinstance(blocks, list) else (*path, type_name)
                yield from self._of_block(type_name, block, here, host)

    def _of_block(self, type_name: str, block: Any, path: Path_, host: str) -> Iterator[Broker]:
        if not isinstance(block, dict) or "url" not in block:
            return
        url_path = (*path, "url")
        url = self._value({"url": (block["url"], url_path)}, "url", Url, None)
        if url is not None:
            yield broker_at(type_name, url, host, self._document.problem(url_path, ""))
