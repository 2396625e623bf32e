from __future__ import annotations

import pytest

from bts_collectors.ml_service.json_path import JsonPath

DOCUMENT = {
    "prediction_result": "12.5",
    "outputs": [{"name": "load", "data": [1.5, 2.5]}],
    "a.b": {"c d": 1, 'e"f': 2},
    "none": None,
    "0": "zero",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("prediction_result", "12.5"),
        ("$.prediction_result", "12.5"),
        ("outputs[0].data[1]", 2.5),
        ("$['outputs'][0]['name']", "load"),
        ('["a.b"]["c d"]', 1),
        ('["a.b"]["e\\"f"]', 2),
        ("none", None),
        ("0", "zero"),
        ("$", DOCUMENT),
    ],
)
def test_value_at_a_path(path: str, value: object) -> None:
    """Keys are separated by dots, or quoted in brackets; indexes are in brackets."""
    assert JsonPath.from_setting(path).find(DOCUMENT) == value


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".a",
        "a.",
        "a..b",
        "a[",
        "a[x]",
        "a[-1]",
        "a[0]b",
        "a b",
        "a.[0]",
        "$.",
        "a[*]",
        "a[0:2]",
        7,
    ],
)
def test_what_is_not_a_path_is_refused(path: object) -> None:
    """Other parts of JSONPath, and mistakes, are errors that show what is expected."""
    with pytest.raises(ValueError, match=r"predictions\[0\]\.value"):
        JsonPath.from_setting(path)


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("prediction", "prediction is missing (no key 'prediction')"),
        ("outputs[1].data", "outputs[1].data is missing (no index 1 in a list of 1)"),
        ("outputs.data", "outputs.data is missing ('data' of a list)"),
        ("none.x", "none.x is missing ('x' of null)"),
        (
            "outputs[0].data[0][0]",
            "outputs[0].data[0][0] is missing (0 of a number or truth value)",
        ),
    ],
)
def test_error_says_which_part_is_missing(path: str, missing: str) -> None:
    """The part of the path that the document does not have is named."""
    with pytest.raises(LookupError) as caught:
        JsonPath.from_setting(path).find(DOCUMENT)

    assert caught.value.args == (missing,)
