from __future__ import annotations

import msgspec
import pytest

from bts_collectors.rabbitmq.api.models import (
    NODES,
    OVERVIEW,
    QUEUES,
    Consumer,
    Queue,
    columns,
    depth,
    known,
)


def test_columns_name_every_field_of_the_model_and_nothing_else() -> None:
    """The requested columns are exactly the decoded fields, including those of nested objects."""
    assert columns(Consumer) == "columns=queue.name,queue.vhost,ack_required"
    batch = columns(Queue).removeprefix("columns=").split(",")

    assert {"name", "vhost", "messages_ready", "message_stats.get_no_ack"} <= set(batch)
    assert {"arguments.x-max-length", "effective_policy_definition.max-length"} <= set(batch)
    assert "message_stats" not in batch


def test_names_are_all_that_an_answer_must_have() -> None:
    """Every field but names may be missing, as with old brokers, new queues and stopped nodes."""
    assert OVERVIEW.decode(b"{}").object_totals is None
    assert NODES.decode(b'[{"name": "a"}]')[0].uptime is None
    assert QUEUES.decode(b'[{"name": "q", "vhost": "/"}]')[0].message_stats is None


def test_an_empty_list_may_stand_for_an_empty_object() -> None:
    """Erlang writes empty objects as empty lists in some responses."""
    queue = QUEUES.decode(b'[{"name": "q", "vhost": "/", "message_stats": [], "arguments": []}]')[0]

    assert queue.message_stats == []


@pytest.mark.parametrize("word", ['"NaN"', '"unknown"', '"disk_free_monitoring_disabled"', '""'])
def test_a_word_in_the_place_of_a_number_is_an_unknown_number(word: str) -> None:
    """A text instead of a number loses only that value."""
    node = NODES.decode(f'[{{"name": "a", "disk_free": {word}, "mem_used": 5}}]')[0]

    assert known(node.disk_free) is None
    assert known(node.mem_used) == 5


@pytest.mark.parametrize("body", [b"{}", b'[{"vhost": "/"}]', b'[{"name": 1, "vhost": "/"}]'])
def test_another_structure_is_refused(body: bytes) -> None:
    """A response that is not a list of named queues is an error."""
    with pytest.raises(msgspec.ValidationError):
        QUEUES.decode(body)


#: One queue as several versions list it: what is not used is there to be skipped.
VERSIONS = {
    "3.8": """{"messages_details": {"rate": 0.0}, "messages": 9, "messages_ready": 7,
        "messages_unacknowledged": 2, "policy": null, "exclusive_consumer_tag": null,
        "consumers": 1, "consumer_utilisation": "", "memory": 55604,
        "backing_queue_status": {"mode": "default", "q1": 0, "delta": ["delta", "undefined", 0, 0]},
        "head_message_timestamp": null, "idle_since": "2020-01-02 3:04:05", "slave_nodes": [],
        "recoverable_slaves": null, "state": "running", "garbage_collection": {"minor_gcs": 5},
        "message_stats": {"publish": 9, "publish_details": {"rate": 0.0}, "ack": 0}, "type": "classic",
        "node": "rabbit@a", "arguments": {}, "durable": true, "auto_delete": false,
        "vhost": "/", "name": "q"}""",
    "3.12": """{"arguments": {"x-queue-type": "classic", "x-queue-version": 2}, "consumer_capacity": 0.5,
        "consumers": 1, "durable": true, "effective_policy_definition": {}, "messages": 9,
        "messages_ready": 7, "messages_unacknowledged": 2, "message_stats": {"publish": 9, "ack": 0},
        "name": "q", "node": "rabbit@a", "operator_policy": null, "policy": null,
        "single_active_consumer_tag": null, "state": "running", "storage_version": 2,
        "type": "classic", "vhost": "/"}""",
    "3.13-plain": """{"arguments": {}, "auto_delete": false, "consumers": 1, "durable": true,
        "effective_policy_definition": [], "exclusive": false, "messages": 9, "messages_ready": 7,
        "messages_unacknowledged": 2, "message_stats": {"publish": 9, "ack": 0}, "name": "q",
        "node": "rabbit@a", "policy": null, "state": "running", "type": "classic", "vhost": "/"}""",
    "4.2-quorum": """{"arguments": {"x-queue-type": "quorum", "x-delivery-limit": 20}, "consumers": 1,
        "delivery_limit": 20, "durable": true, "effective_policy_definition": {"max-length": 5},
        "leader": "rabbit@a", "members": ["rabbit@a", "rabbit@b"], "online": ["rabbit@a"],
        "messages": 9, "messages_dlx": 0, "messages_ready": 7, "messages_unacknowledged": 2,
        "messages_ready_high": 0, "message_stats": {"publish": 9, "ack": 0}, "name": "q",
        "node": "rabbit@a", "open_files": {"rabbit@a": 0}, "policy": "limits", "publishers": 0,
        "state": "running", "type": "quorum", "vhost": "/"}""",
    "totals": """{"arguments": {}, "auto_delete": false, "consumers": 1, "durable": true, "messages": 9,
        "messages_ready": 7, "messages_unacknowledged": 2, "name": "q", "node": "rabbit@a",
        "message_stats": [], "state": "running", "type": "classic", "vhost": "/"}""",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queue_of_any_version_is_read(version: str) -> None:
    """Depths are read although other fields come, go and change their type between versions."""
    (queue,) = QUEUES.decode(f"[{VERSIONS[version]}]")

    depths = (queue.messages, queue.messages_ready, queue.messages_unacknowledged)
    assert depths == (9, 7, 2)
    assert (queue.vhost, queue.name, queue.node, queue.state) == ("/", "q", "rabbit@a", "running")
    assert queue.consumers == 1


def test_queues_are_put_in_order_by_what_waits() -> None:
    """Queues are sorted by ready messages; one with an unknown depth is last."""
    queues = [Queue("a", "/"), Queue("b", "/", messages_ready=5), Queue("c", "/", messages_ready=9)]

    assert [queue.name for queue in sorted(queues, key=depth, reverse=True)] == ["c", "b", "a"]
