"""The metric names of sapcc's mosquitto-exporter, for its Grafana dashboards.

A name is the topic without `$SYS/`, with underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue
from bts_exporter import Kind, Metric, Scrape

#: Topics that it exports as counters; all others are gauges.
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
    return Metric(name, f"$SYS/broker/{topic}, named as by sapcc/mosquitto-exporter.", kind)


#: Topic -> metric.
SAPCC: Mapping[str, Metric] = MappingProxyType(
    {
        systopics.PREFIX + topic: _metric(topic)
        for topic in ("uptime", *systopics.NUMBERS, *systopics.UNNAMED)
    }
)


def emit(scrape: Scrape, values: Mapping[str, SysValue]) -> None:
    """Emit the values, given by topic, under these names."""
    for topic, value in values.items():
        if topic in SAPCC:
            scrape.emit(SAPCC[topic], value.value)
