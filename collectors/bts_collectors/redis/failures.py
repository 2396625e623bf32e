"""What went wrong with a server, as the engine's bounded reasons and a message with the cure."""

from __future__ import annotations

import re
import socket
import ssl

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
}
_CURES: dict[Reason, str] = {
    "auth": "check `password`, and the user name in `url`",
    "noperm": "give the user the permissions that docs/collectors/redis.md lists",
    "loading": "it will answer when it is done",
}
#: How Redis, before and since 7.2, says NOPERM where a script was not permitted something.
_NOPERM_IN_SCRIPT = re.compile("The user executing the script can't|ACL failure in script")
_FULL = "ERR max number of clients reached"


def failure(url: Url, error: Exception) -> TargetError:
    """Return what it means that `error` ended the conversation with `url`."""
    match error:
        case TimeoutError():
            return _target(url, "timeout", "gave no answer in time")
        case ConnectionRefusedError() | FileNotFoundError():
            return _target(url, "refused", "cannot be reached: does it run and listen there?")
        case ssl.SSLError():
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
    text = str(reply)
    reason = _REASONS.get(text.partition(" ")[0], "protocol")
    if _NOPERM_IN_SCRIPT.search(text):
        reason = "noperm"
    elif text == _FULL:
        reason = "unreachable"
    elif what == "AUTH" and reason == "protocol":
        reason = "auth"
    cure = _CURES.get(reason)
    return _target(url, reason, f"refused {what}: {text[:200]}" + (f" ({cure})" if cure else ""))


def unexpected(url: Url, what: str) -> TargetError:
    """Return the failure of a server that answers, but not `what` a Redis would."""
    return _target(url, "protocol", what)


def _target(url: Url, reason: Reason, what: str) -> TargetError:
    return TargetError(reason, f"Redis at {url} {what}")
