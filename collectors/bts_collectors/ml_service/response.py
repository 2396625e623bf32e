"""Checks whether a response is that of a working prediction service."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from bts_collectors.ml_service.config import ProbeConfig, Scalar
from bts_collectors.ml_service.json_path import JsonPath
from bts_exporter import HttpResponse, Reason

_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE
)
_REASONS: dict[int, Reason] = {HTTPStatus.UNAUTHORIZED: "auth", HTTPStatus.FORBIDDEN: "noperm"}
#: Bytes of a response that an error quotes.
_MAX_QUOTED = 200
#: Characters of a model's name and version: the service chooses them, and they become labels.
_MAX_LABEL = 100


@dataclass(slots=True)
class Findings:
    """What a response says; it is valid if there are no problems."""

    problems: list[str] = field(default_factory=list)
    reason: Reason = "protocol"
    prediction: float | None = None
    model: str = ""
    version: str = ""


def examine(response: HttpResponse, probe: ProbeConfig) -> Findings:
    """Return what `response` says, and everything that is wrong with it."""
    if not _is_expected(response.status, probe):
        reason = _REASONS.get(response.status, "protocol")
        return Findings([_unexpected(response, probe)], reason)
    findings = Findings()
    if probe.value or probe.model_path or probe.version_path or probe.expect:
        try:
            document = msgspec.json.decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            begin = bytes(response.body[:_MAX_QUOTED])
            findings.problems.append(f"not JSON: {error}; it begins with {begin!r}")
        except RecursionError:
            findings.problems.append("JSON that is nested too deep")
        else:
            _read(document, probe, findings)
    return findings


def _is_expected(status: int, probe: ProbeConfig) -> bool:
    if probe.status:
        return status in probe.status
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _unexpected(response: HttpResponse, probe: ProbeConfig) -> str:
    expected = " or ".join(map(str, probe.status)) or "200 to 299"
    what = f"HTTP {response.status}, expected {expected}"
    if response.location:
        return f"{what}; it redirects to {response.location}: write that in url and path"
    if response.status == HTTPStatus.UNAUTHORIZED:
        return f"{what}; set a user in url and password, or token"
    if response.body:
        what += f"; the response begins with {bytes(response.body[:_MAX_QUOTED])!r}"
    return what


def _read(document: object, probe: ProbeConfig, findings: Findings) -> None:
    for path, expected in probe.expect.items():
        for value in _found(document, JsonPath.from_setting(path), findings):
            if not _equal(value, expected):
                findings.problems.append(f"{path} is {_shown(value)}, expected {_shown(expected)}")
    if probe.value:
        for value in _found(document, probe.value, findings):
            _read_prediction(value, probe.value, findings)
    for path_setting, name in ((probe.model_path, "model"), (probe.version_path, "version")):
        if path_setting:
            for value in _found(document, path_setting, findings):
                _read_label(value, path_setting, name, findings)


def _found(document: object, path: JsonPath, findings: Findings) -> Iterator[object]:
    """Yield the value at `path`; add a problem if there is none."""
    try:
        value = path.find(document)
    except LookupError as error:
        findings.problems.append(str(error.args[0]))
    else:
        yield value


def _read_prediction(value: object, path: JsonPath, findings: Findings) -> None:
    number: float | None = None
    if value is None or value in ("", [], {}):
        findings.problems.append(f"{path} is {_shown(value)}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = _float(value)
    elif isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    if number is not None and not math.isfinite(number):
        findings.problems.append(f"{path} is {_shown(value)}, which is not a finite number")
    else:
        findings.prediction = number


def _read_label(value: object, path: JsonPath, name: str, findings: Findings) -> None:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        setattr(findings, name, str(value)[:_MAX_LABEL])
    else:
        findings.problems.append(f"{path} is {_shown(value)}, expected the {name} of the model")


def _equal(value: object, expected: Scalar) -> bool:
    # Python's True is 1.
    return isinstance(value, bool) is isinstance(expected, bool) and value == expected


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: object) -> str:
    # A document is not shown: it may be nested as deep as the decoder allows, and as large as a response.
    match value:
        case dict():
            return "an object" if value else "{}"
        case list():
            return f"a list of {len(value)}" if value else "[]"
        case _:
            text = msgspec.json.encode(value).decode("utf-8", "replace")
            return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
