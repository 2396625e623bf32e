"""What `check` reports in addition to errors: matches, settings without effect, unusable files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter import commands
from bts_exporter.errors import ConfigError
from bts_exporter.service import Options, Service
from stubs import drop_in

FAILS = """\
from bts_exporter import Collector, counter

class Fails(Collector):
    asked = counter("fails_asked_total", "How often it was asked.")
    def collect(self, scrape):
        raise ValueError
"""
ABSENT = """\
from bts_exporter import Collector, NotPresent

class Absent(Collector):
    def collect(self, scrape):
        raise NotPresent("no /proc/absent")
"""
MATCHES = """\
from bts_exporter import Collector, CollectorConfig, Match, gauge

class Matches(Collector):
    class Config(CollectorConfig):
        fails: bool = False
    value = gauge("matches_value", "A value.", labels=("key",))
    def collect(self, scrape):
        for key in ("a", "b"):
            scrape.emit(self.value, 1, key)
    def matches(self, samples):
        if self.config.fails:
            raise ValueError("no idea")
        yield Match("things", "x*", len(samples[self.value]))
        yield Match("topics", "y/#", 0, "messages", complete=False)
"""

LABELS = """\
from bts_exporter import Collector, gauge

class Labels(Collector):
    value = gauge("labels_value", "A value.", labels=("key",))
    def collect(self, scrape):
        scrape.emit(self.value, 1, 5)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of settings next to a folder with plug-ins."""
    for name, source in (("fails", FAILS), ("absent", ABSENT)):
        drop_in(tmp_path / "plugins", name, source)
    return tmp_path / "config.yaml"


def configure(path: Path, collectors: str) -> None:
    """Write settings."""
    path.write_text(f"plugins: plugins\ncollectors: {{{collectors}}}\n")


def options(config: Path) -> Options:
    """Return the options of the command line."""
    return Options(config_file=str(config))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "things: 2 names match x*; topics: 0 messages match y/# so far"),
        ("fails: true", "matches: ValueError: no idea (matches.py:12)"),
    ],
)
def test_check_says_what_patterns_matched(
    settings: str, said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collector reports its patterns from the samples; a defect in that is reported and costs nothing else."""
    drop_in(config.parent / "plugins", "matches", MATCHES)
    configure(config, f"matches: {{{settings}}}")

    assert commands.check(options(config), connect=True) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"matches: ok; 2 series; {said}"]


def test_check_reports_samples_that_cannot_be_served(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that is not a text is a failure of a scrape, so it is one of `check --connect`."""
    drop_in(config.parent / "plugins", "labels", LABELS)
    configure(config, "labels: {}")

    assert commands.check(options(config), connect=True) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "labels: FAILS (invalid_sample): labels_value: the value of label key is of type int (expected str)"
    ]


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ("metrics: {allow: ['fails_*'], deny: [fails_asked_total]}", []),
        ("metrics: {allow: ['fails_?sked_*', 'stub_*']}", ["allow: 'stub_*' lets nothing through"]),
        ("metrics: {deny: [asked]}", ["deny: 'asked' removes nothing"]),
        ("timeout: 9.5s", []),
        ("timeout: 10s", ["no effect: a collection ends after 9.5 s already (scrape_timeout)"]),
        ("timeout: 10s, interval: 10s", []),
        (
            "timeout: 10s, interval: 5s",
            ["no effect: a collection ends after 5 s already (interval)"],
        ),
    ],
)
def test_check_warns_of_what_has_no_effect(
    settings: str, warnings: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metric filters that match nothing and timeouts that are never reached give a warning."""
    configure(config, f"fails: {{{settings}}}")

    assert commands.check(options(config), connect=False) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(warnings)
    for line, warning in zip(said, warnings, strict=True):
        assert line.startswith(f"{config}:2: collectors.fails.")
        assert f": warning: {warning}" in line


@pytest.mark.parametrize(
    ("deny", "warning"),
    [
        ("redis_*", "deny: 'redis_*' removes redis_up, redis_cluster_node_up"),
        ("redis_?p", "deny: 'redis_?p' removes redis_up, which alerts need"),
        ("redis_up", ""),
        ("redis_memory_*", ""),
    ],
)
def test_availability_that_is_denied_by_the_way(
    deny: str, warning: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern that removes an `*_up` metric without naming it gives a warning, since alerts would be silent."""
    configure(config, f"redis: {{url: 'redis://x', metrics: {{deny: ['{deny}']}}}}")

    assert commands.check(options(config), connect=False) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"{config}:2: collectors.redis.metrics: warning: " if warning else "")
    assert warning in said
    assert bool(said) == bool(warning)


def test_folder_of_plugins_that_is_not_there(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A named folder that is missing gives a warning; the default folder may be missing."""
    for folder, warned in (("/etc/bts-exporter/plugins", False), ("nowhere", True)):
        config.write_text(f"plugins: {folder}\ncollectors: {{host: }}\n")

        assert commands.check(options(config), connect=False) == 0
        said = f"{config}:1: plugins: warning: no effect: {config.parent}/nowhere does not exist\n"
        assert capsys.readouterr().err == (said if warned else "")


@pytest.mark.parametrize(
    ("mode", "warning"),
    [
        (None, "nothing is saved: {}: No such file or directory: create the folder"),
        (0o100600, "nothing is saved: {} is not a folder"),
        (0o700, ""),
        (0o770, ""),
        (0o777, "{} is writable by all users (mode 0777): use one with mode 0700"),
    ],
)
def test_folder_of_states(
    mode: int | None, warning: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder for states that is missing, a file, or writable by everybody gives a warning."""
    folder = config.parent / "states"
    if mode == 0o100600:
        folder.touch()
    elif mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    config.write_text("state: states\ncollectors: {host: }\n")

    assert commands.check(options(config), connect=False) == 0
    said = capsys.readouterr().err
    expected = f"{config}:1: state: warning: " + warning.replace("{}", str(folder))
    assert said.startswith(expected) if warning else said == ""


def test_folder_of_states_before_the_service_starts(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that systemd creates at the start of the service may be missing before that."""
    folder = config.parent / "states"
    monkeypatch.setattr("bts_exporter.collection.state_store._FOLDER_OF_THE_UNIT", folder)
    config.write_text("state: states\ncollectors: {host: }\n")

    assert commands.check(options(config), connect=False) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["node_memory_*_bytes", "node_mem*Free*", "node_memory_[A-Z]*"])
def test_filter_of_names_that_only_the_source_knows(
    name: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern that a template can match is accepted; one that it cannot match gives a warning."""
    configure(config, f"host: {{metrics: {{deny: ['{name}', 'node_mammoth_*_bytes']}}}}")

    commands.check(options(config), connect=False)

    [line] = capsys.readouterr().err.splitlines()
    assert "deny: 'node_mammoth_*_bytes' removes nothing" in line


def test_filter_of_a_type_that_declares_nothing(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics of a prometheus_client collector or of textfile are not known in advance."""
    source = "class Foreign:\n    def collect(self):\n        return []\n"
    drop_in(config.parent / "plugins", "foreign", source)
    configure(
        config,
        "foreign: {metrics: {allow: ['x*']}},"
        " host: {textfile: {directories: [/nowhere]}, metrics: {allow: [x]}}",
    )

    assert commands.check(options(config), connect=False) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ("{}", ""),
        ("{insecure_skip_verify: true}", ""),
        ("{ca_file: missing.pem}", "ca_file {folder}/missing.pem cannot be used: No such file"),
        ("{ca_file: /missing.pem}", "ca_file /missing.pem cannot be used: No such file"),
        ("{ca_file: config.yaml}", "is it PEM"),
        ("{cert_file: config.yaml, key_file: config.yaml}", "is it PEM"),
        ("{ca_file: plugins}", "ca_file {folder}/plugins cannot be used: Is a directory"),
    ],
)
@pytest.mark.parametrize(
    "block",
    [
        "redis: {{url: 'rediss://x', tls: {}}}",
        "rabbitmq: {{url: 'https://x', tls: {}}}",
        "mqtt: {{url: 'mqtts://x', tls: {}}}",
    ],
)
def test_check_reads_certificates_and_keys(
    block: str, tls: str, problem: str, config: Path
) -> None:
    """Files of TLS that are missing or not PEM are errors, relative ones below the settings' folder."""
    configure(config, block.format(tls))

    if not problem:
        assert commands.check(options(config), connect=False) == 0
        return
    with pytest.raises(ConfigError) as caught:
        commands.check(options(config), connect=False)
    assert f"{config}:2: collectors." in str(caught.value)
    assert problem.format(folder=config.parent) in str(caught.value)


def test_service_starts_without_its_certificates(config: Path) -> None:
    """A missing certificate of one target does not keep the service from starting."""
    configure(config, "redis: {url: 'rediss://127.0.0.1:1', tls: {ca_file: missing.pem}}, absent: ")

    assert commands.once(options(config), collect=["absent"], exclude=[]) == 0


def test_service_logs_what_has_no_effect(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The service logs the warnings of `check` at start and at each reload."""
    configure(config, "absent: ")
    service = Service(options(config))
    service.start_collectors()
    configure(config, "absent: , fails: {metrics: {deny: [asked]}}")
    service.reload()
    service.stop_collectors()

    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"settings: {config}:2: collectors.fails.metrics: deny: 'asked' ")
