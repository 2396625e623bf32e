"""Errors of a server, as a reason of the engine and a message with the cure."""

from __future__ import annotations

import re

from hiredis import ReplyError
from redis.exceptions import InvalidResponse

from bts_collectors.redis.client.labels import label
from bts_collectors.redis.client.reply_guard import OversizedReply
from bts_exporter import Product, Reason, TargetError, Url, connection_error

_PORT = 6379
#: Difference between a node's port for the cluster bus and its port for clients.
_BUS_OFFSET = 10_000
#: First bytes of other protocols, and the message for the user.
_OTHERS = {
    b"HTTP/": "HTTP: is this the port of Redis?",
    b"AMQP": "AMQP (RabbitMQ): is this the port of Redis?",
    b"SSH-": "SSH: is this the port of Redis?",
    b"\x15\x03": "TLS: use rediss:// in place of redis://",
    b"\x16\x03": "TLS: use rediss:// in place of redis://",
}

#: First bytes of the replies of the Redis protocol.
_TYPES = frozenset(bytes((sign,)) for sign in b"*:+-$%~>|=!(_#,")
_REASONS: dict[str, Reason] = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "DENIED": "auth",  # protected mode
    "NOPERM": "noperm",
    "LOADING": "loading",
    "MASTERDOWN": "loading",
    "BUSY": "loading",  # a script runs for too long
    "CLUSTERDOWN": "loading",
    "TRYAGAIN": "loading",  # keys of one slot are on two nodes while it moves
}
_CURES: dict[Reason, str] = {
    "auth": "check `password`, and the user name in `url`",
    "noperm": "ACL SETUSER gives permissions; docs/collectors/redis.md lists them",
    "loading": "temporary: it answers when it is done",
}
#: Cures for commands that only one kind of server has.
_CURES_WITHOUT = {
    "SENTINEL": "it is not a sentinel; the usual port of a sentinel is 26379",
    "SELECT": "it may be a sentinel, which has no databases: set `sentinel` to read its master",
}
_REDIRECTIONS = ("MOVED ", "ASK ")
_NO_CLUSTER = "cluster support disabled"
#: NOPERM within a script, before and since Redis 7.2.
_NOPERM_IN_SCRIPT = re.compile("The user executing the script can't|ACL failure in script")
_FULL = "ERR max number of clients reached"
#: Errors of servers, proxies and services that lack a command: "unknown command 'X'", "unsupported
#: command", "command X is not allowed", "Command is not available".
_ABOUT_COMMAND = re.compile(r"\b(sub)?command\b", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    "unknown|unsupported|unavailable|disabled|forbidden|unimplemented"
    "|not (support|implemented|allowed|available|permitted)",
    re.IGNORECASE,
)
#: First words of temporary refusals.
_PASSING = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "MOVED", "ASK")


class ReplyShapeError(Exception):
    """Raised by parsers for a reply without the shape that Redis documents, with the difference."""


class NoReplyError(ReplyError):
    """Takes the place of a missing reply: the server or node does not answer."""

    def __init__(self, error: TargetError) -> None:
        super().__init__(str(error))
        self.error = error


class NodeError(ReplyError):
    """An error reply of a cluster node other than the node of the address."""

    def __init__(self, url: Url, reply: ReplyError) -> None:
        super().__init__(*reply.args)
        self.url = url


def connection_failed(url: Url, error: BaseException, first: bytes = b"") -> TargetError:
    """Return the error for a connection to `url` that ended with `error`.

    `first` is the beginning of what the server sent: other protocols can be recognized by it.
    """
    if isinstance(error, OversizedReply):
        return unexpected(url, f"sent {error}, which is more than Redis sends")
    if isinstance(error, InvalidResponse):
        return unexpected(url, f"does not speak Redis' protocol{_spoken(first, error)}")
    return connection_error(_product(url, answered=bool(first)), url, error)


def without_traceback(error: TargetError) -> TargetError:
    """Return a copy of `error` without its traceback, whose frames would keep data in memory."""
    return TargetError(error.reason, str(error))


def _product(url: Url, *, answered: bool) -> Product:
    if url.scheme == "unix":
        return Product("Redis", "is Redis running, with this path as its `unixsocket`?")
    running = "is Redis running, and does it listen at this address and port?"
    return Product("Redis", running, "" if answered else _other_port(url))


def _other_port(url: Url) -> str:
    """Return a guess at the cause when a server closes the connection without a reply."""
    port = url.port or _PORT
    bus = port - _BUS_OFFSET
    if bus in range(1024, _BUS_OFFSET):
        return (
            f"does it use TLS (rediss://), or is it the port of a cluster's bus? Clients use {bus}"
        )
    if url.scheme == "rediss":
        return "is this the port of Redis, and does it use TLS? redis:// does not"
    return "is this the port of Redis (usually 6379), and does it use TLS? Then use rediss://"


def _spoken(first: bytes, error: InvalidResponse) -> str:
    for start, name in _OTHERS.items():
        if first.startswith(start):
            return f", but {name}"
    return f": {error}" if first[:1] in _TYPES else f": its reply begins with {first[:20]!r}"


def command_error(url: Url, command: str, reply: ReplyError, key: bytes = b"") -> TargetError:
    """Return the error for a server that refused `command` on `key` with `reply`."""
    if isinstance(reply, NoReplyError):
        return without_traceback(reply.error)
    if isinstance(reply, NodeError):
        url = reply.url
    text = str(reply)
    reason = _REASONS.get(text.partition(" ")[0], "protocol")
    if _NOPERM_IN_SCRIPT.search(text):
        reason = "noperm"
    elif text == _FULL:
        reason = "unreachable"
    elif command == "AUTH" and reason == "protocol":
        reason = "auth"
    cure = _cure(command, text) or _CURES.get(reason)
    what = f"{command} of the key {label(key)!r}" if key else command
    return _target(url, reason, f"refused {what}: {text[:200]}" + (f" ({cure})" if cure else ""))


def _cure(command: str, text: str) -> str:
    """Return the cure for a refusal with a known cause; empty for others."""
    if text.startswith(_REDIRECTIONS):
        return "the key is on another node: `cluster: true` reads all nodes"
    if text.startswith("WRONGTYPE"):
        return "something else than the settings say uses this key: see its TYPE"
    if _NO_CLUSTER in text:
        return "leave `cluster` out"
    if text.startswith("NOAUTH"):
        return "a password is required: set `password`"
    if text.startswith("NOPERM") and re.fullmatch(r"[A-Z]+( [A-Z]+)?", command):
        permission = command.lower().replace(" ", "|")
        return f"ACL SETUSER USER +{permission}; {_CURES['noperm']}"
    if command == "AUTH" and "wrong number of arguments" in text:
        return "before Redis 6 there are no users: leave the user out of `url`"
    lacks_command = _ABOUT_COMMAND.search(text) and _UNSUPPORTED.search(text)
    return _CURES_WITHOUT.get(command, "") if lacks_command else ""


def is_denied(reply: ReplyError) -> bool:
    """Return whether the refusal is permanent: no permission, or a command that the server lacks."""
    text = str(reply)
    return bool(
        text.startswith("NOPERM") or _NOPERM_IN_SCRIPT.search(text) or is_unsupported(reply)
    )


def is_unsupported(reply: ReplyError) -> bool:
    """Return whether the server lacks the command: too old, renamed, or not offered by a service."""
    text = str(reply)
    if isinstance(reply, NoReplyError) or text.partition(" ")[0] in _REASONS:
        return False
    return bool(_ABOUT_COMMAND.search(text) and _UNSUPPORTED.search(text))


def is_passing(reply: ReplyError) -> bool:
    """Return whether the refusal is temporary, and does not depend on the command."""
    return isinstance(reply, NoReplyError) or str(reply).startswith(_PASSING)


def unexpected(url: Url, what: str) -> TargetError:
    """Return the error for an unexpected reply; `what` continues the sentence `Redis at URL ...`."""
    return _target(url, "protocol", what)


def handshake_timeout(url: Url) -> TargetError:
    """Return the error for a server that does not answer a TLS handshake."""
    what = "no reply to the TLS handshake in time; does this port use TLS? (redis:// does not)"
    return TargetError("timeout", f"Redis at {url}: {what}")


def demoted(url: Url) -> TargetError:
    """Return the error for a replica that sentinels take for the master."""
    return _target(url, "loading", "is a replica, though a sentinel says that it is the master")


def _target(url: Url, reason: Reason, what: str) -> TargetError:
    return TargetError(reason, f"Redis at {url} {what}")
