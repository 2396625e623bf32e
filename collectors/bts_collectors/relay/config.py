"""Settings of an application whose metrics are relayed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

from bts_exporter import CollectorConfig, Secret, TLSConfig, Url

#: Names of the exporter's own metrics: a relay of them would contradict ours.
RESERVED = "bts_exporter_"

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PREFIX = re.compile(r"(?:[a-zA-Z_:][a-zA-Z0-9_:]*)?")
#: Headers that the client sets from the request itself.
_OWN_HEADERS = {"accept-encoding", "connection", "content-length", "transfer-encoding"}
#: What HTTP allows in a request line without escapes.
_QUERY = re.compile(r"[!-~]*")
_MIN_BODY_BYTES = 1000

#: What `__post_init__` checks, for editors.
_Headers = msgspec.Meta(
    extra_json_schema={"propertyNames": {"pattern": rf"^(?:{_HEADER.pattern})$"}}
)
_Prefix = msgspec.Meta(extra_json_schema={"pattern": rf"^(?!{RESERVED}){_PREFIX.pattern}$"})


class RelayConfig(CollectorConfig, frozen=True):
    """Address, login, names and limits of one application."""

    #: The page of metrics; the path is /metrics if the address has none.
    url: Annotated[Url, msgspec.Meta(extra_json_schema=Url.schema_of_schemes("http", "https"))]
    #: Password of the user in `url`.
    password: Secret | None = None
    #: Bearer token.
    token: Secret | None = None
    #: Further headers of each request; the values are not shown.
    headers: Annotated[dict[str, Secret], _Headers] = msgspec.field(default_factory=dict)
    tls: TLSConfig = TLSConfig()
    #: Put in front of the name of each metric.
    prefix: Annotated[str, _Prefix] = ""
    #: Bytes that a page may have, unpacked.
    max_body_bytes: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": _MIN_BODY_BYTES})] = (
        10_000_000
    )

    advice = {  # noqa: RUF012  # the contract
        "allow": "metrics are selected by metrics: {allow: [GLOB], deny: [GLOB]}, with the prefix",
        "deny": "metrics are selected by metrics: {allow: [GLOB], deny: [GLOB]}, with the prefix",
        "include": "metrics are selected by metrics: {allow: [GLOB], deny: [GLOB]}",
        "exclude": "metrics are selected by metrics: {allow: [GLOB], deny: [GLOB]}",
        "urls": "several applications are a list of blocks: - {name: NAME, url: ADDRESS}",
        "metrics_path": "the path is part of url",
        "bearer_token": "token: !credential NAME",
        "body_size_limit": "max_body_bytes: 10000000",
        "sample_limit": "max_series: 100000",
    }

    def __post_init__(self) -> None:
        """Check combinations of settings; ValueError names the first wrong one."""
        for problem in self._problems():
            raise ValueError(problem)

    @property
    def path(self) -> str:
        """Return path and query of the page."""
        query = f"?{self.url.query}" if self.url.query else ""
        return (self.url.path.rstrip("/") or "/metrics") + query

    def _problems(self) -> Iterator[str]:
        self.url.require_scheme("http", "https")
        self.tls.require_used_by(self.url, schemes=("https",))
        if not _QUERY.fullmatch(self.path):
            yield "url: percent-encode the special characters of path and query"
        if self.token and (self.url.username or self.password):
            yield "token: a request has one login, and there is a user or password already"
        if self.token and not (self.token.reveal().isascii() and self.token.reveal().isprintable()):
            yield "token: it has line ends or characters that no header has"
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                yield f"headers: {name!r} is not a header that can be set"
            if not value.reveal().isprintable() or not value.reveal().isascii():
                yield f"headers: the value of {name} has line ends or characters that no header has"
        if not _PREFIX.fullmatch(self.prefix):
            yield f"prefix: no metric can begin with {self.prefix!r} (expected letters, digits and _)"
        if self.prefix.startswith(RESERVED):
            yield f"prefix: {RESERVED} is reserved for metrics of the exporter itself"
        if self.max_body_bytes < _MIN_BODY_BYTES:
            yield f"max_body_bytes: must be at least {_MIN_BODY_BYTES}, got {self.max_body_bytes}"
