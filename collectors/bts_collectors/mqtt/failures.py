"""Every way in which there is no answer, as a reason and a message that names place and cure.

Pure: what the network thread saw goes in, the error for the scrape comes out.
"""

from __future__ import annotations

import errno
import socket
import ssl

from paho.mqtt.client import WebsocketConnectionError

from bts_collectors.mqtt.link import Link
from bts_collectors.mqtt.sysvalues import SysValues
from bts_exporter import Reason, TargetError, Url

_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}

#: By codes of MQTT 5 (2.4), which paho translates those of 3.1.1 to.
_REFUSALS: dict[int, tuple[Reason, str]] = {
    132: ("protocol", "the broker does not speak this version of MQTT: set protocol"),
    133: ("protocol", "the broker refuses the client id bts-exporter-..."),
    134: ("auth", "wrong user or password: set them in url and password"),
    135: (
        "auth",
        "the broker refuses the user, password or anonymous access: set user and password",
    ),
    136: ("loading", "the broker says that it is unavailable: look at its log"),
}


def not_connected(url: Url, error: OSError | UnicodeError) -> TargetError:
    """Return why the TCP or TLS connection could not be made."""
    match error:
        case TimeoutError():
            return TargetError(
                "timeout", f"{url}: no connection in time: firewall, or broker hangs?"
            )
        case ConnectionRefusedError():
            return TargetError(
                "refused", f"{url}: nothing listens there: start the broker, or correct url"
            )
        case ssl.SSLError():
            cure = "does the port speak it? tls.ca_file: whom we trust; tls.cert_file: who we are"
            return TargetError("tls", f"{url}: no TLS connection: {error} ({cure})")
        case socket.gaierror() | UnicodeError():
            return TargetError("dns", f"{url}: the name does not resolve: correct url ({error})")
        case WebsocketConnectionError():
            cure = "is there a WebSocket listener, and is its path right?"
            return TargetError("protocol", f"{url}: no WebSocket there ({error}): {cure}")
        case FileNotFoundError():
            return TargetError(
                "refused", f"{url}: no such socket: start the broker, or correct url"
            )
        case PermissionError():
            return TargetError("noperm", f"{url}: our user may not write to the socket")
        case ConnectionError():
            hint = " (does the port speak TLS?)" if url.scheme == "mqtts" else ""
            return TargetError("unreachable", f"{url}: the connection broke at once: {error}{hint}")
        case OSError(errno=code) if code in _NO_ROUTE:
            return TargetError("unreachable", f"{url}: no route: {error.strerror}")
        case _:
            return TargetError("os", f"{url}: {error}")


def unwanted(url: Url) -> TargetError:
    """Return why the broker hung up right after the TLS handshake, before it heard of us."""
    cure = "does it ask for a certificate of ours (tls.cert_file)?"
    return TargetError("tls", f"{url}: the broker ended the connection after the handshake: {cure}")


def not_accepted(url: Url, refusal: int | None) -> TargetError:
    """Return why the broker did not let us in; `refusal` is its code, None where it gave none."""
    if refusal is None:
        return TargetError(
            "protocol",
            f"{url}: no MQTT broker, as its answer to CONNECT shows: correct url"
            " (a port that speaks TLS needs mqtts://)",
        )
    reason, message = _REFUSALS.get(refusal, ("protocol", f"CONNECT refused with code {refusal}"))
    return TargetError(reason, f"{url}: {message}")


def mute(url: Url, seconds: float) -> TargetError:
    """Return the failure of a target that accepts the connection and says nothing."""
    return TargetError(
        "timeout",
        f"{url}: no answer to CONNECT within {seconds:g} s: the broker hangs, or is none",
    )


def lost(url: Url, *, hung: bool, garbled: bool) -> TargetError:
    """Return why a working connection ended: no answer to a ping, what is no MQTT, or neither."""
    if hung:
        return TargetError("timeout", f"{url}: no answer to PING: the broker hangs")
    if garbled:
        return TargetError("protocol", f"{url}: the broker sent what is no MQTT")
    return TargetError("unreachable", f"{url}: the broker closed the connection: look at its log")


def why_down(
    url: Url, link: Link, values: SysValues, stale_after: float, *, canary: bool = False
) -> TargetError:
    """Return why nothing shows that the broker lives although the network thread runs."""
    if not link.connected:
        if link.failure is None:
            return TargetError(
                "timeout",
                f"{url}: no answer to CONNECT yet: does a broker listen there, and does it run?",
            )
        return TargetError(*link.failure)
    if not link.granted:
        return TargetError("timeout", f"{url}: no answer to SUBSCRIBE: the broker hangs")
    if link.denied:
        cure = "allow the user to subscribe to it and read it"
        denied = ", ".join(link.denied)
        return TargetError("noperm", f"{url}: subscription to {denied} denied: {cure}")
    if canary and values.age() is None:
        return TargetError(
            "timeout",
            f"{url}: no message of ours came back within {stale_after:g} s: the broker hangs, or its"
            " ACL forbids what docs/collectors/mqtt.md says that the canary needs",
        )
    if not values.heard:
        return TargetError(
            "noperm",
            f"{url}: connected, but nothing comes under $SYS/: allow it in the broker's ACL"
            " (topic read $SYS/#); a broker with sys_interval 0, or other than mosquitto, has none:"
            " watch it with `canary`",
        )
    age = values.age()
    if age is None:
        return TargetError(
            "protocol",
            f"{url}: connected, but no $SYS/broker/uptime among its $SYS topics: watch a"
            " broker other than mosquitto with `canary`",
        )
    return TargetError(
        "timeout",
        f"{url}: no $SYS/broker/uptime for {age:.0f} s: the broker hangs, or its sys_interval is"
        f" longer than stale_after ({stale_after:g} s)",
    )


def sessions_unreadable(file: str, error: OSError) -> TargetError:
    """Return why the file in which mosquitto saves its sessions cannot be read."""
    match error:
        case FileNotFoundError():
            cure = "set `persistence true`, and wait for autosave_interval or send it SIGUSR1"
            return TargetError("os", f"{file}: mosquitto has saved nothing there: {cure}")
        case PermissionError():
            cure = "docs/collectors/mqtt.md has the cure"
            return TargetError("noperm", f"{file}: mosquitto lets nobody else read it: {cure}")
        case _:
            return TargetError("os", f"{file}: {error.strerror or error}")


def sessions_damaged(file: str, error: ValueError) -> TargetError:
    """Return the failure of a file that is not what mosquitto saves its sessions in."""
    return TargetError("protocol", f"{file}: {error}: is it mosquitto's persistence_file?")


def sessions_too_old(file: str, age: float) -> TargetError:
    """Return the failure of a file that was saved longer ago than is worth showing."""
    return TargetError(
        "timeout",
        f"{file}: saved {age:.0f} s ago, longer than persistence.stale_after: is it this broker's,"
        " and is its autosave_interval shorter?",
    )


def sessions_too_many(file: str, seconds: float) -> TargetError:
    """Return the failure of a file that takes too long to read."""
    cure = "give this collector an `interval` and a longer `timeout`"
    return TargetError("timeout", f"{file}: not read within {seconds:.1f} s: {cure}")
