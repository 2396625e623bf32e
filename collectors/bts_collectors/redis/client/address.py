"""The database and the options in an address of the settings, as the `redis` package's from_url reads them."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, unquote

from bts_exporter import Url

#: Schemes of servers, and of servers that are reached over TCP.
TCP_SCHEMES = ("redis", "rediss")
SCHEMES = (*TCP_SCHEMES, "unix")
#: Options of from_url that are settings here.
_SETTINGS = {
    "password": "use the setting `password`",
    "username": "write it in front of the host: redis://USER@HOST",
    "timeout": "use the setting `timeout`",
    "socket_timeout": "use the setting `timeout`",
    "socket_connect_timeout": "use the setting `timeout`",
    "ssl_ca_certs": "use `tls: {ca_file: ...}`",
    "ssl_certfile": "use `tls: {cert_file: ...}`",
    "ssl_keyfile": "use `tls: {key_file: ...}`",
    "ssl_cert_reqs": "use `tls: {insecure_skip_verify: true}` to accept any certificate",
    "ssl_check_hostname": "use `tls: {server_name: ...}`",
}


def check(url: Url, *schemes: str, key: str = "url") -> None:
    """Raise ValueError, with the cure, for an address that is not valid for Redis.

    `schemes` are those that are possible here, and `key` is the name of the setting.
    """
    url.require_scheme(*schemes, key=key)
    if url.scheme == "unix" and url.host:
        msg = f"{key}: a path begins with a slash: unix:///{url.host}{url.path}"
        raise ValueError(msg)
    for option, _ in _options(url):
        if option != "db":
            cure = _SETTINGS.get(option, "the only option in an address is ?db=NUMBER")
            msg = f"{key}: unknown option {option!r}: {cure}"
            raise ValueError(msg)
    try:
        database(url)
    except ValueError as error:
        msg = f"{key}: {error}"
        raise ValueError(msg) from None


def database(url: Url) -> int:
    """Return the number of the database in `redis://host/2` or `?db=2`; ValueError if it is not a number.

    The option wins over the path, as in from_url. The path of `unix://` is the socket's.
    """
    path = "" if url.scheme == "unix" else unquote(url.path).replace("/", "")
    text = next((value for key, value in _options(url) if key == "db" and value), path)
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        msg = f"expected the number of a database, got {text!r}"
        raise ValueError(msg)
    return int(text)


def socket_path(url: Url) -> str:
    """Return the path of a unix socket; special characters in an address are percent-encoded."""
    return unquote(url.path)


def with_host(url: Url, host: str, port: int) -> Url:
    """Return the address of another server with login, database and TLS of `url`."""
    if url.scheme == "unix":
        return Url("redis", host, port, f"/{database(url)}", url.username, url.password)
    return replace(url, host=host, port=port)


def _options(url: Url) -> list[tuple[str, str]]:
    return parse_qsl(url.query, keep_blank_values=True)
