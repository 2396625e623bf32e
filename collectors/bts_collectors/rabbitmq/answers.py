"""What an answer of the management API means: its content, or why there is none."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import msgspec

from bts_collectors.rabbitmq.client import Answer
from bts_exporter import TargetError

T = TypeVar("T")

#: How RabbitMQ says that user and password are right and the user's tags are not.
_LACKS_TAG = re.compile(r"Not .+ user")
#: As much of a complaint as a log line can bear.
_MAX_COMPLAINT = 200
#: As much of an unreadable answer as shows what it is.
_MAX_BEGIN = 40


class _Complaint(msgspec.Struct):
    reason: Any = None


class _Health(msgspec.Struct):
    status: Literal["ok", "failed"]


_COMPLAINT = msgspec.json.Decoder(_Complaint)
_HEALTH = msgspec.json.Decoder(_Health)


def content(answer: Answer, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the content of an answer; TargetError where there is none of that shape."""
    if answer.status != HTTPStatus.OK:
        raise _refusal(answer)
    try:
        return decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(answer, error) from error


def check_passes(answer: Answer) -> bool | None:
    """Return what a health check says, None where this version of RabbitMQ has no such check.

    TargetError where the answer is none of a health check.
    """
    if answer.status == HTTPStatus.NOT_FOUND:
        return None
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and _says_failed(answer.body):
        return False
    return content(answer, _HEALTH).status == "ok"


def _says_failed(body: bytes) -> bool:
    """Tell RabbitMQ's 503 from one of a proxy in front of it."""
    try:
        return _HEALTH.decode(body).status == "failed"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _unreadable(answer: Answer, error: Exception) -> TargetError:
    begin = answer.body[:_MAX_BEGIN]
    what = f"no answer of a management API ({error}; it begins with {begin!r})"
    return TargetError("protocol", f"{answer.place}: {what}")


def _refusal(answer: Answer) -> TargetError:
    complaint = _complaint(answer.body)
    what = f"{answer.place}: HTTP {answer.status}{f' ({complaint})' if complaint else ''}"
    match answer.status:
        case HTTPStatus.UNAUTHORIZED if not _LACKS_TAG.match(complaint):
            return TargetError("auth", f"{what}: check user and password")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            cure = "give the user the tag monitoring (rabbitmqctl set_user_tags USER monitoring)"
            return TargetError("noperm", f"{what}: {cure}")
        case HTTPStatus.NOT_FOUND:
            cure = "is this the management API's port (15672), and its path prefix right?"
            return TargetError("protocol", f"{what}: {cure}")
        case _:
            return TargetError("protocol", what)


def _complaint(body: bytes) -> str:
    try:
        reason = _COMPLAINT.decode(body).reason
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return str(reason)[:_MAX_COMPLAINT] if reason else ""
