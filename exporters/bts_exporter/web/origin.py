"""Whether a request was sent by a page of another site in a user's browser."""

from __future__ import annotations

import re
import socket

from bts_exporter.web.protocol import Headers

#: What Sec-Fetch-Site says of requests that no other site's page has caused.
_OWN_SITE = frozenset({"same-origin", "none"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/?#@]+))(?::([0-9]+))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_cross_site(headers: Headers) -> bool:
    """Return whether a browser sent the request for a page that is not ours.

    A page of ours has the same origin, under a name that no other site can have: an attacker's name
    can be made to resolve to our address (DNS rebinding), so the Host has to be an IP address,
    localhost or this machine's name. Programs send neither Origin nor Sec-Fetch-Site.
    """
    sites = headers.get_all("Sec-Fetch-Site", [])
    origins = headers.get_all("Origin", [])
    if not sites and not origins:
        return False
    host = (headers.get("Host") or "").lower()
    ours = all(site in _OWN_SITE for site in sites) and _is_our_name(host)
    return not ours or not all(_same(origin.lower(), host) for origin in origins)


def _same(origin: str, host: str) -> bool:
    scheme, _, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and _with_port(authority, port) == _with_port(host, port)


def _with_port(authority: str, port: str) -> str:
    match = _AUTHORITY.fullmatch(authority)
    return authority if match is None or match[3] else f"{authority}:{port}"


def _is_our_name(host: str) -> bool:
    match = _AUTHORITY.fullmatch(host)
    if match is None:
        return False
    if match[1]:
        return _is_address(socket.AF_INET6, match[1])
    name = match[2]
    return name in {"localhost", socket.gethostname().lower()} or _is_address(socket.AF_INET, name)


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True
