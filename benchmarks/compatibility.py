"""Measure which public rules return data from bts-exporter, and write docs/compatibility.md.

A real Prometheus scrapes exporters of real brokers under load, one exporter for each source of RabbitMQ. The
rules come from a JSON file (see public_rules.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import TYPE_CHECKING

from public_rules import Result, Rule, measure, read_rules, rule_file

if TYPE_CHECKING:
    from servers.monitored import MonitoredStack
    from servers.prometheus import Prometheus

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/compatibility.md"
JOB = "bts-exporter"
#: How long data may take: rates need two scrapes, and RabbitMQ's statistics are seconds old.
PATIENCE = 90
#: How long no data may have arrived in the end.
SETTLING = 5

#: Why a metric may be absent, by the beginning of its name.
REASONS = {
    "kube_": "metric of kube-state-metrics",
    "systemd_": "name of systemd_exporter; here the names of node_exporter (`node_systemd_*`)",
    "namedprocess_": "name of process-exporter; here `bts_process_group_*`",
    "node_systemd_": "systemd did not run on the measured machine; `enable: [systemd]`",
    "node_hwmon_": "no sensors in the measured machine",
    "node_md_": "no software RAID in the measured machine",
    "node_edac_": "no memory controller that reports errors in the measured machine",
    "node_bonding_": "no bonded devices in the measured machine",
    "node_network_speed_": "the kernel knew the speed of no device; node_exporter has -125000 then",
}
#: The Debian packages whose versions the page names.
PACKAGES = ("prometheus", "rabbitmq-server", "redis-server")
KBUDDE = "`compat: kbudde`"
MANAGEMENT, NATIVE, PROMETHEUS, AMQP = (
    "management API",
    "management API and `native`",
    "RabbitMQ's own exporter",
    "AMQP",
)
#: Settings of the RabbitMQ collector for each source.
SOURCES = {
    MANAGEMENT: '{{url: "http://guest:guest@127.0.0.1:{mgmt}"}}',
    NATIVE: '{{url: "http://guest:guest@127.0.0.1:{mgmt}", native: "http://127.0.0.1:{native}"}}',
    PROMETHEUS: '{{url: "http://127.0.0.1:{native}"}}',
    AMQP: '{{url: "amqp://guest:guest@127.0.0.1:{amqp}", declare: [bts.readings, my-queue, my-dead-letter-queue]}}',
    KBUDDE: '{{url: "http://guest:guest@127.0.0.1:{mgmt}", compat: kbudde}}',
}
OTHERS = """\
  host: {{enable: [systemd], textfile: {{directories: ["{folder}"]}}}}
  redis: {{url: "{redis}"}}
"""


@dataclass(frozen=True)
class Measured:
    """The results of all rules, by source of RabbitMQ."""

    by_source: Mapping[str, Sequence[Result]]

    def results(self, source: str, collection: str) -> list[Result]:
        """Return the results of one collection."""
        return [one for one in self.by_source[source] if one.rule.collection == collection]

    def collections(self) -> list[str]:
        """Return the names of all collections in their order."""
        return list(dict.fromkeys(one.rule.collection for one in self.by_source[MANAGEMENT]))


def best_source(collection: str) -> str:
    """Return the source of RabbitMQ that a collection is made for."""
    return KBUDDE if "(rabbitmq_exporter)" in collection else MANAGEMENT


def reason(result: Result) -> str:
    """Return why a rule returns no data, empty if that is not known."""
    return next(
        (why for one in result.absent for begin, why in REASONS.items() if one.startswith(begin)),
        "",
    )


@contextmanager
def objects_of_rules(stack: MonitoredStack) -> Iterator[None]:
    """Declare the queues and the exchange that rules name as examples; messages are sent to each."""
    broker = stack.rabbitmq
    names = ("my-queue", "my-dead-letter-queue")
    for name in names:
        broker.queue(name)
        broker.publish(name, 3, timestamp=int(time()))
    broker.api("exchanges/%2F/my-exchange", "PUT", {"type": "fanout"})
    broker.api(
        "bindings/%2F/e/my-exchange/q/my-queue", "POST", {"routing_key": "", "arguments": {}}
    )
    message = {"routing_key": "", "payload": "x", "payload_encoding": "string", "properties": {}}
    broker.api("exchanges/%2F/my-exchange/publish", "POST", message)
    yield
    broker.api("exchanges/%2F/my-exchange", "DELETE")
    for name in names:
        broker.api(f"queues/%2F/{name}", "DELETE")


def measure_all(
    stack: MonitoredStack, rules: Sequence[Rule], folder: Path, sources: Collection[str]
) -> Measured:
    """Return the results of all rules for each source, when no more data arrives."""
    file = folder / "public-rules.yml"
    file.write_text(rule_file(rules))
    servers = {source: _prometheus(stack, source, file) for source in sources}
    measured = Measured({source: [Result(rule) for rule in rules] for source in sources})
    end, settled = monotonic() + PATIENCE, monotonic() + SETTLING
    while monotonic() < (end if unexplained(measured) else settled):
        sleep(1)
        again = Measured(
            {source: _again(servers[source], old) for source, old in measured.by_source.items()}
        )
        if again != measured:
            measured, settled = again, monotonic() + SETTLING
    return measured


def _again(server: Prometheus, results: Sequence[Result]) -> list[Result]:
    """Measure the rules again that have returned no data so far."""
    return [one if one.returns_data else measure(one.rule, server.query) for one in results]


def unexplained(measured: Measured) -> list[Result]:
    """Return the rules that return no data without a reason, with the source that they are made for."""
    return [
        one
        for collection in measured.collections()
        for one in measured.results(best_source(collection), collection)
        if not (one.returns_data or reason(one))
    ]


def _prometheus(stack: MonitoredStack, source: str, file: Path) -> Prometheus:
    broker = stack.rabbitmq
    rabbitmq = SOURCES[source].format(mgmt=broker.mgmt, native=broker.native, amqp=broker.amqp)
    others = OTHERS.format(folder=stack.mosquitto.folder, redis=stack.redis.url)
    exporter = stack.start_exporter(f"collectors:\n  rabbitmq: {rabbitmq}\n{others}")
    return stack.start_prometheus([file], exporter=exporter, job=JOB)


def page(measured: Measured, surroundings: str) -> str:
    """Return docs/compatibility.md."""
    return "\n".join(
        [
            *HEAD.format(surroundings=surroundings).splitlines(),
            "",
            *_table(["collection", "rules", "return data"], _totals(measured)),
            "",
            *SOURCES_HEAD.splitlines(),
            "",
            *_table(["collection", "rules", *SOURCES], _by_source(measured)),
            "",
            *ABSENT_HEAD.splitlines(),
            "",
            *_table(["collection", "rule", "absent", "reason"], _absent(measured)),
            "",
        ]
    )


HEAD = """\
# Compatibility with public rules

Alert and recording rules that were written for other exporters, and how many of them return data from bts-exporter.
Written by `make compatibility RULES=FILE`; the rules themselves are not part of this repository.

{surroundings}

A real Prometheus scraped bts-exporter, with real brokers under a light load. A rule counts as returning data if its
expression returns series after its comparisons are removed: it can fire when its condition is met. Rules that
select another exporter by `job` select the job of bts-exporter instead; queues and exchanges that rules name as examples
exist. RabbitMQ was a cluster of two nodes, and a virtual network device had a known speed.
"""
SOURCES_HEAD = """\
## Sources of RabbitMQ

Rules that return data with each [source](collectors/rabbitmq.md#sources). The names of rabbitmq_exporter are served with
`compat: kbudde`, in place of the others. AMQP has only the depth of named queues."""
ABSENT_HEAD = """\
## Rules without data

For the source that each collection is made for: the management API, or `compat: kbudde`."""


def _totals(measured: Measured) -> Iterator[list[str]]:
    for collection in measured.collections():
        found = measured.results(best_source(collection), collection)
        with_data = sum(one.returns_data for one in found)
        yield [collection, str(len(found)), str(with_data)]


def _by_source(measured: Measured) -> Iterator[list[str]]:
    for collection in measured.collections():
        if "rabbitmq" in collection:
            found = {source: measured.results(source, collection) for source in SOURCES}
            counts = [str(sum(one.returns_data for one in results)) for results in found.values()]
            yield [collection, str(len(found[MANAGEMENT])), *counts]


def _absent(measured: Measured) -> Iterator[list[str]]:
    for collection in measured.collections():
        for one in measured.results(best_source(collection), collection):
            if not one.returns_data:
                names = dict.fromkeys(text.split("{")[0] for text in one.absent)
                absent = ", ".join(f"`{name}`" for name in names)
                yield [collection, one.rule.name, absent, reason(one) or "unknown"]


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def main() -> int:
    """Measure the rules of a file and write the page; 1 if a rule returns no data without a reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", type=Path, help="JSON file of public rules")
    arguments = parser.parse_args()
    sys.path.append(str(ROOT / "tests"))  # its servers are the brokers here
    import report  # noqa: PLC0415  # needs the path
    from servers.link import link_with_speed  # noqa: PLC0415  # as above
    from servers.monitored import MonitoredStack  # noqa: PLC0415  # as above

    rules = read_rules(arguments.rules, JOB)
    with tempfile.TemporaryDirectory(prefix="bts-compatibility-") as name, link_with_speed():
        folder = Path(name)

        def make(kind: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=kind, dir=folder))

        stack = MonitoredStack(make, nodes=2)
        try:
            with objects_of_rules(stack):
                measured = measure_all(stack, rules, folder, SOURCES)
        finally:
            stack.stop()
    PAGE.write_text(page(measured, report.machine(PACKAGES)))
    print(PAGE.read_text())
    return int(bool(unexplained(measured)))


if __name__ == "__main__":
    sys.exit(main())
