"""Looks up a host name by a deadline: the system's own lookup waits as long as a dead DNS server takes."""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import ip_address
from typing import Any

from bts_collectors.redis.client.bounded_call import BoundedCall

#: The system's entry for each address; its last part is what a socket connects to.
Addresses = list[Any]


class NameLookup:
    """Looks up names, one at a time; a late lookup goes on, and its result is used next time."""

    def __init__(self) -> None:
        self._call = BoundedCall("bts-redis-lookup")

    def addresses(self, host: str, port: int, deadline: float) -> Addresses:
        """Return the addresses of `host`; socket.gaierror if there are none by `deadline`."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        if _is_address(host):
            return look_up()
        try:
            result, error = self._call.outcome((host, port), look_up, deadline)
        except TimeoutError:
            msg = "no reply from the name service in time"
            raise socket.gaierror(socket.EAI_AGAIN, msg) from None
        except RuntimeError as no_thread:
            msg = f"no thread to look it up in: {no_thread}"
            raise socket.gaierror(socket.EAI_AGAIN, msg) from no_thread
        if isinstance(error, ValueError):
            # An impossible name, such as a label of 64 characters or a zero byte.
            raise socket.gaierror(socket.EAI_NONAME, str(error))
        if error is not None:
            raise error
        addresses: Addresses = result
        return addresses


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
