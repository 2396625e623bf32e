"""Health checks and alarms as they are now: the statistics of /api/nodes are seconds late."""

from __future__ import annotations

import msgspec

from bts_collectors.rabbitmq.api.models import ApiModel
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.api.responses import check_passes
from bts_exporter import Scrape, gauge

ALARMS = "alarms"
#: Checks by name, cheap ones alone; a version that lacks one says so.
CHECKS = {
    ALARMS: "/api/health/checks/alarms",
    "local-alarms": "/api/health/checks/local-alarms",
    "virtual-hosts": "/api/health/checks/virtual-hosts",
    "node-is-quorum-critical": "/api/health/checks/node-is-quorum-critical",
    "certificate-expiration": "/api/health/checks/certificate-expiration/1/months",
}
#: The part of the time left that one check may take.
SHARE = 0.3

HEALTH = gauge(
    "rabbitmq_health_check_ok",
    "Whether the health check passes (/api/health/checks/{check}).",
    ("check",),
)
METRICS = (HEALTH,)

#: Alarms in force: (node, `memory` or `disk`).
Alarms = frozenset[tuple[str, str]]


class Alarm(ApiModel):
    """An item of `alarms`."""

    node: str
    resource: str


class AlarmCheck(ApiModel):
    """A failed check of alarms."""

    alarms: list[Alarm]


_ALARM_CHECK = msgspec.json.Decoder(AlarmCheck)


def collect_health(scrape: Scrape, batch: RequestBatch) -> Alarms | None:
    """Ask check by check until one gives no answer; return the alarms in force, None if unknown."""
    alarms = None
    failed = len(batch.failures)
    for name, path in CHECKS.items():
        found = batch.ask(path, lambda response: (check_passes(response), response.body), SHARE)
        if len(batch.failures) > failed:
            break  # the others would take as long to fail
        passes, body = found or (None, b"")
        if passes is not None:
            scrape.emit(HEALTH, passes, name)
        if name == ALARMS:
            alarms = read_alarms(body, passes=passes)
    return alarms


def read_alarms(body: bytes | bytearray, *, passes: bool | None) -> Alarms | None:
    """Return the alarms that the check of that name tells of, None where it does not."""
    if passes:
        return frozenset()
    try:
        return frozenset((alarm.node, alarm.resource) for alarm in _ALARM_CHECK.decode(body).alarms)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
