from __future__ import annotations

import pytest

from bts_collectors.rabbitmq.api.models import NODES
from bts_collectors.rabbitmq.api.responses import check_passes, content
from bts_exporter import HttpResponse, TargetError

PLACE = "http://broker:15672/api/nodes"


def refused(status: int, body: bytes) -> TargetError:
    """Return the error that an answer means."""
    with pytest.raises(TargetError) as caught:
        content(HttpResponse(PLACE, status, body), NODES)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b'{"error":"not_authorized","reason":"Login failed"}', "auth"),
        (401, b'{"error":"x","reason":"User can only log in via localhost"}', "auth"),
        (401, b"<html>", "auth"),
        (401, b'{"error":"not_authorised","reason":"Not management user"}', "noperm"),
        (401, b'{"error":"not_authorised","reason":"Not monitor user"}', "noperm"),
        (403, b"", "noperm"),
        (404, b'{"error":"Object Not Found","reason":"Not Found"}', "protocol"),
        (302, b"", "protocol"),
        (500, b'{"error":"Internal Server Error","reason":{"deep": ["object"]}}', "protocol"),
        (200, b"<!DOCTYPE html>", "protocol"),
        (200, b'[{"name": "rabbit@one"', "protocol"),
        (200, b'{"name": "rabbit@one"}', "protocol"),
        (200, b'[{"name": "\xff"}]', "protocol"),
        (200, b"", "protocol"),
    ],
)
def test_what_is_no_content_has_a_reason_and_names_the_place(
    status: int, body: bytes, reason: str
) -> None:
    """The reason is one of the bounded ones; the text says where and what."""
    error = refused(status, body)

    assert error.reason == reason
    assert PLACE in str(error)


def test_the_brokers_own_words_are_passed_on_and_bounded() -> None:
    """They say more than a status; a long complaint does not flood the log."""
    assert "Not monitor user" in str(refused(401, b'{"reason":"Not monitor user"}'))
    assert len(str(refused(500, b'{"reason":"%s"}' % (b"x" * 100_000)))) < 400


def test_a_missing_tag_is_named_with_its_cure() -> None:
    """Whoever reads the log knows what to type."""
    error = refused(401, b'{"reason":"Not monitor user"}')

    assert "rabbitmqctl set_user_tags USER monitoring" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "passes"),
    [
        (200, b'{"status":"ok"}', True),
        (503, b'{"status":"failed","reason":"There are alarms","alarms":[]}', False),
        (404, b'{"error":"Object Not Found"}', None),
    ],
)
def test_a_health_check_passes_fails_or_does_not_exist(
    status: int, body: bytes, passes: bool | None
) -> None:
    """Versions that have no such check say nothing about health."""
    assert check_passes(HttpResponse(PLACE, status, body)) is passes


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b"<html>Service Unavailable</html>"), (503, b'{"status":503}'), (200, b"{}")],
)
def test_a_proxys_error_is_not_taken_for_a_failed_health_check(status: int, body: bytes) -> None:
    """A 503 of something in front of the broker is no alarm of the broker."""
    with pytest.raises(TargetError) as caught:
        check_passes(HttpResponse(PLACE, status, body))

    assert caught.value.reason == "protocol"
