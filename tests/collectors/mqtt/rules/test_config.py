from collections.abc import Callable
from pathlib import Path

import pytest

from bts_collectors.mqtt import COLLECTOR
from bts_collectors.mqtt.rules.config import Rule
from bts_exporter.errors import ConfigError
from bts_exporter.settings.loader import load

#: Returns the rules that settings spell, or the problems with them.
Read = Callable[[str], dict[str, Rule]]


class _Types:
    """The one type that is there."""

    def __init__(self, _folder: Path) -> None:
        """Know it."""

    def names(self) -> list[str]:
        """Return its name."""
        return ["mqtt"]

    def load(self, _name: str) -> type[COLLECTOR]:  # type: ignore[valid-type]
        """Return it."""
        return COLLECTOR


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that parses rules from YAML."""

    def read_rules(text: str) -> dict[str, Rule]:
        path = tmp_path / "config.yaml"
        lines = "".join(f"      {line}\n" for line in text.strip("\n").splitlines())
        path.write_text(f"collectors:\n  mqtt:\n    rules:\n{lines}")
        rules: dict[str, Rule] = load(path, _Types).blocks[0].config.rules
        return rules

    return read_rules


def problems(read: Read, text: str) -> list[str]:
    """Return the problems of rules, without the file name."""
    with pytest.raises(ConfigError) as error:
        read(text)
    return [str(problem).partition(": ")[2] for problem in error.value.problems]


def test_rule_is_read_with_its_defaults(read: Read) -> None:
    """A topic and metrics with paths are sufficient."""
    rules = read("""
readings:
  topic: bts/{station}/{parameter}
  metrics:
    bts_reading: {path: value}
    bts_readings_total: {type: counter, labels: [parameter]}
""")
    rule = rules["readings"]
    reading, total = rule.metric("bts_reading"), rule.metric("bts_readings_total")

    assert (rule.format, rule.expire, rule.max_series) == ("json", 3600, 10_000)
    assert (reading.kind, reading.labels) == ("gauge", ("station", "parameter"))
    assert (total.kind, total.labels) == ("counter", ("parameter",))
    assert reading.help == "From messages of bts/{station}/{parameter}."
    assert rule.metric("bts_reading") is reading


def test_columns_have_names(read: Read) -> None:
    """A CSV column has a name and a number."""
    rule = read("""
alarms:
  topic: alarm/{station}
  format: csv
  columns: [index, event_time, value]
  event_time: {path: event_time}
  metrics: {bts_alarm_value: {path: value}, bts_alarm_index: {path: 0}}
""")["alarms"]

    assert rule.resolve(rule.metrics["bts_alarm_value"].path).steps == (2,)
    assert rule.resolve(rule.metrics["bts_alarm_index"].path).steps == (0,)


def test_all_mistakes_are_reported_at_once(read: Read) -> None:
    """Each with its location and the expected form."""
    assert problems(
        read,
        """
a:
  topc: bts/x
  topic: bts/{x
  format: jsn
  metrics:
    m: {typ: gauge, path: "a[", scale: big}
b:
  topic: bts/{x}
  metrics:
    m: {type: gage, path: value}
    n: {path: value, labels: [y]}
    o: {}
""",
    ) == [
        "collectors.mqtt.rules.a.topc: unknown key 'topc'; did you mean topic?",
        "collectors.mqtt.rules.a.topic: '{x': a wildcard must be a whole level between slashes: {name}, + or #",
        "collectors.mqtt.rules.a.format: expected one of json, csv, number, text, got 'jsn'; did you mean json?",
        "collectors.mqtt.rules.a.metrics.m.typ: unknown key 'typ'; did you mean type?",
        "collectors.mqtt.rules.a.metrics.m.path: 'a[' is not a valid path from '[' on; examples: a.b, list[0].b, list[-1], [\"a.b\"].c, {sensor}.tC, list[{sensor=id}].value, list[id=7].value",
        "collectors.mqtt.rules.a.metrics.m.scale: expected float, got str; write a number, without quotes or a unit",
        "collectors.mqtt.rules.b.metrics.m.type: expected one of gauge, counter, histogram, info, got 'gage'; did you mean gauge?",
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("topic: x, metrics: {m: {}}", "metrics.m: path is missing: the path of the value"),
        ("topic: x, metrics: {m: {type: histogram}}", "metrics.m: path is missing"),
        ("topic: x, metrics: {0m: {path: a}}", "metrics.0m: '0m' is not a metric name"),
        ("topic: 'x/{le}', metrics: {m: {type: histogram, path: a}}", "'le' cannot be the name"),
        (
            "topic: 'x/{a}', metrics: {m: {path: a, labels: [b]}}",
            "labels: b not found among the rule's labels: a",
        ),
        (
            "topic: x, metrics: {m: {type: histogram, path: a, buckets: [2, 1]}}",
            "metrics.m: buckets: expected",
        ),
        (
            "topic: x, metrics: {m: {type: histogram, path: a, buckets: []}}",
            "metrics.m: buckets: expected",
        ),
        (
            "topic: x, format: number, metrics: {m: {path: a}}",
            "metrics.m: path: a payload of format number has a single value",
        ),
        ("topic: x, format: csv, metrics: {m: {path: a}}", "one of columns (none), got a"),
        (
            "topic: x, format: csv, metrics: {m: {path: $}}",
            "metrics.m: path: expected a column number",
        ),
        (
            "topic: x, format: csv, event_time: {path: a.b}",
            "event_time.path: expected a column number",
        ),
        ("topic: x, columns: [a]", "columns: only valid with format: csv"),
        (
            "topic: x, separator: ';;'",
            "separator: ';;' is not a valid separator (expected one character)",
        ),
        ("topic: x, max_series: 0", "max_series: must be at least 1, got 0"),
        (
            "topic: x, event_time: {path: a, tz: Mars}",
            "event_time: tz: 'Mars' is not a known time zone",
        ),
    ],
)
def test_rule_that_cannot_work_is_refused(read: Read, rule: str, expected: str) -> None:
    """Combinations of settings are checked, too."""
    (problem,) = problems(read, f"r: {{{rule}}}")

    assert problem.startswith("collectors.mqtt.rules.r")
    assert expected in problem


@pytest.mark.parametrize("other", ["type: counter, path: a", "path: a, labels: []"])
def test_metric_of_two_rules_is_the_same_in_both(read: Read, other: str) -> None:
    """Two rules may share a metric only with the same type and labels."""
    shared = read(
        "a: {topic: 'x/{l}', metrics: {m: {path: a}}}\nb: {topic: 'y/{l}', metrics: {m: {path: b}}}"
    )
    text = f"a: {{topic: 'x/{{l}}', metrics: {{m: {{path: a}}}}}}\nb: {{topic: 'y/{{l}}', metrics: {{m: {{{other}}}}}}}"

    assert set(shared) == {"a", "b"}
    assert problems(read, text) == [
        "collectors.mqtt: rules.b.metrics.m: type, labels or buckets differ from rule a"
    ]
