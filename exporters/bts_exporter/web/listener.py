"""From an address as people write it to a listening socket, or to an error that says what to do."""

from __future__ import annotations

import errno
import re
import socket

from bts_exporter.errors import ServeError

_ADDRESS = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535
#: Connections that the kernel keeps until they are accepted; it may have a lower limit.
_BACKLOG = 1024


def listen(address: str) -> socket.socket:
    """Return a socket that listens on `address`; ServeError names address, cause and cure.

    ":19100" and "[::]:19100" mean all addresses, IPv6 where it exists and IPv4; else "0.0.0.0:19100",
    "[::1]:19100" or "name:19100", of which one address is taken, IPv4 first. Port 0 is any free one.
    """
    host, port = _split(address)
    try:
        if not host and socket.has_dualstack_ipv6():
            host = "::"
        candidates = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = min(candidates, key=lambda found: found[0] != socket.AF_INET)
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(place, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except UnicodeError as error:  # from getaddrinfo's IDNA
        message = f"cannot listen on {address}: {host!r} is not a host name"
        raise ServeError(message) from error
    except OSError as error:
        message = f"cannot listen on {address}: {_cause(error, host, port)}"
        raise ServeError(message) from error


def _split(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > _MAX_PORT:
        message = (
            f"cannot listen on {address!r}: write it as host:port with a port up to {_MAX_PORT}, "
            'such as ":19100" (all addresses), "127.0.0.1:19100" or "[::1]:19100"'
        )
        raise ServeError(message)
    return match["bracketed"] or match["plain"], int(match["port"])


def _cause(error: OSError, host: str, port: int) -> str:
    """Return what prevents us from listening, and what to do."""
    match error:
        case socket.gaierror():
            return f"{host!r} does not resolve ({error.strerror}); give an address of this machine"
        case PermissionError():
            return f"no permission for port {port}; take one from 1024 on, or grant CAP_NET_BIND_SERVICE"
        case OSError(errno=errno.EADDRINUSE):
            return (
                f"port {port} is in use; end the program that has it "
                f"(ss -ltnp 'sport = :{port}' shows it) or take another port"
            )
        case OSError(errno=errno.EADDRNOTAVAIL):
            return f"{host} is not an address of this machine (ip address shows those it has)"
        case _:
            return error.strerror or str(error)
