"""Decodes responses of the management API, and explains errors."""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from bts_exporter import HttpResponse, TargetError

T = TypeVar("T")

#: RabbitMQ's error text if the login is right but the user lacks a tag.
_LACKS_TAG = re.compile(r"Not .+ user")
#: Characters of an error text that are quoted.
_MAX_ERROR_TEXT = 200
#: Bytes of an unreadable response that are quoted.
_MAX_QUOTED = 40


class _ErrorReply(msgspec.Struct):
    reason: Any = None


class _Health(msgspec.Struct):
    status: Literal["ok", "failed"]


_ERROR_REPLY = msgspec.json.Decoder(_ErrorReply)
_HEALTH = msgspec.json.Decoder(_Health)

#: Errors of decoding a body that is not the expected JSON, or is nested too deeply.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Objects in one response: decoded, they take more memory than their text.
MAX_OBJECTS = 1_000_000


class PartlyReadError(TargetError):
    """Raised if some items or fields of a response are invalid; `content` has the others."""

    def __init__(self, message: str, content: Any) -> None:
        super().__init__("protocol", message)
        self.content = content


def content(response: HttpResponse, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the decoded body; TargetError if the status is not 200 or the body is invalid.

    PartlyReadError if only some items or fields are invalid.
    """
    if response.status != HTTPStatus.OK:
        raise _status_error(response)
    objects = response.body.count(b"{")
    if objects > MAX_OBJECTS:
        raise _unreadable(response, f"{objects} objects are more than {MAX_OBJECTS}")
    try:
        return decoder.decode(response.body)
    except msgspec.ValidationError as error:
        what = str(error)
    except _UNREADABLE as error:
        if _is_utf8(response.body):
            raise _unreadable(response, str(error)) from None
        what = "it is not UTF-8"
    return _salvage(response, decoder, what)


def _is_utf8(body: bytes | bytearray) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _salvage(response: HttpResponse, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """Raise PartlyReadError with the valid items, or TargetError if there are none."""
    try:
        raw = msgspec.json.decode(response.body.decode(errors="replace"))
    except _UNREADABLE as error:
        raise _unreadable(response, str(error)) from None
    found = salvage(raw, decoder.type)
    if found is None or found == []:
        raise _unreadable(response, what)
    msg = f"{response.address}: an invalid item or field is left out: {what}"
    raise PartlyReadError(msg, found)


def salvage(raw: Any, kind: Any) -> Any:
    """Return `raw` as a `kind`, or a list of them, without invalid items and fields."""
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
        return None  # the name is missing or invalid


def check_passes(response: HttpResponse) -> bool | None:
    """Return whether a health check passes; None if this version of RabbitMQ does not have it.

    TargetError if the response is not that of a health check.
    """
    if response.status == HTTPStatus.NOT_FOUND:
        return None
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE and _says_failed(response.body):
        return False
    return content(response, _HEALTH).status == "ok"


def _says_failed(body: bytes | bytearray) -> bool:
    """Return whether a 503 is RabbitMQ's, not that of a proxy."""
    try:
        return _HEALTH.decode(body).status == "failed"
    except _UNREADABLE:
        return False


def _unreadable(response: HttpResponse, why: str) -> TargetError:
    begin = bytes(response.body[:_MAX_QUOTED])
    what = f"unexpected reply, not from a management API ({why}; it begins with {begin!r})"
    return TargetError("protocol", f"{response.address}: {what}")


def _status_error(response: HttpResponse) -> TargetError:
    complaint = _error_text(response.body)
    what = f"{response.address}: HTTP {response.status}{f' ({complaint})' if complaint else ''}"
    match response.status:
        case HTTPStatus.UNAUTHORIZED if not _LACKS_TAG.match(complaint):
            return TargetError("auth", f"{what}: check user and password")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            cure = "give the user the tag monitoring (rabbitmqctl set_user_tags USER monitoring)"
            return TargetError("noperm", f"{what}: {cure}")
        case HTTPStatus.NOT_FOUND:
            cure = (
                "is this the port of the management API (15672; RabbitMQ's own exporter has 15692), and is"
                " the path prefix right?"
            )
            return TargetError("protocol", f"{what}: {cure}")
        case status if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return TargetError("protocol", f"{what}: {redirect(response)}")
        case _:
            return TargetError("protocol", what)


def redirect(response: HttpResponse) -> str:
    """Return the advice for a redirect, which is not followed."""
    target = response.location[:_MAX_ERROR_TEXT] or "an address that it does not name"
    return f"it redirects to {target}; set url to the final address"


def _error_text(body: bytes | bytearray) -> str:
    try:
        reason = _ERROR_REPLY.decode(body).reason
    except _UNREADABLE:
        return ""
    return str(reason)[:_MAX_ERROR_TEXT] if reason else ""
