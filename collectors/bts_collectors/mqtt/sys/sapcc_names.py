"""The names that sapcc's mosquitto-exporter gives to mosquitto's own account of itself.

They are the topics, without the `$SYS/` in front; its dashboards for Grafana ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue
from bts_exporter import Kind, Metric, Scrape

#: What it takes for counters; all else are gauges.
_COUNTERS = {
    "bytes/received",
    "bytes/sent",
    "messages/received",
    "messages/sent",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
}


def _metric(topic: str) -> Metric:
    name = "broker_" + topic.replace("/", "_").replace(" ", "_")
    kind = Kind.COUNTER if topic in _COUNTERS else Kind.GAUGE
    return Metric(name, f"As mosquitto-exporter shows it ($SYS/broker/{topic}).", kind)


#: Topic -> metric.
SAPCC: Mapping[str, Metric] = MappingProxyType(
    {
        systopics.PREFIX + topic: _metric(topic)
        for topic in ("uptime", *systopics.NUMBERS, *systopics.UNNAMED)
    }
)


def emit(scrape: Scrape, values: Mapping[str, SysValue]) -> None:
    """Emit the readings, by topic, under the other exporter's names."""
    for topic, value in values.items():
        if topic in SAPCC:
            scrape.emit(SAPCC[topic], value.value)
