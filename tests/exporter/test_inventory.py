"""`collectors -v` and `metrics GLOB`: what is installed, and every setting with its source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bts_exporter import commands
from bts_exporter.service import Options
from stubs import drop_in

SETTINGS = """\
plugins: plugins
collectors:
  redis:
    - name: a
      url: !env RURL
      password: !env RPW
      streams: ["bts:*", !env STREAM]
      queues: {rq: true}
      tls:
        server_name: cache
    - &b
      name: b
      labels: {site: x}
  relay:
    url: http://me:hunter2@127.0.0.1:9
    headers: {X-Token: hunter2}
  versioned:
"""
HEAD = "| name | type | labels | help | collector |\n|---|---|---|---|---|\n"
MEMORY = """\
node_memory_{field}_bytes  gauge  Field {field} of /proc/meminfo, in bytes.
node_memory_{field}  gauge  Field {field} of /proc/meminfo.
"""
VERSIONED = """\
from bts_exporter import Collector, gauge

__version__ = "2.5"

class Versioned(Collector):
    \"\"\"Has a version.\"\"\"
    value = gauge("versioned_value", "A | value.", ("kind",))
    def collect(self, scrape):
        scrape.emit(self.value, 1, "x")
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return the command line for settings with two Redis servers, a relay and a plug-in."""
    for name, value in (("RURL", "rediss://u@h:1"), ("RPW", "hunter2"), ("STREAM", "hunter2")):
        monkeypatch.setenv(name, value)
    drop_in(tmp_path / "plugins", "versioned", VERSIONED)
    (tmp_path / "config.yaml").write_text(SETTINGS)
    return Options(config_file=str(tmp_path / "config.yaml"))


def test_settings_with_their_sources(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """Each setting has its value and the line that it is from; secrets are not shown."""
    assert commands.collectors(options, verbose=True) == 0

    printed = capsys.readouterr().out
    file = options.config_file
    for line in (
        f"collectors.redis[0] ({file}:4)",
        f"  name: a  ({file}:4)",
        f"  url: rediss://h:1  ({file}:5)",
        f"  password: <secret>  ({file}:6)",
        f'  streams: ["bts:*", <hidden>]  ({file}:7)',
        f"  queues.rq: true  ({file}:8)",
        "  queues.huey: false  (default)",
        f"  tls.server_name: cache  ({file}:10)",
        "  tls.ca_file: null  (default)",
        "  stream_stale_after: 300s  (default)",
        "  max_series: 1000000  (default)",
        f"collectors.redis[1] ({file}:11)",
        f"  labels: {{site: x}}  ({file}:13)",
        f"  url: http://127.0.0.1:9 with a password  ({file}:15)",
        f"  headers: {{X-Token: <secret>}}  ({file}:16)",
    ):
        assert f"{'':17}{line}\n" in printed
    assert "hunter2" not in printed


def test_origin_and_version(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """Each type has its version, the version of the API, and its file; one in no settings says so."""
    commands.collectors(options, verbose=True)

    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("versioned "))
    assert lines[at].endswith("plugins/versioned.py Has a version.")
    assert lines[at + 1].strip().startswith("version 2.5, API version ")
    host = next(i for i, line in enumerate(lines) if line.startswith("host "))
    assert "version 0.1.0, API version " in lines[host + 1]
    assert lines[host + 1].endswith("bts_collectors/host/__init__.py")
    assert lines[host + 2].strip() == "not configured"


def test_settings_that_are_wrong(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """The types are listed, and the errors of the settings are printed."""
    assert options.config_file is not None
    Path(options.config_file).write_text(f"{SETTINGS}  pulsar:\n")

    assert commands.collectors(options, verbose=True) == 0

    printed = capsys.readouterr()
    assert "unknown collector type 'pulsar'" in printed.err
    assert "the settings are wrong" in printed.out


@pytest.mark.parametrize(
    ("glob", "form", "expected"),
    [
        (
            "node_memory_MemF*",
            "table",
            MEMORY,
        ),
        ("node_memory_[LM]emF*", "table", MEMORY),
        ("versioned_*", "table", "versioned_value{kind}  gauge  A | value.\n"),
        (
            "versioned_value",
            "markdown",
            f"{HEAD}| `versioned_value` | gauge | kind | A \\| value. | versioned |\n",
        ),
    ],
)
def test_metrics_that_match(
    glob: str, form: str, expected: str, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only metrics whose name matches the glob are printed."""
    assert commands.metrics(options, form, glob) == 0
    assert capsys.readouterr().out == expected


def test_metrics_that_match_as_json(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is a list with the same fields; without a match it is empty, and the command fails."""
    assert commands.metrics(options, "json", "m*_up") == 0
    names = {metric["name"] for metric in json.loads(capsys.readouterr().out)}
    assert {"ml_service_up", "mqtt_up"} <= names
    assert all(name.endswith("_up") for name in names)

    assert commands.metrics(options, "json", "nothing_*") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert "no metric matches nothing_*" in printed.err
