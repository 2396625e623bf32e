"""The protocols: which one an address has, its encoder, and the complete address."""

from __future__ import annotations

import re
from dataclasses import replace

from bts_exporter.connection_errors import Product
from bts_exporter.errors import PushError
from bts_exporter.push import pushgateway
from bts_exporter.push.options import Protocol
from bts_exporter.push.series import Encoder, Source
from bts_exporter.settings.value_types import Url

_OTLP_PORT = 4318
_OTLP_PATH = re.compile(r"/v1/metrics/?$|/(otlp|opentelemetry)(/|$)")
_REMOTE_WRITE_PATH = re.compile(r"/(write|receive|api/v1/push)/?$")


#: The path of each protocol where the address has none.
_PATHS = {Protocol.OTLP: "/v1/metrics", Protocol.REMOTE_WRITE: "/api/v1/write"}

_TLS = ("tls_config", " in the file of --http.config.file")
PRODUCTS = {
    Protocol.PUSHGATEWAY: Product(
        "Pushgateway",
        "is it the address of a Pushgateway?",
        f"if it is not a Pushgateway, set --protocol={Protocol.REMOTE_WRITE} or --protocol={Protocol.OTLP}",
        *_TLS,
    ),
    Protocol.OTLP: Product(
        "OTLP receiver",
        "is it running, with OTLP over HTTP?",
        "is it an address of OTLP over HTTP, such as http://collector:4318/v1/metrics?",
        *_TLS,
    ),
    Protocol.REMOTE_WRITE: Product("remote write receiver", "is it running?", "", *_TLS),
}


def protocol_of(url: Url) -> Protocol:
    """Return the protocol that path and port of an address indicate; otherwise it is a Pushgateway's."""
    if _OTLP_PATH.search(url.path) or (url.port == _OTLP_PORT and url.path in {"", "/"}):
        return Protocol.OTLP
    if _REMOTE_WRITE_PATH.search(url.path):
        return Protocol.REMOTE_WRITE
    return Protocol.PUSHGATEWAY


def address_of(protocol: Protocol, url: Url, source: Source) -> Url:
    """Return the address that requests are sent to."""
    if protocol is Protocol.PUSHGATEWAY:
        return replace(url, path=url.path.rstrip("/") + pushgateway.path_of(*source))
    return replace(url, path=_PATHS[protocol]) if url.path in {"", "/"} else url


def encoder_of(protocol: Protocol, source: Source) -> Encoder:
    """Return the encoder; PushError if its packages are not installed."""
    try:
        if protocol is Protocol.OTLP:
            from bts_exporter.push.otlp import Otlp  # noqa: PLC0415  # an extra

            return Otlp(source)
        if protocol is Protocol.REMOTE_WRITE:
            from bts_exporter.push.remote_write import RemoteWrite  # noqa: PLC0415  # an extra

            return RemoteWrite(source)
    except ImportError as error:
        msg = f"--protocol={protocol} needs further packages ({error}): pip install 'bts-exporter[push]'"
        raise PushError(msg) from error
    return pushgateway.Pushgateway()
