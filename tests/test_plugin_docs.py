"""README.md and docs/writing-a-collector.md: every command and every Python block of theirs works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bts_exporter.testing import HttpServer, collect, reply, restart
from servers import Process, free_port, listens
from stubs import environment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "writing-a-collector.md").read_text()


def blocks(text: str) -> dict[str, str]:
    """Return the Python block of each section; AssertionError if a section has two."""
    found: dict[str, str] = {}
    for section in re.split(r"^(?=##? )", text, flags=re.MULTILINE):
        for code in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            title = section.partition("\n")[0].lstrip("# ")
            assert title not in found
            found[title] = code
    return found


BLOCKS = blocks(PAGE)
TEN_MINUTES = PAGE.partition("## Ten minutes")[2].partition("\n## ")[0]
#: Plug-ins of ours that authors do not need, and that take seconds to import.
WITHOUT_OTHERS = ["-p", "no:hypothesispytest"]
#: The most lines that the first collector of the page may have.
SHORTEST = 15


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return a spool directory with one file of three bytes."""
    folder = tmp_path / "bts"
    folder.mkdir()
    (folder / "x.job").write_text("job")
    return folder


def run(folder: Path, source: str, settings: str, *arguments: str) -> str:
    """Return what a command prints with `source` as the plug-in spool.py, and its `settings`."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "spool.py").write_text(source)
    config = folder / "config.yaml"
    config.write_text(f"plugins: plugins\ncollectors: {{spool: {settings}}}\n")
    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={config}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_block_is_run_below() -> None:
    """A block that is added to the page needs a test here."""
    assert set(BLOCKS) == {
        "Commands",
        "HTTP APIs",
        "Histograms",
        "Queue depth and lag",
        "Keep history across restarts",
        "Testing",
        "Collectors written for prometheus_client",
        "In your own Python service",
    }


def test_first_collector_is_short() -> None:
    """The shortest collector that works has a few lines."""
    [source] = re.findall(
        r"^cat > spool.py <<'END'\n(.*?)^END$", TEN_MINUTES, re.DOTALL | re.MULTILINE
    )

    assert len(source.splitlines()) <= SHORTEST


def test_ten_minutes_work(tmp_path: Path) -> None:
    """A reader who enters the commands of the first section sees the lines that it shows."""
    steps = re.findall(
        r"^```sh\n(.*?)^```$(?:\s+^```text\n(.*?)^```$)?", TEN_MINUTES, re.DOTALL | re.MULTILINE
    )
    home, programs = tmp_path / "home", Path(sys.executable).parent
    home.mkdir()
    path = f"{programs}:/usr/bin:/bin"

    for commands, shown in steps:
        script = f"set -e\n[ ! -d ~/collector ] || cd ~/collector\n{commands}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=home,
            env=environment(HOME=str(home), PATH=path, PYTEST_ADDOPTS=" ".join(WITHOUT_OTHERS)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        for line in shown.splitlines():
            assert line in done.stdout, f"{commands}{done.stdout}"
    assert len(steps) == 6


@pytest.mark.parametrize(
    "source",
    [blocks(README)["Write a collector"], BLOCKS["Commands"]],
    ids=["README", "commands"],
)
def test_collector_of_the_page_serves_its_metric(source: str, tmp_path: Path, spool: Path) -> None:
    """Saved as spool.py, it is a collector type, with the settings that the text gives."""
    page = run(tmp_path, source, f"{{path: {spool}}}", "once")

    assert f'spool_files{{path="{spool}"}} 1\n' in page


def test_command_of_the_page_prints_its_lines(tmp_path: Path) -> None:
    """The command has the name that the text gives, and prints a line for each block."""
    settings = '[{name: a, path: /, pattern: "*.job"}, {name: b, path: /, pattern: "*.txt"}]'
    printed = run(tmp_path, BLOCKS["Commands"], settings, "spool-match", "/var/spool/x.job")

    assert printed == "*.job: yes\n*.txt: no\n"


def test_broker_of_the_page_has_lag_metrics(tmp_path: Path) -> None:
    """A collector for another broker serves the metrics of queue depth and lag."""
    page = run(tmp_path, BLOCKS["Queue depth and lag"], "{}", "once")

    labels = '{system="nats",destination="orders",group="billing"}'
    assert f"messaging_backlog_messages{labels} 12\n" in page
    assert f"messaging_lag_seconds{labels} 3.5\n" in page


def test_http_collector_of_the_page_reads_its_target(
    tmp_path: Path, bts_http_server: HttpServer
) -> None:
    """A collector with the HTTP client of the page serves what its target answers."""
    bts_http_server.routes["/jsz"] = reply({})

    page = run(tmp_path, BLOCKS["HTTP APIs"], f"{{url: '{bts_http_server.url}'}}", "once")

    assert "nats_up 1\n" in page


def test_history_of_the_page_survives_a_restart() -> None:
    """The collector counts on from its state, on the clock of the new process, downtime included."""
    made: dict[str, Any] = {}
    exec(BLOCKS["Keep history across restarts"], made)
    before, after = (made["Stalled"](made["Stalled"].Config()) for _ in range(2))
    collect(before)

    restart(before, after, downtime=600)

    assert 600 <= collect(after)["stalled_seconds"][()] < 700


def test_histogram_of_the_page_is_served(tmp_path: Path) -> None:
    """Values counted between two scrapes are a histogram."""
    page = run(tmp_path, BLOCKS["Histograms"], "{}", "once")

    assert 'probe_round_trip_seconds_bucket{target="north",le="0.1"} 1\n' in page


def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    """The file of the page passes, after the command of the page has written its golden page."""
    assert "Run `pytest --bts-update-golden` once" in PAGE
    (tmp_path / "test_jobs.py").write_text(BLOCKS["Testing"])
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WITHOUT_OTHERS]
    for flags in (["--bts-update-golden"], ["-Werror"]):
        done = subprocess.run(
            [*argv, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout


def test_prometheus_client_collector_of_the_page_is_a_plugin(tmp_path: Path, spool: Path) -> None:
    """A collector written for prometheus_client is a type, and its arguments are settings."""
    source = BLOCKS["Collectors written for prometheus_client"]
    page = run(tmp_path, source, f"{{path: {spool}}}", "once")

    assert "spool_size_bytes 3.0\n" in page or "spool_size_bytes 3\n" in page


def test_service_of_the_page_serves_our_metrics(tmp_path: Path) -> None:
    """A program with the lines of the page serves the configured collectors on its own port."""
    config, port = tmp_path / "config.yaml", free_port()
    config.write_text("collectors: {host: }\n")
    source = BLOCKS["In your own Python service"]
    for text, ours in (("/etc/bts-exporter/config.yaml", str(config)), ("(8000)", f"({port})")):
        assert source.count(text) == 1
        source = source.replace(text, ours)
    program = tmp_path / "service.py"
    program.write_text(f"{source}\nimport threading\n\nthreading.Event().wait()\n")

    process = Process([sys.executable, str(program)], tmp_path)
    try:
        process.ready(lambda: listens(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            page = answer.read().decode()
    finally:
        process.kill()

    assert "\nnode_load1 " in page
    assert 'bts_exporter_collector_success{collector="loadavg",target=""} 1.0\n' in page
