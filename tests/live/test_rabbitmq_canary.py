from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.config import CanarySettings
from bts_exporter import Duration, Scrape, TargetError, Url
from servers import wait_until
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live

DOCS = (Path(__file__).parents[2] / "docs/collectors/rabbitmq.md").read_text()
KINDS = {("/", "classic"), ("/", "quorum")}

Samples = dict[str, dict[tuple[str, ...], float]]


@contextmanager
def canary(broker: Broker, credentials: str = "guest:guest") -> Iterator[RabbitMQ]:
    """Return a collector with a canary at work, that is stopped in the end."""
    url = broker.amqp_url.replace("//", f"//{credentials}@")
    settings = CanarySettings(url=Url.from_setting(url), interval=Duration(2), timeout=Duration(2))
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(broker.url), canary=settings))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def collect(made: RabbitMQ, seconds: float = 20.0) -> tuple[Samples, TargetError | None]:
    """Return the samples of one collection and the error that it ends in."""
    scrape = Scrape(monotonic() + seconds)
    failure = None
    try:
        made.collect(scrape)
    except TargetError as error:
        failure = error
    assert scrape.losses == []
    return {metric.name: dict(values) for metric, values in scrape.samples.items()}, failure


def when(made: RabbitMQ, condition: Callable[[Samples], object], what: str) -> Samples:
    """Return the samples of the first collection of which `condition` holds."""
    found: Samples = {}

    def holds() -> object:
        found.clear()
        found.update(collect(made)[0])
        return condition(found)

    wait_until(holds, what, seconds=90)
    return found


def is_up(samples: Samples) -> bool:
    """Return whether messages go through queues of both types."""
    return samples.get("rabbitmq_canary_up") == dict.fromkeys(KINDS, 1)


def count(samples: Samples, result: str) -> float:
    """Return how many messages ended so, over both types."""
    return sum(n for key, n in samples["rabbitmq_canary_probes_total"].items() if key[-1] == result)


def queues(broker: Broker) -> set[str]:
    """Return the canary's queues."""
    names = {queue["name"] for queue in broker.api("queues?columns=name")}
    return {name for name in names if name.startswith("bts-exporter-canary-")}


def test_messages_go_through_a_queue_of_each_type_and_leave_nothing(rabbitmq: Broker) -> None:
    """Probes use one connection, and the queues are deleted with the canary."""
    with canary(rabbitmq) as made:
        samples = when(made, lambda found: is_up(found) and count(found, "ok") >= 4, "it is up")
        wait_until(lambda: len(queues(rabbitmq)) == 2, "the queues are listed")
        own = [c for c in rabbitmq.api("connections") if c.get("user_provided_name")]

    assert len(own) == 1
    for key in KINDS:
        confirm = samples["rabbitmq_canary_publish_confirm_seconds"]
        whole = samples["rabbitmq_canary_end_to_end_seconds"]
        assert confirm["_count", *key] == whole["_count", *key] >= 2
        assert 0 < confirm["_sum", *key] < whole["_sum", *key]
    wait_until(lambda: queues(rabbitmq) == set(), "the queues are gone")


def test_a_queue_that_outlives_us_removes_itself(rabbitmq: Broker) -> None:
    """A quorum queue expires after the exporter was killed."""
    with canary(rabbitmq) as made:
        when(made, is_up, "it is up")
        found = {
            q["name"].split("-")[3]: q for q in rabbitmq.api("queues") if "canary" in q["name"]
        }

    assert found["quorum"]["arguments"]["x-expires"] == 300_000
    assert found["classic"]["exclusive"] is True


def test_an_alarm_blocks_messages_and_no_scrape(rabbitmq: Broker) -> None:
    """An alarm has the result `blocked`, and ends with the alarm."""
    with canary(rabbitmq) as made:
        when(made, is_up, "it is up")
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "20MB")
        try:
            # So often that connections given up are still open for the broker, with what is theirs.
            samples = when(made, lambda found: count(found, "blocked") >= 6, "it is blocked")
            _, failure = collect(made)
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        when(made, is_up, "it is up again")

    assert samples["rabbitmq_canary_up"] == dict.fromkeys(KINDS, 0)
    assert count(samples, "unreachable") == 0
    assert samples["rabbitmq_health_check_ok"]["alarms",] == 0
    assert samples["rabbitmq_alarms_memory_used_watermark"] == {(rabbitmq.node,): 1}
    assert failure is None


def test_a_message_that_no_queue_takes_is_unroutable(rabbitmq: Broker) -> None:
    """After the deletion of a canary queue, one probe is unroutable and the next one creates it."""
    with canary(rabbitmq) as made:
        when(made, is_up, "it is up")
        wait_until(lambda: len(queues(rabbitmq)) == 2, "the queues are listed")
        [quorum] = [name for name in queues(rabbitmq) if "quorum" in name]
        rabbitmq.api(f"queues/%2F/{quote(quorum)}", "DELETE")

        samples = when(made, lambda found: count(found, "unroutable"), "it shows")
        assert count(samples, "unroutable") == 1
        when(made, is_up, "it is up again")


def test_a_frozen_broker_is_seen_and_delays_no_scrape(rabbitmq: Broker) -> None:
    """A frozen broker is reported before the connection breaks, and probes continue afterwards."""
    with canary(rabbitmq) as made:
        when(made, is_up, "it is up")
        rabbitmq.process.freeze()
        try:
            down = dict.fromkeys(KINDS, 0)
            wait_until(lambda: collect(made, 0.5)[0]["rabbitmq_canary_up"] == down, "it is down")
        finally:
            rabbitmq.process.thaw()
        when(made, is_up, "it is up again")


def test_a_connection_that_breaks_is_opened_again(rabbitmq: Broker) -> None:
    """A lost connection is counted once and opened again."""
    with canary(rabbitmq) as made:
        when(made, is_up, "it is up")
        rabbitmq.ctl("close_all_connections", "test")
        before = count(collect(made)[0], "ok")
        when(made, lambda found: count(found, "ok") > before and is_up(found), "it is up again")


def test_the_canarys_user_of_the_documentation_may_do_that_and_nothing_else(
    rabbitmq: Broker,
) -> None:
    """The documented commands create a user that can run the canary and nothing else."""
    section = DOCS.partition("## Canary")[2].partition("\n## ")[0]
    commands = re.findall(r"^rabbitmqctl (.+)$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["add_user", "set_permissions"]
    for command in commands:
        rabbitmq.ctl(*shlex.split(command))

    with canary(rabbitmq, "canary:PASSWORD") as made:
        when(made, is_up, "it is up")
        assert collect(made)[1] is None
    wait_until(lambda: queues(rabbitmq) == set(), "the queues are gone")
    permissions = rabbitmq.api("users/canary/permissions")
    assert [p["configure"] for p in permissions] == ["^bts-exporter-canary-"]


@pytest.mark.parametrize(
    ("name", "permissions", "reason"),
    [
        ("nobody", None, "auth"),
        ("stranger", {}, "noperm"),
        ("powerless", {"configure": "^$", "write": "^$", "read": "^$"}, "noperm"),
        ("writeless", {"configure": ".*", "write": "^bts", "read": ".*"}, "noperm"),
    ],
)
def test_a_user_who_may_not_is_denied(
    rabbitmq: Broker, name: str, permissions: dict[str, str] | None, reason: str
) -> None:
    """Missing permissions fail the collection, and everything else is served."""
    if permissions is not None:
        rabbitmq.user(name, "x", "")
    if permissions:
        rabbitmq.api(f"permissions/%2F/{name}", "PUT", permissions)

    with canary(rabbitmq, f"{name}:x") as made:
        samples = when(made, lambda found: count(found, "denied") >= 2, "it is denied")
        _, failure = collect(made)

    assert samples["rabbitmq_canary_up"] == dict.fromkeys(KINDS, 0)
    assert samples["rabbitmq_up"] == {(): 1}
    assert failure is not None
    assert failure.reason == reason
    assert str(failure).startswith(f"canary: RabbitMQ at {rabbitmq.amqp_url}: ")
