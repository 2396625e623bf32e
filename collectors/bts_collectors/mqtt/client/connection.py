"""The metrics of our connection to a broker, whatever broker it is."""

from __future__ import annotations

from bts_collectors.mqtt.client.router import MAX_PAYLOAD, Router
from bts_collectors.mqtt.client.state import CONNECT_REASONS, DISCONNECT_REASONS, Link
from bts_exporter import Metric, Scrape, counter, gauge

CONNECTED = gauge("mqtt_connected", "Whether the broker has accepted our connection.")
CONNECTS = counter("mqtt_connects_total", "Connections that the broker accepted.")
DISCONNECTS = counter(
    "mqtt_disconnects_total",
    f"Connections that ended without our will, by reason ({', '.join(DISCONNECT_REASONS)}).",
    "reason",
)
CONNECT_FAILURES = counter(
    "mqtt_connect_failures_total",
    f"Attempts to connect that failed, by reason ({', '.join(CONNECT_REASONS)}).",
    "reason",
)
RESTARTS = counter(
    "mqtt_network_thread_restarts_total",
    "Times that the network thread was restarted after an unforeseen error.",
)
HANDLING_ERRORS = counter(
    "mqtt_message_handling_errors_total",
    "Messages received whose handling failed by an unforeseen error.",
)
REFUSED = counter(
    "mqtt_messages_refused_total",
    f"Messages that nobody was shown, by reason (payload: larger than {MAX_PAYLOAD >> 20} MiB;"
    " topic: not UTF-8).",
    "reason",
)
GRANTED_QOS = gauge(
    "mqtt_subscription_granted_qos",
    "QoS that the broker granted to our subscription (SUBACK); -1 if it denied it.",
    "filter",
)
METRICS: tuple[Metric, ...] = (
    CONNECTED,
    CONNECTS,
    DISCONNECTS,
    CONNECT_FAILURES,
    RESTARTS,
    HANDLING_ERRORS,
    REFUSED,
    GRANTED_QOS,
)


def emit(scrape: Scrape, link: Link, router: Router) -> None:
    """Emit how the connection fares."""
    scrape.emit(CONNECTED, int(link.connected))
    scrape.emit(CONNECTS, link.connects)
    for reason in DISCONNECT_REASONS:
        scrape.emit(DISCONNECTS, link.disconnects[reason], reason)
    for reason in CONNECT_REASONS:
        scrape.emit(CONNECT_FAILURES, link.connect_failures[reason], reason)
    scrape.emit(RESTARTS, link.restarts)
    scrape.emit(HANDLING_ERRORS, link.message_errors)
    scrape.emit(REFUSED, router.oversized, "payload")
    scrape.emit(REFUSED, router.undecodable, "topic")
    for name, qos in link.granted.items():
        scrape.emit(GRANTED_QOS, qos, name)
