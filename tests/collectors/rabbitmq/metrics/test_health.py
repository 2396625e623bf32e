from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.client import MANAGEMENT, connect
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.metrics.health import (
    CHECKS,
    HEALTH,
    Alarms,
    collect_health,
    read_alarms,
)
from bts_exporter import HttpClient, Scrape, Url
from servers.management import FakeManagement, Reply, answer, hang, send

IN_FORCE = {
    "status": "failed",
    "reason": "There are alarms in effect in the cluster",
    "alarms": [{"node": "rabbit@one", "resource": "memory"}],
}


@pytest.fixture
def client(management: FakeManagement) -> Iterator[HttpClient]:
    """Return a client of a fake whose checks all pass."""
    for path in CHECKS.values():
        management.routes[path] = answer({"status": "ok"})
    asking = connect(MANAGEMENT, Url.from_setting(management.url))
    yield asking
    asking.close()


def checked(
    client: HttpClient, seconds: float = 20.0
) -> tuple[dict[str, float], Alarms | None, RequestBatch]:
    """Return the checks that were answered, the active alarms and the request batch."""
    scrape, batch = Scrape(monotonic() + 20), RequestBatch(client, seconds)
    alarms = collect_health(scrape, batch)
    return {key[0]: value for key, value in scrape.samples.get(HEALTH, {}).items()}, alarms, batch


def test_all_checks_pass_on_a_healthy_broker(client: HttpClient) -> None:
    """A healthy broker passes every check, and is known to have no alarms."""
    passes, alarms, batch = checked(client)

    assert passes == dict.fromkeys(CHECKS, 1)
    assert alarms == frozenset()
    assert not batch.failures


def test_a_check_that_fails_is_an_answer(management: FakeManagement, client: HttpClient) -> None:
    """Status 503 is the result of a failed check, not a failure of the collection."""
    management.routes[CHECKS["alarms"]] = answer(IN_FORCE, 503)
    management.routes[CHECKS["virtual-hosts"]] = answer({"status": "failed"}, 503)

    passes, alarms, batch = checked(client)

    assert passes == {**dict.fromkeys(CHECKS, 1), "alarms": 0, "virtual-hosts": 0}
    assert alarms == {("rabbit@one", "memory")}
    assert not batch.failures


def test_a_check_that_a_version_lacks_has_no_sample(
    management: FakeManagement, client: HttpClient
) -> None:
    """A check that a version does not have has no metric."""
    del management.routes[CHECKS["alarms"]]

    passes, alarms, batch = checked(client)

    assert passes == {check: 1 for check in CHECKS if check != "alarms"}
    assert alarms is None
    assert not batch.failures


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (hang, "timeout"),
        (send(b"<html>"), "protocol"),
        (answer({"error": "not_authorised", "reason": "Not management user"}, 401), "noperm"),
        (send(b"<html>Service Unavailable</html>", 503), "protocol"),
    ],
)
def test_after_a_check_without_answer_no_other_is_asked(
    management: FakeManagement, client: HttpClient, reply: Reply, reason: str
) -> None:
    """After a failed request the other checks are skipped, to keep time for queues."""
    management.routes[CHECKS["local-alarms"]] = reply

    passes, alarms, batch = checked(client, 1.0 if reason == "timeout" else 20.0)

    assert passes == {"alarms": 1}
    assert alarms == frozenset()
    assert [failure.reason for failure in batch.failures] == [reason]
    assert management.requests == [CHECKS["alarms"], CHECKS["local-alarms"]]


@pytest.mark.parametrize(
    ("body", "passes", "alarms"),
    [
        (b'{"status":"ok"}', True, frozenset()),
        (
            b'{"alarms":[{"node":"a","resource":"disk"},{"node":"b","resource":"memory"}]}',
            False,
            {("a", "disk"), ("b", "memory")},
        ),
        (b'{"status":"failed","reason":"something else"}', False, None),
        (b"", None, None),
    ],
)
def test_alarms_are_read_by_node_and_resource(
    body: bytes, passes: bool | None, alarms: Alarms | None
) -> None:
    """Alarms are read by node and resource; they are unknown if a failed check does not list them."""
    assert read_alarms(body, passes=passes) == alarms
