"""Settings of an HTTP prediction service and of the requests that probe it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from bts_collectors.ml_service.json_path import JsonPath
from bts_exporter import CollectorConfig, Secret, TLSConfig, Url

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What HTTP allows in a request line without escapes.
_PATH = re.compile(r"(?:[/?][!-~]*)?")
#: Headers that the client sets from the request itself.
_OWN_HEADERS = {
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
}
_STATUSES = range(200, 600)

#: What `__post_init__` checks, for editors.
_Status = msgspec.Meta(extra_json_schema={"minimum": _STATUSES[0], "maximum": _STATUSES[-1]})
_SERVICE_URL = {
    **Url.schema_of_schemes("http", "https"),
    "not": {"pattern": "[?]."},
}
_Probes = msgspec.Meta(extra_json_schema={"minProperties": 1, "propertyNames": {"minLength": 1}})
_Headers = msgspec.Meta(
    extra_json_schema={"propertyNames": {"pattern": rf"^(?:{_HEADER.pattern})$"}}
)

Scalar = str | int | float | bool

_PROBES = "requests are below probes: {NAME: {path: /prediction, json: {...}, value: PATH}}"


class ProbeConfig(CollectorConfig, frozen=True):
    """A request, and what its response must be."""

    #: Below the path of `url`; it may have a query.
    path: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": rf"^{_PATH.pattern}$"})] = ""
    #: POST if there is a body, else GET.
    method: Literal["GET", "HEAD", "POST", "PUT"] | None = None
    #: The body as JSON.
    json: Any = None
    #: The body as the fields of an HTML form; values that are not texts are sent as JSON.
    form: dict[str, Any] | None = None
    #: The body as text.
    body: str | None = None
    #: The header Content-Type, if it is not that of the kind of body.
    content_type: str | None = None
    #: Statuses that a valid response may have; 200 to 299 if empty.
    status: tuple[Annotated[int, _Status], ...] = ()
    #: Values that a valid response must have, by path.
    expect: dict[str, Scalar] = msgspec.field(default_factory=dict)
    #: Where the predicted value is; a valid response has it.
    value: JsonPath | None = None
    #: Where the name of the model is.
    model_path: JsonPath | None = None
    #: Where the version of the model is.
    version_path: JsonPath | None = None

    advice = {  # noqa: RUF012  # the contract
        "url": "the address of the service is url of the block, and a probe has a path",
        "headers": "headers belong to the block, for all of its probes",
        "timeout": "the time of a collection is divided among the probes; timeout belongs to the block",
        "jsonpath": "value: PATH",
    }

    def __post_init__(self) -> None:
        """Check the values; ValueError names the first wrong one."""
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        if not _PATH.fullmatch(self.path):
            yield f"path: {self.path!r} is not valid (expected a path that begins with /, with special characters percent-encoded)"
        bodies = [k for k in ("json", "form", "body") if getattr(self, k) is not None]
        if len(bodies) > 1:
            yield f"{bodies[1]}: a request has one body, and there is {bodies[0]} already"
        if bodies and self.method in {"GET", "HEAD"}:
            yield f"method: {self.method} has no body, remove {bodies[0]} or write POST"
        if self.content_type is not None and not bodies:
            yield "content_type: no effect without json, form or body"
        if not _is_header_value(self.content_type or ""):
            yield "content_type: expected one line of printable characters"
        try:
            json.dumps([self.json, self.form], allow_nan=False)
        except (TypeError, ValueError) as error:
            yield f"{'json' if self.form is None else 'form'}: cannot be sent as JSON: {error}"
        yield from self._problems_of_response()

    def _problems_of_response(self) -> Iterator[str]:
        for status in self.status:
            if status not in _STATUSES:
                yield f"status: {status} is not a status (expected 200 to 599)"
        reads = self.value or self.model_path or self.version_path or self.expect
        if reads and self.method == "HEAD":
            yield "method: the response to HEAD has no body: write GET"
        for path in self.expect:
            try:
                JsonPath.from_setting(path)
            except ValueError as error:
                yield f"expect: {error}"


class MlServiceConfig(CollectorConfig, frozen=True):
    """Settings of one service."""

    #: Address of the service, http:// or https://; a user is part of it.
    url: Annotated[Url, msgspec.Meta(extra_json_schema=_SERVICE_URL)]
    #: By name, which is the label `probe`.
    probes: Annotated[dict[str, ProbeConfig], _Probes]
    #: Password of the user in `url`.
    password: Secret | None = None
    #: Bearer token.
    token: Secret | None = None
    #: Further headers of each request; the values are not shown.
    headers: Annotated[dict[str, Secret], _Headers] = msgspec.field(default_factory=dict)
    tls: TLSConfig = TLSConfig()
    #: Name of the model, if no response has it.
    model: str = ""
    #: Version of the model, if no response has it.
    version: str = ""

    advice = {  # noqa: RUF012  # the contract
        "path": _PROBES,
        "json": _PROBES,
        "form": _PROBES,
        "body": _PROBES,
        "value": _PROBES,
        "method": _PROBES,
        "status": _PROBES,
        "bearer_token": "token: !credential NAME",
        "basic_auth": "the user is part of url: http://USER@HOST, the password is password: !credential NAME",
    }

    def __post_init__(self) -> None:
        """Check combinations of settings; ValueError names the first wrong one."""
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        self.url.require_scheme("http", "https")
        self.tls.require_used_by(self.url, schemes=("https",))
        if self.url.query:
            yield "url: the part after ? belongs to the path of a probe"
        if self.token and (self.url.username or self.password):
            yield "token: a request has one login, and there is a user or password already"
        if self.token and not (self.token.reveal().isascii() and self.token.reveal().isprintable()):
            yield "token: it has line ends or characters that no header has"
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                yield f"headers: {name!r} is not a header that can be set"
            if not _is_header_value(value.reveal()):
                yield f"headers: the value of {name} has line ends or characters that no header has"
        if not self.probes:
            yield f"probes: there is none; {_PROBES}"
        if not all(self.probes):
            yield "probes: the name of a probe is empty"


def _is_header_value(text: str) -> bool:
    return text.isprintable() and all(ord(character) < 256 for character in text)  # noqa: PLR2004  # Latin-1
