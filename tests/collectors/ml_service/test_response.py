from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.ml_service.config import ProbeConfig
from bts_collectors.ml_service.json_path import JsonPath
from bts_collectors.ml_service.response import examine
from bts_exporter import HttpResponse

#: Replies of a real server, see the key `recorded_from`.
MLFLOW = json.loads((Path(__file__).parent / "responses" / "mlflow-3.17.2.json").read_text())
#: As the specification of the protocol has them (KServe, Triton); not recorded.
KSERVE_V1 = {"model_name": "load", "predictions": [[12.5]]}
KSERVE_V2 = {
    "model_name": "load",
    "model_version": "3",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [12.5]}],
}


def path(text: str) -> JsonPath:
    """Return a path."""
    return JsonPath.from_setting(text)


def response(body: object, status: int = 200, location: str = "") -> HttpResponse:
    """Return a response with a body in JSON, or with these bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse("http://h/predict", status, content, location)


@pytest.mark.parametrize(
    ("body", "value", "prediction"),
    [
        ({"prediction_result": "12.5"}, "prediction_result", 12.5),
        (MLFLOW["predict"]["body"].encode(), "predictions[0]", 13.0),
        (KSERVE_V1, "predictions[0][0]", 12.5),
        (KSERVE_V2, "outputs[0].data[0]", 12.5),
        ({"value": 0}, "value", 0),
        ({"value": " 1e3 "}, "value", 1000),
        ({"value": "cat"}, "value", None),
        ({"value": True}, "value", None),
        ({"value": [1]}, "value", None),
        ({"value": "1_0"}, "value", None),
    ],
)
def test_prediction_in_a_valid_response(body: object, value: str, prediction: float | None) -> None:
    """A number, also as text, is the predicted value; a class is valid and has no value."""
    findings = examine(response(body), ProbeConfig(value=path(value)))

    assert (findings.problems, findings.prediction) == ([], prediction)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"value": NaN}', "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        ({}, "value is missing (no key 'value')"),
        ({"value": None}, "value is null"),
        ({"value": []}, "value is []"),
        ({"value": ""}, 'value is ""'),
        ({"value": "NaN"}, "which is not a finite number"),
        ({"value": "-inf"}, "which is not a finite number"),
        (b'{"value": 1' + b"0" * 400 + b"}", "number"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_response_without_a_prediction_is_invalid(body: object, problem: str) -> None:
    """The problem says what is there instead."""
    findings = examine(response(body), ProbeConfig(value=path("value")))

    assert findings.prediction is None
    assert len(findings.problems) == 1
    assert problem in findings.problems[0]


@pytest.mark.parametrize(
    ("status", "statuses", "valid"),
    [
        (200, (), True),
        (204, (), True),
        (302, (), False),
        (500, (), False),
        (404, (404,), True),
        (200, (404,), False),
    ],
)
def test_status_of_a_valid_response(status: int, statuses: tuple[int, ...], valid: bool) -> None:
    """Any success is valid by default; the settings may expect something else."""
    assert (not examine(response({}, status), ProbeConfig(status=statuses)).problems) is valid


def test_error_quotes_what_the_service_says() -> None:
    """The message of the service tells what is wrong with the request."""
    recorded = MLFLOW["wrong_key"]
    found = examine(response(recorded["body"].encode(), recorded["status"]), ProbeConfig())

    assert found.problems[0].startswith("HTTP 400, expected 200 to 299; the response begins with")
    assert "The input must be a JSON dictionary" in found.problems[0]


@pytest.mark.parametrize(
    ("status", "location", "reason", "cure"),
    [
        (401, "", "auth", "or token"),
        (403, "", "noperm", "expected 200"),
        (302, "https://h/login", "protocol", "it redirects to https://h/login"),
    ],
)
def test_reason_of_a_refused_request(status: int, location: str, reason: str, cure: str) -> None:
    """A login that is refused has a reason of its own."""
    found = examine(response({}, status, location), ProbeConfig())

    assert found.reason == reason
    assert cure in found.problems[0]


@pytest.mark.parametrize(
    ("expect", "problems"),
    [
        ({"ready": True, "name": "load"}, []),
        ({"ready": "True"}, ['ready is true, expected "True"']),
        ({"ready": 1}, ["ready is true, expected 1"]),
        (
            {"name": "x", "state": 1},
            ['name is "load", expected "x"', "state is missing (no key 'state')"],
        ),
    ],
)
def test_expected_values(expect: dict[str, Any], problems: list[str]) -> None:
    """All differences are listed; true is not the number 1."""
    found = examine(response({"ready": True, "name": "load"}), ProbeConfig(expect=expect))

    assert found.problems == problems


def test_model_of_a_response() -> None:
    """Name and version are read from their paths, a version may be a number."""
    probe = ProbeConfig(model_path=path("model_name"), version_path=path("v"))
    found = examine(response({**KSERVE_V2, "v": 3}), probe)

    assert (found.problems, found.model, found.version) == ([], "load", "3")


def test_model_that_is_no_name() -> None:
    """A label must not be a document, or longer than a name."""
    probe = ProbeConfig(model_path=path("name"), version_path=path("version"))
    found = examine(response({"name": "x" * 1000, "version": {"a": 1}}), probe)

    assert found.model == "x" * 100
    assert found.problems == ["version is an object, expected the version of the model"]


@pytest.mark.parametrize("depth", [10, 300, 900, 3000])
def test_deep_document_does_not_raise(depth: int) -> None:
    """What can be decoded can also be compared and shown."""
    body = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    found = examine(response(body), ProbeConfig(expect={"a": 1}, model_path=path("a")))

    assert found.problems


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)


@given(JSON, st.sampled_from(["a", "a[0]", "$", "a.b"]))
def test_no_document_raises(document: object, where: str) -> None:
    """Whatever a service sends, the response is valid or has a problem."""
    probe = ProbeConfig(value=path(where), model_path=path(where), expect={where: 1})
    found = examine(response(document), probe)

    assert found.problems or found.prediction == 1
