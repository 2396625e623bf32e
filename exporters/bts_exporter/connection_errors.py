"""Messages for targets that cannot be reached, the same for all collectors."""

from __future__ import annotations

import errno
import socket
import sys
from typing import NamedTuple

from bts_exporter.errors import TargetError
from bts_exporter.settings.value_types import Url

_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
#: OpenSSL's errors for a peer that does not speak TLS, in several versions.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}

_IF_UNKNOWN = "check its spelling, and which name servers this machine or container uses"


class Product(NamedTuple):
    """The product that a collector connects to, with advice for its users."""

    #: Its name as its users spell it, such as `RabbitMQ management API`.
    name: str
    #: What to check when nothing listens, such as `is RabbitMQ running, with its management plugin?`.
    if_refused: str = ""
    #: What to check when the connection is closed early, such as ports that are commonly confused.
    if_closed: str = ""
    #: What its users' settings of TLS begin with, such as `tls` of `tls.ca_file`.
    tls: str = "tls"
    #: Where these settings are, if not in config.yaml, such as ` in settings.yml`.
    tls_place: str = ""


def connection_error(product: Product, address: Url | str, error: BaseException) -> TargetError:
    """Return the failure that `error` means, raised by a socket that was connected to `address`.

    `address` is shown, so it must not contain credentials: `Url` leaves them out.
    """
    start = f"{product.name} at {address}: "
    match error:
        case TimeoutError():
            return TargetError("timeout", f"{start}no reply in time")
        case ConnectionRefusedError() | FileNotFoundError():
            what = "connection refused" if error.errno != errno.ENOENT else "no such socket"
            return TargetError("refused", start + _advise(what, _if_refused(product)))
        case OSError() if _is_tls(error):
            return TargetError("tls", start + _tls(product, error, address))
        case socket.gaierror() | UnicodeError():
            return TargetError(
                "dns", f"{start}host name does not resolve: {_text(error)}; {_IF_UNKNOWN}"
            )
        case PermissionError():
            return TargetError("noperm", f"{start}permission denied by the operating system")
        case ConnectionError() | EOFError():
            what = "connection closed by the server"
            if isinstance(error, ConnectionResetError):
                what = "connection reset by the server"
            return TargetError("unreachable", start + _advise(what, product.if_closed))
        case OSError(errno=code) if code in _NO_ROUTE:
            return TargetError("unreachable", f"{start}no route to host: {_text(error)}")
        case _:
            return TargetError("os", start + _text(error))


def _if_refused(product: Product) -> str:
    return product.if_refused or f"is {product.name} running, and listening there?"


def _advise(what: str, advice: str) -> str:
    return f"{what}; {advice}" if advice else what


def _tls(product: Product, error: OSError, address: Url | str) -> str:
    key, place = product.tls, product.tls_place
    if verify := getattr(error, "verify_message", None):
        advice = (
            f"set {key}.ca_file{place} to the CA that signed it,"
            f" or {key}.server_name to the name in it"
        )
        return f"TLS certificate not accepted: {verify}; {advice}"
    if getattr(error, "reason", None) in _NOT_TLS:
        question = "does this port speak TLS?"
        scheme, separator, _ = str(address).partition("://")
        if separator and scheme.endswith("s"):
            question += f" {scheme.removesuffix('s')}:// is without"
        return f"TLS handshake failed: {_text(error)}; {question}"
    advice = f"the server may require a client certificate ({key}.cert_file, {key}.key_file{place})"
    return f"TLS handshake failed: {_text(error)}; {advice}"


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_tls(error: OSError) -> bool:
    # OpenSSL takes 5 MB: if nothing has imported it, no error can be one of its.
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLError)
