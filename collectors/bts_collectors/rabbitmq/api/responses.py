"""What an answer of the management API means: its content, or why there is none."""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from bts_exporter import HttpResponse, TargetError

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

#: What decoding raises for a body that is not the JSON that is expected, however deep it is nested.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Objects in one reply: each takes more memory than its text.
MAX_OBJECTS = 1_000_000


class PartlyReadError(TargetError):
    """Raised with what could be read of a reply of which some items or fields could not."""

    def __init__(self, message: str, content: Any) -> None:
        super().__init__("protocol", message)
        self.content = content


def content(answer: HttpResponse, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the content of an answer; TargetError where there is none of that shape.

    PartlyReadError where only some items of it are odd.
    """
    if answer.status != HTTPStatus.OK:
        raise _refusal(answer)
    objects = answer.body.count(b"{")
    if objects > MAX_OBJECTS:
        raise _unreadable(answer, f"{objects} objects are more than {MAX_OBJECTS}")
    try:
        return decoder.decode(answer.body)
    except msgspec.ValidationError as error:
        what = str(error)
    except _UNREADABLE as error:
        if _is_utf8(answer.body):
            raise _unreadable(answer, str(error)) from None
        what = "it is not UTF-8"
    return _salvage(answer, decoder, what)


def _is_utf8(body: bytes | bytearray) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _salvage(answer: HttpResponse, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """Raise PartlyReadError with what can be read, or TargetError if that is nothing."""
    try:
        raw = msgspec.json.decode(answer.body.decode(errors="replace"))
    except _UNREADABLE as error:
        raise _unreadable(answer, str(error)) from None
    found = salvage(raw, decoder.type)
    if found is None or found == []:
        raise _unreadable(answer, what)
    msg = f"{answer.address}: an odd item or field is left out: {what}"
    raise PartlyReadError(msg, found)


def salvage(raw: Any, kind: Any) -> Any:
    """Return `raw` as a `kind`, or a list of them, without the items and fields that do not fit."""
    if get_origin(kind) is list:
        items = raw if isinstance(raw, list) else ()
        found = (salvage(item, get_args(kind)[0]) for item in items)
        return [item for item in found if item is not None]
    if not isinstance(raw, dict):
        return None
    fields = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in raw:
            value = raw[field.encode_name]
            with suppress(msgspec.ValidationError):
                msgspec.convert(value, field.type)
                fields[field.encode_name] = value
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        return None  # it lacks what it is called


def check_passes(answer: HttpResponse) -> bool | None:
    """Return what a health check says, None where this version of RabbitMQ has no such check.

    TargetError where the answer is none of a health check.
    """
    if answer.status == HTTPStatus.NOT_FOUND:
        return None
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and _says_failed(answer.body):
        return False
    return content(answer, _HEALTH).status == "ok"


def _says_failed(body: bytes | bytearray) -> bool:
    """Tell RabbitMQ's 503 from one of a proxy in front of it."""
    try:
        return _HEALTH.decode(body).status == "failed"
    except _UNREADABLE:
        return False


def _unreadable(answer: HttpResponse, why: str) -> TargetError:
    begin = bytes(answer.body[:_MAX_BEGIN])
    what = f"unexpected reply for a management API ({why}; it begins with {begin!r})"
    return TargetError("protocol", f"{answer.address}: {what}")


def _refusal(answer: HttpResponse) -> TargetError:
    complaint = _complaint(answer.body)
    what = f"{answer.address}: HTTP {answer.status}{f' ({complaint})' if complaint else ''}"
    match answer.status:
        case HTTPStatus.UNAUTHORIZED if not _LACKS_TAG.match(complaint):
            return TargetError("auth", f"{what}: check user and password")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            cure = "give the user the tag monitoring (rabbitmqctl set_user_tags USER monitoring)"
            return TargetError("noperm", f"{what}: {cure}")
        case HTTPStatus.NOT_FOUND:
            cure = (
                "is this the port of the management API (15672; that of RabbitMQ's own exporter is"
                " 15692), and its path prefix right?"
            )
            return TargetError("protocol", f"{what}: {cure}")
        case status if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return TargetError("protocol", f"{what}: {redirect(answer)}")
        case _:
            return TargetError("protocol", what)


def redirect(answer: HttpResponse) -> str:
    """Return what to do about a redirect, which is not followed."""
    target = answer.location[:_MAX_COMPLAINT] or "a place that it does not name"
    return f"it redirects to {target}; set url to the address that answers itself"


def _complaint(body: bytes | bytearray) -> str:
    try:
        reason = _COMPLAINT.decode(body).reason
    except _UNREADABLE:
        return ""
    return str(reason)[:_MAX_COMPLAINT] if reason else ""
