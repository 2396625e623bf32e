"""What went wrong with a server, as the engine's bounded reasons and a message with the cure."""

from __future__ import annotations

import re
import socket
import sys

from hiredis import ProtocolError, ReplyError

from bts_exporter import Reason, TargetError, Url

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
    "noperm": "give the user the permissions that docs/collectors/redis.md lists",
    "loading": "it will answer when it is done",
}
_REDIRECTIONS = ("MOVED", "ASK")
_ELSEWHERE = "the key is on another node: with `cluster: true` all nodes are asked"
_NO_CLUSTER = "cluster support disabled"
#: How Redis, before and since 7.2, says NOPERM where a script was not permitted something.
_NOPERM_IN_SCRIPT = re.compile("The user executing the script can't|ACL failure in script")
_FULL = "ERR max number of clients reached"
_UNKNOWN = re.compile("ERR unknown (sub)?command", re.IGNORECASE)


class Lost(ReplyError):  # noqa: N818  # as parts see it, it is a reply
    """Stands where the reply of a node of a cluster would be that cannot be asked."""

    def __init__(self, error: TargetError) -> None:
        super().__init__(str(error))
        self.error = error


class Refused(ReplyError):  # noqa: N818  # as above
    """What a node of a cluster said that is not the one of the address."""

    def __init__(self, url: Url, reply: ReplyError) -> None:
        super().__init__(*reply.args)
        self.url = url


def failure(url: Url, error: Exception) -> TargetError:
    """Return what it means that `error` ended the conversation with `url`."""
    match error:
        case TimeoutError():
            return _target(url, "timeout", "gave no answer in time")
        case ConnectionRefusedError() | FileNotFoundError():
            return _target(url, "refused", "cannot be reached: does it run and listen there?")
        case OSError() if _is_tls(error):
            return _target(url, "tls", f"and we have no TLS connection: {error}")
        case socket.gaierror():
            return _target(url, "dns", f"has a name that does not resolve: {error}")
        case PermissionError():
            return _target(url, "noperm", f"must not be opened by us: {error}")
        case ProtocolError():
            return _target(url, "protocol", f"does not speak Redis' protocol: {error}")
        case _:
            return _target(url, "unreachable", f"is not reachable: {error}")


def refusal(url: Url, what: str, reply: ReplyError) -> TargetError:
    """Return what it means that the server refused `what` with `reply`."""
    if isinstance(reply, Lost):
        return reply.error
    if isinstance(reply, Refused):
        url = reply.url
    text = str(reply)
    code = text.partition(" ")[0]
    reason = _REASONS.get(code, "protocol")
    if _NOPERM_IN_SCRIPT.search(text):
        reason = "noperm"
    elif text == _FULL:
        reason = "unreachable"
    elif what == "AUTH" and reason == "protocol":
        reason = "auth"
    cure = _CURES.get(reason)
    if code in _REDIRECTIONS:
        cure = _ELSEWHERE
    elif _NO_CLUSTER in text:
        cure = "leave `cluster` out"
    return _target(url, reason, f"refused {what}: {text[:200]}" + (f" ({cure})" if cure else ""))


def is_denied(reply: ReplyError) -> bool:
    """Return whether the server will refuse this again: not allowed, or a command it does not know."""
    text = str(reply)
    return bool(text.startswith("NOPERM") or _NOPERM_IN_SCRIPT.search(text) or _UNKNOWN.match(text))


def unexpected(url: Url, what: str) -> TargetError:
    """Return the failure of a server that answers, but not `what` a Redis would."""
    return _target(url, "protocol", what)


def no_handshake(url: Url) -> TargetError:
    """Return the failure of a server that says nothing to the first words of TLS."""
    what = "gave no answer in time to our TLS handshake: does it speak TLS there?"
    return _target(url, "timeout", what)


def demoted(url: Url) -> TargetError:
    """Return the failure of a replica that sentinels take for the master."""
    return _target(url, "loading", "is a replica, though a sentinel says that it is the master")


def _is_tls(error: OSError) -> bool:
    # OpenSSL takes 5 MB: whoever raises its errors has it already, and nobody else needs it.
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLError)


def _target(url: Url, reason: Reason, what: str) -> TargetError:
    return TargetError(reason, f"Redis at {url} {what}")
