"""HTTP proxies: which one leads to an address, and requests through it."""

from __future__ import annotations

import socket
from base64 import b64encode

from bts_exporter.settings.value_types import Url

_PORTS = {"http": 80, "https": 443}
#: Bytes that the response to CONNECT may have.
_LONGEST_HEAD = 16384
_END = b"\r\n\r\n"


def proxy_of_environment(url: Url) -> Url | None:
    """Return the proxy that http_proxy, https_proxy and no_proxy name for `url`; ValueError if it is not valid."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415  # few need it

    proxies = getproxies()
    raw = proxies.get(url.scheme) or proxies.get("all")
    if not raw or proxy_bypass(f"{url.host}:{_port(url)}"):
        return None
    proxy = Url.from_setting(raw if "://" in raw else f"http://{raw}")
    proxy.require_scheme("http", key=f"{url.scheme}_proxy")
    return proxy


def authorization(proxy: Url) -> dict[str, str]:
    """Return the header with the credentials for the proxy, if its address has any."""
    if proxy.username is None:
        return {}
    password = proxy.password.reveal() if proxy.password else ""
    credentials = b64encode(f"{proxy.username}:{password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {credentials}"}


def target_for(url: Url, target: str) -> str:
    """Return the target of a request for `url` that a proxy receives: with scheme and host."""
    return f"{url.scheme}://{_place(url)}{target}"


def open_tunnel(sock: socket.socket, url: Url, proxy: Url) -> None:
    """Have the proxy that `sock` is connected to forward everything to the host of `url`; OSError if it refuses."""
    place = _place(url)
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"{name}: {value}" for name, value in authorization(proxy).items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while _END not in head and len(head) < _LONGEST_HEAD:
        received = sock.recv(4096)
        if not received:
            break
        head += received
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if not status.startswith("HTTP/1.") or status.split()[1:2] != ["200"]:
        msg = f"the proxy {proxy} refuses to connect to {place}: {status[:100] or 'no reply'}"
        raise OSError(msg)


def _place(url: Url) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{_port(url)}"


def _port(url: Url) -> int:
    return url.port or _PORTS[url.scheme]
