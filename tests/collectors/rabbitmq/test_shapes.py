from __future__ import annotations

import msgspec
import pytest

from bts_collectors.rabbitmq.shapes import (
    NODES,
    OVERVIEW,
    QUEUES,
    Consumer,
    Queue,
    columns,
    known,
)


def test_columns_name_every_field_of_the_shape_and_nothing_else() -> None:
    """The broker is asked for the fields that are decoded, those of objects one by one."""
    assert columns(Consumer) == "columns=queue.name,queue.vhost,ack_required"
    asked = columns(Queue).removeprefix("columns=").split(",")

    assert {"name", "vhost", "messages_ready", "message_stats.get_no_ack"} <= set(asked)
    assert {"arguments.x-max-length", "effective_policy_definition.max-length"} <= set(asked)
    assert "message_stats" not in asked


def test_names_are_all_that_an_answer_must_have() -> None:
    """Old brokers, new queues and stopped nodes leave fields out."""
    assert OVERVIEW.decode(b"{}").object_totals is None
    assert NODES.decode(b'[{"name": "a"}]')[0].uptime is None
    assert QUEUES.decode(b'[{"name": "q", "vhost": "/"}]')[0].message_stats is None


def test_an_empty_list_may_stand_for_an_empty_object() -> None:
    """Erlang spells both alike, and so do some of its answers."""
    queue = QUEUES.decode(b'[{"name": "q", "vhost": "/", "message_stats": [], "arguments": []}]')[0]

    assert queue.message_stats == []


@pytest.mark.parametrize("word", ['"NaN"', '"unknown"', '"disk_free_monitoring_disabled"', '""'])
def test_a_word_in_the_place_of_a_number_is_an_unknown_number(word: str) -> None:
    """The broker writes words where its own source failed: that costs the one value alone."""
    node = NODES.decode(f'[{{"name": "a", "disk_free": {word}, "mem_used": 5}}]')[0]

    assert known(node.disk_free) is None
    assert known(node.mem_used) == 5


@pytest.mark.parametrize("body", [b"{}", b'[{"vhost": "/"}]', b'[{"name": 1, "vhost": "/"}]'])
def test_another_shape_is_refused(body: bytes) -> None:
    """What is no list of named queues is no answer to the question for queues."""
    with pytest.raises(msgspec.ValidationError):
        QUEUES.decode(body)
