"""The statistics that mosquitto publishes under `$SYS/broker/`, one value per topic.

Pure functions. https://mosquitto.org/man/mosquitto-8.html lists the topics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from bts_exporter import Metric, counter, gauge

#: `#` without `$SYS/` does not match topics that begin with `$`.
FILTER = "$SYS/#"
PREFIX = "$SYS/broker/"
#: The only topic that is published at every sys_interval, even if unchanged.
UPTIME = PREFIX + "uptime"
STORED = PREFIX + "store/messages/count"
RETAINED = PREFIX + "retained messages/count"

#: Limits of bridges: any client may publish to a topic of a bridge, with any name.
MAX_BRIDGES = 100
MAX_BRIDGE_NAME = 128  # characters

_NUMBER = re.compile(rb"\d{1,20}(?:\.\d{1,9})?")
_UPTIME = re.compile(rb"(\d{1,15})(?: seconds)?")
_VERSION = re.compile(rb"(?:mosquitto version )?([0-9][0-9A-Za-z.+~-]{0,63})")
_BRIDGE = re.compile(rf"connection/([^/]{{1,{MAX_BRIDGE_NAME}}})/state")


class SysValue(NamedTuple):
    """The value of one topic; `metric` is None if only `compat_names` exports it."""

    metric: Metric | None
    labels: tuple[str, ...]
    value: float


UPTIME_SECONDS = gauge("mosquitto_uptime_seconds", "Seconds since the broker started (uptime).")
INFO = gauge(
    "mosquitto_info",
    "A metric with a constant '1' value, labelled by the broker's version (version).",
    "version",
)
BRIDGE_UP = gauge(
    "mosquitto_bridge_up",
    "Whether the bridge is connected (connection/BRIDGE/state).",
    "bridge",
)
QUEUED = gauge(
    "mosquitto_queued_messages",
    "Messages queued for clients, each counted once (store/messages/count minus retained messages/count).",
)
_CLIENTS = gauge(
    "mosquitto_clients",
    "Clients by state; disconnected clients have a persistent session"
    " (clients/connected, clients/disconnected).",
    "state",
)

#: Topic below `$SYS/broker/` -> metric and label values, for numeric payloads.
NUMBERS: Mapping[str, tuple[Metric, tuple[str, ...]]] = MappingProxyType(
    {
        "clients/connected": (_CLIENTS, ("connected",)),
        "clients/disconnected": (_CLIENTS, ("disconnected",)),
    }
    | {
        topic: (metric, ())
        for topic, metric in {
            "clients/total": gauge(
                "mosquitto_sessions", "Connected clients and persistent sessions (clients/total)."
            ),
            "clients/maximum": gauge(
                "mosquitto_clients_max",
                "Maximum number of clients connected at the same time (clients/maximum).",
            ),
            "clients/expired": counter(
                "mosquitto_clients_expired_total",
                "Sessions expired by persistent_client_expiration (clients/expired).",
            ),
            "messages/received": counter(
                "mosquitto_packets_received_total",
                "MQTT packets of any type received (messages/received).",
            ),
            "messages/sent": counter(
                "mosquitto_packets_sent_total", "MQTT packets of any type sent (messages/sent)."
            ),
            "bytes/received": counter(
                "mosquitto_network_bytes_received_total", "Bytes received (bytes/received)."
            ),
            "bytes/sent": counter("mosquitto_network_bytes_sent_total", "Bytes sent (bytes/sent)."),
            "publish/messages/received": counter(
                "mosquitto_messages_received_total",
                "PUBLISH packets received (publish/messages/received).",
            ),
            "publish/messages/sent": counter(
                "mosquitto_messages_sent_total", "PUBLISH packets sent (publish/messages/sent)."
            ),
            "publish/messages/dropped": counter(
                "mosquitto_messages_dropped_total",
                "Messages dropped because of queue or inflight limits (publish/messages/dropped).",
            ),
            "publish/bytes/received": counter(
                "mosquitto_payload_bytes_received_total",
                "Payload bytes of PUBLISH packets received (publish/bytes/received).",
            ),
            "publish/bytes/sent": counter(
                "mosquitto_payload_bytes_sent_total",
                "Payload bytes of PUBLISH packets sent (publish/bytes/sent).",
            ),
            "store/messages/count": gauge(
                "mosquitto_store_messages",
                "Messages in the store, retained and queued (store/messages/count).",
            ),
            "store/messages/bytes": gauge(
                "mosquitto_store_bytes",
                "Payload bytes in the store, retained and queued (store/messages/bytes).",
            ),
            "retained messages/count": gauge(
                "mosquitto_retained_messages",
                "Retained messages, including those of $SYS (retained messages/count).",
            ),
            "subscriptions/count": gauge(
                "mosquitto_subscriptions", "Subscriptions (subscriptions/count)."
            ),
            "shared_subscriptions/count": gauge(
                "mosquitto_shared_subscriptions",
                "Shared subscriptions (shared_subscriptions/count).",
            ),
            "heap/current": gauge(
                "mosquitto_heap_bytes", "Heap memory allocated by the broker (heap/current)."
            ),
            "heap/maximum": gauge(
                "mosquitto_heap_max_bytes",
                "Maximum heap memory allocated by the broker (heap/maximum).",
            ),
        }.items()
    }
)

#: Numeric topics without a metric of ours: rates, for which queries use rate(), and duplicates of
#: topics above.
UNNAMED: tuple[str, ...] = (
    "messages/stored",
    "packet/out/count",
    "packet/out/bytes",
    "connections/socket/count",
    *(
        f"load/{rate}/{span}"
        for rate in (
            "messages/received",
            "messages/sent",
            "publish/dropped",
            "publish/received",
            "publish/sent",
            "bytes/received",
            "bytes/sent",
            "sockets",
            "connections",
        )
        for span in ("1min", "5min", "15min")
    ),
)
_PLAIN: Mapping[str, tuple[Metric | None, tuple[str, ...]]] = MappingProxyType(
    {**NUMBERS, **dict.fromkeys(UNNAMED, (None, ()))}
)

#: All metrics of this file.
METRICS: tuple[Metric, ...] = (
    UPTIME_SECONDS,
    INFO,
    BRIDGE_UP,
    QUEUED,
    *dict.fromkeys(metric for metric, _ in NUMBERS.values()),
)


def read(topic: str, payload: bytes) -> SysValue | None:
    """Return the value of a message; None for an unknown topic or an invalid payload."""
    name = topic.removeprefix(PREFIX)
    if name == topic:
        return None
    if name == "uptime":
        uptime = _UPTIME.fullmatch(payload)
        return SysValue(UPTIME_SECONDS, (), float(uptime[1])) if uptime else None
    if name == "version":
        version = _VERSION.fullmatch(payload)
        return SysValue(INFO, (version[1].decode("ascii"),), 1) if version else None
    if name in _PLAIN:
        metric, labels = _PLAIN[name]
        return SysValue(metric, labels, float(payload)) if _NUMBER.fullmatch(payload) else None
    return _read_bridge(name, payload)


def _read_bridge(name: str, payload: bytes) -> SysValue | None:
    bridge = _BRIDGE.fullmatch(name)
    if bridge is None or payload not in {b"0", b"1"}:
        return None
    return SysValue(BRIDGE_UP, (bridge[1],), float(payload))


def queued(values: Mapping[str, SysValue]) -> float | None:
    """Return the messages queued for clients, or None if that is unknown.

    The broker takes the two counts one after the other: shortly after its start, the number of
    retained messages may exceed that of all messages.
    """
    stored, retained = values.get(STORED), values.get(RETAINED)
    if stored is None or retained is None or stored.value < retained.value:
        return None
    return stored.value - retained.value
