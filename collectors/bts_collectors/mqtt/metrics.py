"""Metrics of the target itself: whether it is up, and our connection to it.

Each subject (sys, rules, probes, sessions) declares its own metrics next to the code that fills them.
"""

from __future__ import annotations

from ipaddress import ip_address

from bts_collectors.mqtt.client.router import MAX_PAYLOAD_BYTES, Router
from bts_collectors.mqtt.client.session import PORTS
from bts_collectors.mqtt.client.state import (
    CONNECT_REASONS,
    DISCONNECT_REASONS,
    ConnectionState,
)
from bts_exporter import Metric, Scrape, Url, counter, gauge

UP = gauge(
    "mqtt_up",
    "Whether the client is connected and the broker responds: its last uptime ($SYS) or canary message is"
    " not older than stale_after; without these, whether it answers pings.",
)
BROKER = gauge(
    "mqtt_broker_info",
    "A metric with a constant '1' value, labelled by the broker's address in the settings (HOST:PORT), unless that"
    " is a loopback address or a socket.",
    "address",
)
SYS_UPDATED = gauge(
    "mosquitto_sys_last_update_timestamp_seconds",
    "Unix time of the broker's last $SYS/broker/uptime message, even if older than stale_after.",
)
CONNECTED = gauge("mqtt_connected", "Whether the client is connected (CONNACK received).")
CONNECTS = counter("mqtt_connects_total", "Connections that the broker accepted.")
DISCONNECTS = counter(
    "mqtt_disconnects_total",
    f"Connections lost, by reason ({', '.join(DISCONNECT_REASONS)}).",
    "reason",
)
CONNECT_FAILURES = counter(
    "mqtt_connect_failures_total",
    f"Connection attempts that failed, by reason ({', '.join(CONNECT_REASONS)}).",
    "reason",
)
RESTARTS = counter(
    "mqtt_network_thread_restarts_total",
    "Restarts of the network thread's session after an unexpected error.",
)
HANDLING_ERRORS = counter(
    "mqtt_message_handling_errors_total",
    "Received messages whose processing failed with an unexpected error.",
)
REFUSED = counter(
    "mqtt_messages_refused_total",
    f"Received messages discarded before processing, by reason (payload: larger than {MAX_PAYLOAD_BYTES >> 20} MiB;"
    " topic: not UTF-8).",
    "reason",
)
GRANTED_QOS = gauge(
    "mqtt_subscription_granted_qos",
    "QoS that the broker granted to the subscription (SUBACK), -1 if denied.",
    "filter",
)
CONNECTION: tuple[Metric, ...] = (
    CONNECTED,
    CONNECTS,
    DISCONNECTS,
    CONNECT_FAILURES,
    RESTARTS,
    HANDLING_ERRORS,
    REFUSED,
    GRANTED_QOS,
)


def address_of(url: Url) -> str | None:
    """Return HOST:PORT as other machines name the broker; None if they cannot."""
    try:
        loopback = ip_address(url.host).is_loopback
    except ValueError:
        loopback = url.host in {"", "localhost"}
    if loopback:
        return None
    host = f"[{url.host}]" if ":" in url.host else url.host.rstrip(".")
    return f"{host}:{url.port or PORTS[url.scheme]}"


def emit_connection(scrape: Scrape, state: ConnectionState, router: Router) -> None:
    """Emit the metrics of the connection."""
    scrape.emit(CONNECTED, int(state.connected))
    scrape.emit(CONNECTS, state.connects)
    for reason in DISCONNECT_REASONS:
        scrape.emit(DISCONNECTS, state.disconnects[reason], reason)
    for reason in CONNECT_REASONS:
        scrape.emit(CONNECT_FAILURES, state.connect_failures[reason], reason)
    scrape.emit(RESTARTS, state.restarts)
    scrape.emit(HANDLING_ERRORS, state.message_errors)
    scrape.emit(REFUSED, router.oversized, "payload")
    scrape.emit(REFUSED, router.undecodable, "topic")
    for name, qos in state.granted.items():
        scrape.emit(GRANTED_QOS, qos, name)
