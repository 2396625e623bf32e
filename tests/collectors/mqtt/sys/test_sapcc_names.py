import time

from bts_collectors.mqtt.sys import sapcc_names
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue
from bts_exporter import Kind, Scrape

#: The counters of sapcc's exporter; what else it finds under $SYS it takes for gauges.
COUNTERS = {
    "broker_bytes_received",
    "broker_bytes_sent",
    "broker_messages_received",
    "broker_messages_sent",
    "broker_publish_messages_received",
    "broker_publish_messages_sent",
    "broker_publish_messages_dropped",
}
#: What its two dashboards for Grafana ask for.
GAUGES = {
    "broker_uptime",
    "broker_clients_connected",
    "broker_clients_disconnected",
    "broker_clients_expired",
    "broker_clients_maximum",
    "broker_clients_total",
    "broker_heap_current",
    "broker_heap_maximum",
    "broker_messages_stored",
    "broker_retained_messages_count",
    "broker_store_messages_bytes",
    "broker_store_messages_count",
    "broker_subscriptions_count",
    "broker_load_messages_received_1min",
    "broker_load_bytes_sent_15min",
    "broker_load_publish_dropped_5min",
    "broker_load_connections_1min",
    "broker_load_sockets_1min",
}


def test_names_and_types_are_those_of_the_other_exporter() -> None:
    """Its dashboards and alerts find them."""
    kinds = {metric.name: metric.kind for metric in sapcc_names.SAPCC.values()}

    assert {name for name, kind in kinds.items() if kind is Kind.COUNTER} == COUNTERS
    assert kinds.keys() > GAUGES


def test_values_are_shown_under_these_names() -> None:
    """With and without a metric of ours; topics that the other exporter skips are skipped."""
    topics = {"uptime": b"5 seconds", "load/bytes/sent/1min": b"6.88", "version": b"2.0.11"}
    topics["connection/north/state"] = b"1"
    readings: dict[str, SysValue] = {}
    for name, payload in topics.items():
        topic = systopics.PREFIX + name
        reading = systopics.read(topic, payload)
        assert reading
        readings[topic] = reading
    scrape = Scrape(time.monotonic() + 30)
    sapcc_names.emit(scrape, readings)

    assert {metric.name: found for metric, found in scrape.samples.items()} == {
        "broker_uptime": {(): 5},
        "broker_load_bytes_sent_1min": {(): 6.88},
    }


def test_no_name_is_given_twice() -> None:
    """Topics that differ only in a special character would share a series."""
    assert len({metric.name for metric in sapcc_names.SAPCC.values()}) == len(sapcc_names.SAPCC)
