import signal
import time
from pathlib import Path

import pytest

from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig
from bts_exporter.testing import collect, look
from servers import wait_until
from servers.exporter import StartExporter
from servers.mosquitto import Mosquitto, StartMosquitto
from servers.mqtt import Start, shows

pytestmark = pytest.mark.live

QUEUED = "mosquitto_client_queued_messages"
DOCS = Path(__file__).parents[2] / "docs/collectors/mqtt.md"


@pytest.fixture
def saving(start_mosquitto: StartMosquitto, tmp_path: Path) -> Mosquitto:
    """Return a broker that saves its sessions on demand."""
    return start_mosquitto("persistence true", f"persistence_location {tmp_path}/")


def save(broker: Mosquitto, file: Path, said: int = 1) -> None:
    """Let the broker save its sessions for the `said`th time."""
    assert broker.process
    process = broker.process
    process.popen.send_signal(signal.SIGUSR1)
    line = f"Saving in-memory database to {file.parent}"
    wait_until(lambda: process.log.read_text().count(line) >= said, "told to save")
    wait_until(file.exists, "saved")


def test_queue_of_each_disconnected_client_is_shown(
    saving: Mosquitto, start: Start, tmp_path: Path
) -> None:
    """The persistence file has exact counts by client, where $SYS has only one count."""
    file = tmp_path / "mosquitto.db"
    saving.subscribe_and_leave("consumer", "bts/#")
    saving.subscribe_and_leave("archive", "bts/1/#")
    saving.subscribe_and_leave("idle", "other/#")
    saving.publish("bts/1/temperature", "x" * 1000, count=7)
    saving.publish("bts/2/temperature", count=3)
    saving.publish("bts/kept", retain=True)
    save(saving, file)
    collector = start(saving.url, persistence=PersistenceConfig(file=str(file)))
    wait_until(shows(collector, QUEUED, 11, "consumer"), "file read")
    found = collect(collector)

    assert found[QUEUED] == {("consumer",): 11, ("archive",): 7, ("idle",): 0}
    assert found["messaging_backlog_messages"]["mqtt", "", "consumer"] == 11
    assert found["messaging_in_flight_messages"]["mqtt", "", "archive"] == 0
    assert found["mosquitto_persistence_saved_timestamp_seconds"][()] == file.stat().st_mtime
    assert found["mqtt_client_queues_left_out"] == {(): 0}


def test_new_file_is_read(saving: Mosquitto, start: Start, tmp_path: Path) -> None:
    """After each save the queues are updated."""
    file = tmp_path / "mosquitto.db"
    saving.subscribe_and_leave("consumer", "bts/#")
    saving.publish("bts/1/temperature", count=2)
    save(saving, file)
    collector = start(saving.url, persistence=PersistenceConfig(file=str(file)))
    wait_until(shows(collector, QUEUED, 2, "consumer"), "2 messages")
    saving.publish("bts/1/temperature", count=3)
    save(saving, file, said=2)

    wait_until(shows(collector, QUEUED, 5, "consumer"), "5 messages")


def test_lag_and_limit_of_a_disconnected_client(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """Saved files number the messages, so that later files say how long the oldest one has waited, at least."""
    broker = start_mosquitto(
        "persistence true", f"persistence_location {tmp_path}/", "max_queued_messages 5"
    )
    file = tmp_path / "mosquitto.db"
    persistence = PersistenceConfig(file=str(file), max_queued_messages=5)
    labels = ("mqtt", "", "consumer")
    broker.subscribe_and_leave("consumer", "bts/#")
    save(broker, file)
    collector = start(broker.url, persistence=persistence)
    wait_until(shows(collector, "messaging_lag_seconds", 0, *labels), "the queue is empty")
    before = time.time()
    broker.publish("bts/1/temperature", count=9)
    save(broker, file, said=2)

    wait_until(shows(collector, QUEUED, 5, "consumer"), "the queue is full")
    found = collect(collector)

    assert found["messaging_limit_messages"] == {labels: 5}
    assert found["messaging_overflow_info"] == {(*labels, "limit", "reject_new", "setting"): 1}
    # Where saving took more than ten seconds, the age is only a lower bound, and may be unknown.
    age = found["messaging_lag_seconds"].get(labels)
    assert age is None or 0 < age <= time.time() - before + 10


def test_queues_are_shown_while_the_broker_is_down(
    saving: Mosquitto, start: Start, tmp_path: Path
) -> None:
    """Each source is independent of the other."""
    file = tmp_path / "mosquitto.db"
    saving.subscribe_and_leave("consumer", "bts/#")
    saving.publish("bts/1/temperature", count=4)
    save(saving, file)
    saving.kill()
    found, error = look(start(saving.url, persistence=PersistenceConfig(file=str(file))))

    assert error is not None
    assert error.reason == "refused"
    assert found[QUEUED] == {("consumer",): 4}


def test_unreadable_file_does_not_hide_the_broker(
    mosquitto: Mosquitto, start: Start, tmp_path: Path
) -> None:
    """The error names the file, and the broker's metrics are served."""
    (tmp_path / "other.db").write_text("SQLite format 3")
    collector = start(mosquitto.url, persistence=PersistenceConfig(file=str(tmp_path / "other.db")))
    wait_until(shows(collector, "mqtt_up", 1), "up")
    found, error = look(collector)

    assert error is not None
    assert (error.reason, str(error).startswith(f"{tmp_path}/other.db: ")) == ("protocol", True)
    assert "mosquitto_clients" in found


def test_each_drop_episode_is_counted(start_mosquitto: StartMosquitto, start: Start) -> None:
    """The broker logs them to a topic with the client's id, which $SYS lacks."""
    broker = start_mosquitto("max_queued_messages 3", "log_dest topic", "log_dest stderr")
    collector = start(broker.url, broker_log=True)
    wait_until(shows(collector, "mqtt_up", 1), "up")
    for client in ("consumer", "archive"):
        broker.subscribe_and_leave(client, "bts/#")
    before = collect(collector)
    broker.publish("bts/1/temperature", count=10)
    wait_until(shows(collector, "mosquitto_drop_episodes_total", 2), "two clients lose messages")
    found = collect(collector)

    assert before["mosquitto_drop_episodes_total"] == {(): 0}
    assert found["mosquitto_client_drop_episodes_total"] == {("archive",): 1, ("consumer",): 1}
    last = found["mosquitto_client_last_drop_timestamp_seconds"]["consumer",]
    assert abs(last - time.time()) < 60


def test_log_is_not_read_unasked(start_mosquitto: StartMosquitto, start: Start) -> None:
    """Without broker_log, the broker's log adds no series."""
    broker = start_mosquitto("log_dest topic", "log_dest stderr")
    collector = start(broker.url)
    wait_until(shows(collector, "mqtt_up", 1), "up")

    assert "mosquitto_drop_episodes_total" not in collect(collector)


def test_names_of_mosquitto_exporter_have_the_same_values(
    mosquitto: Mosquitto, start: Start
) -> None:
    """Dashboards keep working during a migration; our names are there, too."""
    collector = start(mosquitto.url, compat_names="sapcc")

    def complete() -> bool:
        found = look(collector)[0]
        stored = [
            found.get(f"broker_{name}") for name in ("messages_stored", "store_messages_count")
        ]
        loads = [name for name in found if name.startswith("broker_load_")]
        return len(loads) == 27 and stored[0] == stored[1] is not None

    wait_until(complete, "all of them, of one burst")
    found = collect(collector)

    for theirs, ours in [
        ("broker_uptime", "mosquitto_uptime_seconds"),
        ("broker_clients_total", "mosquitto_sessions"),
        ("broker_messages_sent", "mosquitto_packets_sent_total"),
        ("broker_publish_messages_dropped", "mosquitto_messages_dropped_total"),
        ("broker_retained_messages_count", "mosquitto_retained_messages"),
        ("broker_store_messages_count", "mosquitto_store_messages"),
        ("broker_heap_current", "mosquitto_heap_bytes"),
    ]:
        assert found[theirs] == found[ours]


def test_names_of_mosquitto_exporter_are_not_given_unasked(
    mosquitto: Mosquitto, start: Start
) -> None:
    """They double the number of series."""
    collector = start(mosquitto.url)
    wait_until(shows(collector, "mqtt_up", 1), "up")

    assert [name for name in collect(collector) if name.startswith("broker_")] == []


def test_several_brokers_have_different_labels(
    start_mosquitto: StartMosquitto, exporter: StartExporter
) -> None:
    """The name of a block is the label `target`."""
    north, south = start_mosquitto(), start_mosquitto()
    south.subscribe_and_leave("consumer", "bts/#")
    south.publish("bts/1/temperature", count=3)
    blocks = "\n".join(
        f"    - {{name: {name}, url: '{broker.url}'}}"
        for name, broker in [("north", north), ("south", south)]
    )
    server = exporter(f"collectors:\n  mqtt:\n{blocks}\n")
    labels = {"system": "mqtt", "destination": "", "group": ""}
    queued = "messaging_backlog_messages"
    wait_until(lambda: server.value(queued, target="north", **labels) == 0, "north's backlog")
    wait_until(lambda: server.value(queued, target="south", **labels) == 3, "south's backlog")
    north.kill()
    wait_until(lambda: server.value("mqtt_up", target="north") == 0, "north down")

    assert server.value(queued, target="north", **labels) == 0
    assert server.value("mqtt_up", target="south") == 1
    assert server.value(queued, target="south", **labels) == 3
