from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.mqtt.rules.payloads import (
    REASONS,
    Conversion,
    Format,
    Path,
    PayloadError,
    decoder,
    number,
)

VALUE = Path.from_setting("value")


def failure(form: Format, payload: bytes, path: Path = VALUE, **options: Any) -> tuple[str, str]:
    """Return reason and message of a payload without a value."""
    settings = {"mapping": {}} | options
    with pytest.raises(PayloadError) as error:
        Conversion(**settings).reader(path)(decoder(form)(payload))
    return error.value.reason, str(error.value)


def read(form: Format, payload: bytes, path: object = "$", **options: Any) -> float | None:
    """Return the value of a payload."""
    settings = {"mapping": {}} | options
    return Conversion(**settings).reader(Path.from_setting(path))(decoder(form)(payload))


# Paths


@pytest.mark.parametrize(
    ("raw", "steps"),
    [
        ("value", ("value",)),
        ("a.b.c", ("a", "b", "c")),
        ("$.a.b", ("a", "b")),
        ("list[0].x", ("list", 0, "x")),
        ("[2][3]", (2, 3)),
        ('["a.b"].c', ("a.b", "c")),
        ('a["b[0]"]', ("a", "b[0]")),
        ("AM2301-01.Temperature", ("AM2301-01", "Temperature")),
        (4, (4,)),
        ("$", ()),
    ],
)
def test_path_is_spelled_as_people_do(raw: object, steps: tuple[str | int, ...]) -> None:
    """Names separated by dots, indexes in brackets, quotes for names with special characters."""
    assert Path.from_setting(raw).steps == steps


@pytest.mark.parametrize(
    "raw",
    ["", "a..b", "a[", "a[x]", 'a["', -1, True, None, 1.5, "a.", "a[{b}x]", "a[=1]"],
)
def test_invalid_path_is_refused(raw: object) -> None:
    """When the settings are read, not at the first message."""
    with pytest.raises(ValueError, match=r"expected a path|is not a valid path"):
        Path.from_setting(raw)


# Values


@pytest.mark.parametrize(
    ("form", "payload", "path", "value"),
    [
        ("json", b'{"value": 21.5}', "value", 21.5),
        ("json", b'{"value": 3}', "value", 3),
        ("json", b'{"value": "21.5"}', "value", 21.5),
        ("json", b'{"value": true}', "value", 1),
        ("json", b'{"a": {"b": [{"c": 1}, {"c": 2}]}}', "a.b[1].c", 2),
        ("json", b"[1, 2, 3]", "[2]", 3),
        ("json", b" 7 ", "$", 7),
        ("csv", b"1,1700000000,31.5,30,1", 2, 31.5),
        ("csv", b'"a,b",2\n', 1, 2),
        ("csv", b"\xff,1", 1, 1),
        ("csv", b'5"x,1', 1, 1),
        ("number", b" -1.5e3\n", "$", -1500),
        ("number", b"\xef\xbb\xbf21.5\0", "$", 21.5),
        ("json", b'\xef\xbb\xbf{"value": 21.5}\0', "value", 21.5),
        ("json", b"[1, 2, 3]", "[-1]", 3),
        ("json", b'[{"id": 7, "v": 1}, {"id": "8", "v": 2}]', "[id=8].v", 2),
        ("json", b'[{"on": true, "v": 1}]', "[on=true].v", 1),
        ("text", b"12", "$", 12),
    ],
)
def test_value_is_found(form: Format, payload: bytes, path: object, value: float) -> None:
    """In each format."""
    assert read(form, payload, path) == value


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"value": "\xff"}', "wrong_type"),
        (b'{"value": 1', "malformed"),
        (b'{"value": NaN}', "not_finite"),
        (b'{"value": 1e999}', "not_finite"),
        (b"[" * 100_000, "malformed"),
        (b"{}", "missing"),
        (b"[1]", "missing"),
        (b"3", "missing"),
        (b'"value"', "missing"),
        (b"null", "missing"),
        (b'{"value": null}', "missing"),
        (b'{"value": []}', "wrong_type"),
        (b'{"value": {}}', "wrong_type"),
        (b'{"value": "warm"}', "wrong_type"),
        (b'{"value": "1_000"}', "wrong_type"),
        (b'{"value": ""}', "wrong_type"),
        (b'{"value": "NaN"}', "not_finite"),
        (b'{"value": "-inf"}', "not_finite"),
        (b'{"value": 1' + b"0" * 400 + b"}", "not_finite"),
    ],
)
def test_json_without_a_value_is_counted_by_reason(payload: bytes, reason: str) -> None:
    """Reasons are bounded, and messages do not grow with the payload."""
    found, words = failure("json", payload)

    assert (found, len(words) < 250) == (reason, True)


@pytest.mark.parametrize(
    ("form", "payload", "path", "reason"),
    [
        ("json", b'"789"', "[0]", "missing"),
        ("csv", b"1,2", 2, "missing"),
        ("csv", b"", 0, "missing"),
        ("csv", b'1,"2', 1, "malformed"),
        ("csv", b"a," + b"x" * 200_000, 1, "malformed"),
        ("csv", b"1,", 1, "wrong_type"),
        ("number", b"\xff", "$", "wrong_type"),
        ("number", b"", "$", "wrong_type"),
        ("number", b"1e999", "$", "not_finite"),
        ("text", b"warm", "$", "wrong_type"),
    ],
)
def test_other_formats_have_the_same_reasons(
    form: Format, payload: bytes, path: object, reason: str
) -> None:
    """A line without the column, or a column that is not a number."""
    assert failure(form, payload, Path.from_setting(path))[0] == reason


@given(st.binary(max_size=80), st.sampled_from(["json", "csv", "number", "text"]))
def test_no_payload_raises_anything_else(payload: bytes, form: Format) -> None:
    """Any payload ends in a finite number or in one of the reasons."""
    try:
        value = read(form, payload, 0 if form == "csv" else "$")
    except PayloadError as error:
        assert error.reason in REASONS  # noqa: PT017  # either way is right
    else:
        assert value is not None
        assert abs(value) < float("inf")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b"]), inner),
        max_leaves=8,
    )
)
def test_no_shape_of_json_raises_anything_else(document: Any) -> None:
    """A path is applied to any JSON value."""
    try:
        read("json", json.dumps(document).encode(), "a[0].b", mapping={"x": 1})
    except PayloadError as error:
        assert error.reason in REASONS  # noqa: PT017  # either way is right


# Maps and scales


@pytest.mark.parametrize(
    ("payload", "mapping", "value"),
    [
        (b'"open"', {"open": 1, "closed": 0}, 1),
        (b"true", {"true": 5}, 5),
        (b"999999", {"999999": None}, None),
        (b"999999.0", {"999999": None}, None),
        (b"12.5", {"999999": None}, 12.5),
        (b'"12.5"', {"on": 1}, 12.5),
        (b'"ON"', {"True": 1, "False": 0}, 1),
        (b'"off"', {"True": 1, "False": 0}, 0),
        (b"false", {"True": 1, "False": 0}, 0),
        (b'"ON"', {"True": 1, "ON": 7}, 7),
    ],
)
def test_map_gives_texts_their_numbers(
    payload: bytes, mapping: dict[str, float | None], value: float | None
) -> None:
    """Also to YAML's booleans; numbers that are not in the map are kept, null means no value."""
    assert read("json", payload, mapping=mapping) == value


def test_text_that_the_map_does_not_have_is_unmapped() -> None:
    """An unknown state is not a number, and has its own reason."""
    path = Path.from_setting("$")

    assert failure("text", b"ajar", path, mapping={"open": 1}) == (
        "unmapped",
        "not in the map: 'ajar'",
    )


def test_scale_and_offset_apply_in_this_order() -> None:
    """Fahrenheit becomes Celsius."""
    assert read("number", b"212", scale=5 / 9, offset=-160 / 9) == pytest.approx(100)


def test_scaled_beyond_floats_is_not_finite() -> None:
    """An overflow of scale is treated like infinity in a payload."""
    assert failure("number", b"1e300", Path.from_setting("$"), scale=1e300)[0] == "not_finite"


def test_message_quotes_the_beginning_of_a_payload() -> None:
    """Its length is limited."""
    _, words = failure("json", json.dumps({"x": "y" * 1000}).encode())

    assert re.fullmatch(r"nothing at value: \{'x': 'y+\.\.\.", words)


def test_number_is_for_numbers() -> None:
    """Integers of any size that a float can represent."""
    assert number(10**300) == 1e300


# Almost JSON


@pytest.mark.parametrize(
    "other",
    [
        b'"\xb0C"',  # Latin-1
        b'"a\x00b\x01"',
        b'"\\x41 \\ud800"',
        b"NaN",
        b"-nan",
        b"inf",
        b"Infinity",
        b"1e999",
        b"9" * 5000,
        b"007",
        b"+5",
        b".5",
        b"ON",
        b"0x1F",
        b"\xff",
        b"",
    ],
)
def test_invalid_byte_or_number_affects_only_its_own_field(other: bytes) -> None:
    """Fields before and after it are read."""
    assert read("json", b'{"value": 1.5, "x": %s}' % other, "value") == 1.5
    assert read("json", b'{"x": %s, "y": ",:]}", "value": 1.5}' % other, "value") == 1.5


@pytest.mark.parametrize(
    ("text", "value"), [(b"007", 7), (b"+5", 5), (b".5", 0.5), (b"null", None), (b"", None)]
)
def test_number_that_is_invalid_in_json_is_read(text: bytes, value: float | None) -> None:
    """Leading zeros or a plus sign are unambiguous."""
    payload = b'{"value": %s, "x": nan}' % text
    if value is None:
        assert failure("json", payload)[0] == "missing"
    else:
        assert read("json", payload, "value") == value


@pytest.mark.parametrize("payload", [b'{"value": 1', b'{"value": 1]', b"{", b"nonsense", b'"a'])
def test_broken_structure_is_not_guessed(payload: bytes) -> None:
    """A truncated message has no values."""
    assert failure("json", payload)[0] == "malformed"


@given(st.binary(max_size=60))
def test_any_payload_is_a_value_or_a_payload_error(payload: bytes) -> None:
    """No other error is raised, even for texts that look like JSON."""
    for raw in (payload, b'{"value": ' + payload + b"}", b'{"value": "' + payload + b'"}'):
        with suppress(PayloadError):
            read("json", raw, "value")


def test_deep_nesting_is_malformed() -> None:
    """Complete or truncated, even in a thread with a small stack."""
    found: list[str] = []

    def try_all() -> None:
        deep = [b"[" * 60_000, b"[" * 30_000 + b"]" * 30_000]
        deep.append(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)
        found.extend(failure("json", b'{"value": 1, "x": ' + one + b"}")[0] for one in deep)

    before = threading.stack_size(512 * 1024)
    thread = threading.Thread(target=try_all)
    thread.start()
    thread.join()
    threading.stack_size(before)

    assert found == ["malformed"] * 3


# Texts with a number in them


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        ("21.5 °C", {"regex": r"-?[\d.]+"}, 21.5),
        ("temp=21.5;hum=40", {"regex": r"hum=(\d+)"}, 40),
        ("2,32", {"decimal": ","}, 2.32),
        ("1.234,5", {"decimal": ","}, 1234.5),
        ("2,32 bar", {"regex": r"[\d,]+", "decimal": ","}, 2.32),
        ("state: open", {"regex": r"state: (\w+)", "mapping": {"open": 1.0}}, 1),
    ],
)
def test_number_is_searched_for_in_a_text(text: str, options: dict[str, Any], value: float) -> None:
    """With a unit, a prefix, or a decimal comma."""
    if "regex" in options:
        options = options | {"regex": re.compile(options["regex"])}

    assert read("text", text.encode(), **options) == value
    assert read("json", json.dumps({"v": text}).encode(), "v", **options) == value


def test_latin_1_degree_is_ignored() -> None:
    """Old devices write °C with one byte."""
    assert read("text", b"21.5 \xb0C", regex=re.compile(r"-?[\d.]+")) == 21.5


def test_text_without_the_number_is_named() -> None:
    """The message has the regular expression."""
    found = failure("text", b"offline", Path.from_setting("$"), regex=re.compile(r"\d+"))

    assert found == ("wrong_type", r"regex \d+ does not match: 'offline'")


def test_negative_counter_is_refused() -> None:
    """Counters never fall below their start."""
    assert failure("json", b'{"value": -1}', total=True)[0] == "negative"
    assert read("json", b'{"value": 0}', "value", total=True) == 0


# Paths to several values


@pytest.mark.parametrize(
    ("raw", "payload", "matches"),
    [
        (
            "{sensor}.tC",
            {"0": {"tC": 25.9}, "1": {"tC": 15.9}, "time": 5, "x": {"y": 1}},
            [(("0",), 25.9), (("1",), 15.9)],
        ),
        ("*.tC", {"0": {"tC": 25.9}, "time": 5}, [((), 25.9)]),
        (
            "temperature:{n}.tC",
            {"temperature:100": {"tC": 1}, "humidity:100": {"tC": 2}},
            [(("100",), 1)],
        ),
        (
            "values[{id=id}].v",
            {"values": [{"id": "a", "v": 7}, {"id": 2, "v": 0}, {"v": 9}, 3]},
            [(("a",), 7), ((2,), 0)],
        ),
        ("[{place}]", [5, None, 6], [((0,), 5), ((2,), 6)]),
        ("[*][-1]", [[1, 2], [3]], [((), 2), ((), 3)]),
        (
            "{room}.sensors[{sensor=id}].v",
            {"hall": {"sensors": [{"id": 1, "v": 2}]}},
            [(("hall", 1), 2)],
        ),
    ],
)
def test_wildcards_lead_to_several_values(raw: str, payload: Any, matches: list[Any]) -> None:
    """Keys and elements become labels; those without the value are skipped."""
    assert Path.from_setting(raw).matches(payload) == matches


def test_wildcard_without_a_match_is_missing() -> None:
    """Like any other path without a value."""
    with pytest.raises(PayloadError) as error:
        Path.from_setting("{sensor}.tC").matches({"time": 5})
    assert error.value.reason == "missing"
