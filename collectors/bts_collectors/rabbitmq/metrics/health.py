"""Health checks and current alarms: /api/nodes reports alarms seconds later."""

from __future__ import annotations

import msgspec

from bts_collectors.rabbitmq.api.models import ApiModel
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.api.responses import check_passes
from bts_exporter import Scrape, gauge

ALARMS = "alarms"
#: Paths of cheap checks by name; a version that lacks one responds with 404.
CHECKS = {
    ALARMS: "/api/health/checks/alarms",
    "local-alarms": "/api/health/checks/local-alarms",
    "virtual-hosts": "/api/health/checks/virtual-hosts",
    "node-is-quorum-critical": "/api/health/checks/node-is-quorum-critical",
    "certificate-expiration": "/api/health/checks/certificate-expiration/1/months",
}
#: Share of the time left for one check.
MAX_SHARE = 0.3

HEALTH = gauge(
    "rabbitmq_health_check_ok",
    "Whether the health check passes (/api/health/checks/{check}).",
    ("check",),
)
METRICS = (HEALTH,)

#: Active alarms: (node, `memory` or `disk`).
Alarms = frozenset[tuple[str, str]]


class Alarm(ApiModel):
    """An item of `alarms`."""

    node: str
    resource: str


class AlarmCheck(ApiModel):
    """The response of the check `alarms` if it fails."""

    alarms: list[Alarm]


_ALARM_CHECK = msgspec.json.Decoder(AlarmCheck)


def collect_health(scrape: Scrape, batch: RequestBatch) -> Alarms | None:
    """Emit the health checks; return the active alarms, None if unknown.

    The first request that fails ends them.
    """
    alarms = None
    failed = len(batch.failures)
    for name, path in CHECKS.items():
        found = batch.get_with(
            path, lambda response: (check_passes(response), response.body), MAX_SHARE
        )
        if len(batch.failures) > failed:
            break  # other requests would take as long to fail
        passes, body = found or (None, b"")
        if passes is not None:
            scrape.emit(HEALTH, passes, name)
        if name == ALARMS:
            alarms = read_alarms(body, passes=passes)
    return alarms


def read_alarms(body: bytes | bytearray, *, passes: bool | None) -> Alarms | None:
    """Return the alarms in the response of the check `alarms`; None if it does not contain them."""
    if passes:
        return frozenset()
    try:
        return frozenset((alarm.node, alarm.resource) for alarm in _ALARM_CHECK.decode(body).alarms)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
