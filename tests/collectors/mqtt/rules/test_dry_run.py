import subprocess
import sys
from pathlib import Path

import pytest

from bts_exporter import commands
from bts_exporter.service import Options

RULES = """\
collectors:
  mqtt:
    - name: a
      rules:
        readings:
          topic: bts/{station}/{parameter}
          event_time: {path: t}
          metrics:
            bts_reading: {path: value, map: {"999999": null}}
            bts_reading_spread: {type: histogram, path: value, labels: [], buckets: [10, 20]}
    - name: b
      rules:
        doors: {topic: "doors/{door}", format: text, metrics: {door_open: {map: {open: 1, closed: 0}}}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return settings of two brokers with rules."""
    path = tmp_path / "config.yaml"
    path.write_text(RULES)
    return path


def run(settings: Path, *arguments: str) -> int:
    """Run `mqtt-test` and return its exit code."""
    found = commands.find_in_types(str(settings), ["mqtt-test"])
    assert found is not None
    return commands.of_type(Options(config_file=str(settings)), found, arguments)


def test_samples_are_shown_as_on_the_page(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the rule's own metrics, and of histograms only the buckets that count the message."""
    code = run(settings, "readings", 'bts/7/1"22', '{"value": 12.5, "t": 4e9}')

    assert (code, capsys.readouterr().out.splitlines()) == (
        0,
        [
            'bts_reading{station="7",parameter="1\\"22"} 12.5',
            'bts_reading_spread_bucket{le="20.0"} 1',
            'bts_reading_spread_bucket{le="+Inf"} 1',
            "bts_reading_spread_sum 12.5",
            "bts_reading_spread_count 1",
            'mqtt_message_clock_skew_total{rule="readings"} 1',
        ],
    )


def test_rule_of_any_broker_is_found(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In any block of the settings."""
    assert run(settings, "doors", "doors/front", "closed") == 0
    assert capsys.readouterr().out == 'door_open{door="front"} 0\n'


def test_missing_value_is_reported_after_the_samples(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its reason, and the actual value."""
    assert run(settings, "readings", "bts/7/122", '{"value": 1}') == 0
    assert capsys.readouterr().out.splitlines()[-1] == "# missing: nothing at t: {'value': 1}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("reading", "x", "1"),
            "unknown rule 'reading', known rules: doors, readings (all for",
        ),
        (
            ("doors", "windows/1", "open"),
            "topic 'windows/1' does not match doors/{door}: level 1 is 'windows', but 'doors' in",
        ),
        (("doors", "doors/1", "ajar"), "unmapped: not in the map: 'ajar'"),
        (("doors", "doors/1", "\udcff"), "unmapped: not in the map: '\ufffd'"),
        (("readings", "bts/7/122", "{"), "malformed: invalid JSON"),
    ],
)
def test_message_without_samples_is_an_error(
    settings: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """The cause is on standard error, and the exit code is 1."""
    code = run(settings, *arguments)
    out, err = capsys.readouterr()

    assert (code, out) == (1, "")
    assert err.startswith(f"bts-exporter: mqtt-test: {words}")


def test_map_to_null_is_not_an_error(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sensor may report that it has no value."""
    settings.write_text(
        "collectors: {mqtt: {rules: {r: {topic: x, metrics: {m: {path: $, map: {'9': null}}}}}}}"
    )

    assert run(settings, "r", "x", "9") == 1
    assert "the map has no number for this value" in capsys.readouterr().err


def test_rules_of_all_targets_are_tried(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Matching rules show their samples, the others why they do not match."""
    code = run(settings, "all", "doors/front", "closed")

    assert (code, capsys.readouterr().out.splitlines()) == (
        0,
        [
            (
                "# mqtt://127.0.0.1:1883 readings: does not match the topic:"
                " level 1 is 'doors', but 'bts' in bts/{station}/{parameter}"
            ),
            "# mqtt://127.0.0.1:1883 doors:",
            'door_open{door="front"} 0',
        ],
    )


def test_topic_that_no_rule_matches_is_an_error(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1, after all causes."""
    code = run(settings, "all", "x/y", "1")
    out, err = capsys.readouterr()

    assert (code, len(out.splitlines())) == (1, 2)
    assert "no rule matches the topic" in err


def test_topic_of_another_rule_is_named(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the rules that match the topic."""
    assert run(settings, "readings", "doors/front", "closed") == 1
    assert "rules that match it: mqtt://127.0.0.1:1883 doors" in capsys.readouterr().err


def test_unmet_condition_is_reported(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the actual value."""
    settings.write_text(
        "collectors: {mqtt: {rules: {r: {topic: x, where: {kind: [a, b]}, metrics: {m: {path: v}}}}}}"
    )

    assert run(settings, "r", "x", '{"kind": "c", "v": 1}') == 1
    words = "excluded by where: kind is 'c', but must be 'a' or 'b'"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, (1 << 20) + 1])
def test_empty_or_too_large_payload_has_no_samples(
    settings: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    """The cause is reported."""
    assert run(settings, "readings", "bts/7/122", "x" * size) == 1
    words = "larger than 1 MiB" if size else "removes the topic's series"
    assert words in capsys.readouterr().err


def test_payload_is_read_from_standard_input(settings: Path) -> None:
    """In a real process: any bytes, with the line end that shells append."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bts_exporter",
            f"--config.file={settings}",
            "mqtt-test",
            "readings",
            "bts/7/122",
            "-",
        ],
        input=b'\xef\xbb\xbf{"value": 12.5, "t": 1700000000, "x": "\xb0"}\n',
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert b'bts_reading{station="7",parameter="122"} 12.5\n' in done.stdout
