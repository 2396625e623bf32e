from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_exporter import commands
from bts_exporter.errors import ConfigError, SelectionError
from bts_exporter.self_metrics import DECLARED
from bts_exporter.service import Options
from stubs import SPOOLDIR, drop_in

#: A plug-in that records the call of `stop`.
STOPS = """\
from pathlib import Path
from bts_exporter import Collector, CollectorConfig

class Stops(Collector):
    class Config(CollectorConfig):
        path: str
    def stop(self):
        Path(self.config.path).touch()
    def collect(self, scrape):
        pass
"""
FAILS = '''\
from bts_exporter import Collector, TargetError, counter

class Fails(Collector):
    """A target that refuses us."""
    asked = counter("fails_asked_total", "How often | it was asked.", labels=("a", "b"))
    def collect(self, scrape):
        scrape.emit(self.asked, 1, "x", "y")
        raise TargetError("auth", "stub://cache refuses the password: see password in the settings")
'''
SPEAKS = '''\
from bts_exporter import Collector, CollectorConfig, Command, gauge

def greet(blocks, word, times):
    """Yield greetings."""
    if not times.isdecimal():
        raise ValueError(f"times: {times!r} is no number")
    for block in blocks:
        yield " ".join([word, block.whom] * int(times))

class Speaks(Collector):
    """What speaks."""
    class Config(CollectorConfig):
        whom: str
    commands = {"greet": Command("say it", {"WORD": "what", "TIMES": "how often"}, greet)}
    @classmethod
    def declared_by(cls, config):
        """Yield a metric that the settings name."""
        yield gauge(f"speaks_{config.whom}", "Named by the settings.")
    def collect(self, scrape):
        pass
'''
ABSENT = '''\
from bts_exporter import Collector, NotPresent

class Absent(Collector):
    """
    What is not here.

    Nor there.
    """
    def collect(self, scrape):
        raise NotPresent("no /proc/absent")
'''


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of settings with one collector, next to a folder with several plug-ins."""
    for name, source in (("spool", SPOOLDIR), ("fails", FAILS), ("absent", ABSENT)):
        drop_in(tmp_path / "plugins", name, source)
    path = tmp_path / "config.yaml"
    configure(path, f"spool: {{path: {tmp_path}, pattern: '*.yaml'}}")
    return path


def configure(path: Path, collectors: str) -> None:
    """Write settings."""
    path.write_text(f"plugins: plugins\ncollectors: {{{collectors}}}\n")


def options(config: Path) -> Options:
    """Return the options of the command line."""
    return Options(config_file=str(config))


# check


def test_check_of_settings_that_are_fine(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` prints one line and collects nothing."""
    configure(config, "fails: , absent: ")

    assert commands.check(options(config), connect=False) == 0
    assert capsys.readouterr().out == f"{config}: settings are fine; targets: fails, absent\n"


@pytest.mark.parametrize("collectors", ["spool: ", "broken: ", "fails: {labels: {a: x}}"])
def test_check_of_settings_that_are_not(config: Path, collectors: str) -> None:
    """Invalid settings, broken plug-ins and collectors that cannot be built are errors."""
    drop_in(config.parent / "plugins", "broken", "1/0\n")
    configure(config, collectors)

    with pytest.raises(ConfigError, match=r"config\.yaml:2: collectors\.\w+: "):
        commands.check(options(config), connect=False)


def test_check_of_the_targets(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check --connect` reports for each collector whether it can collect, and fails if one cannot."""
    configure(config, f"spool: {{path: {config.parent}}}, fails: {{name: cache}}, absent: ")

    assert commands.check(options(config), connect=True) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "fails[cache]: FAILS (auth): stub://cache refuses the password: see password in the settings",
        "absent: nothing to read: no /proc/absent",
        "spool: ok; 1 series",
    ]


def test_check_of_targets_that_are_fine(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An absent source is not an error."""
    configure(config, f"spool: {{path: {config.parent}}}, absent: ")

    assert commands.check(options(config), connect=True) == 0
    assert "FAILS" not in capsys.readouterr().out


# once


def once(
    config: Path, capfd: pytest.CaptureFixture[str], **selection: list[str]
) -> tuple[int, str]:
    """Return exit code and output."""
    code = commands.once(options(config), **({"collect": [], "exclude": []} | selection))
    return code, capfd.readouterr().out


def test_once(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The page of one scrape goes to standard output."""
    code, out = once(config, capfd)

    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(out)
        for sample in family.samples
    }
    assert code == 0
    assert found["spool_files", str(config.parent)] == 1
    assert found["bts_exporter_collector_success", "spool", ""] == 1


def test_once_with_a_collector_that_fails(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Available samples are printed, and the exit code is 1 if a collector failed."""
    configure(config, "fails: , absent: ")

    code, out = once(config, capfd)

    assert code == 1
    assert 'fails_asked_total{a="x",b="y"} 1\n' in out


@pytest.mark.parametrize("selection", [{"collect": ["absent"]}, {"exclude": ["fails"]}])
def test_once_of_a_part(
    config: Path, capfd: pytest.CaptureFixture[str], selection: dict[str, list[str]]
) -> None:
    """Collectors are selected as over HTTP, and only selected ones affect the exit code."""
    configure(config, "fails: , absent: ")

    code, out = once(config, capfd, **selection)

    assert code == 0
    assert "fails" not in out


def test_once_of_what_is_not_there(config: Path) -> None:
    """An invalid name is an error, and the collectors are stopped."""
    with pytest.raises(SelectionError, match="no such collector: zfs; there are: spool"):
        commands.once(options(config), collect=["zfs"], exclude=[])


@pytest.mark.parametrize("command", ["check", "once", "wrong"])
def test_collectors_are_stopped(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """A command stops the collectors that it started, even after an error."""
    mark = tmp_path / "stopped"
    drop_in(config.parent / "plugins", "stops", STOPS)
    configure(config, f"stops: {{path: {mark}}}")

    if command == "check":
        commands.check(options(config), connect=True)
    elif command == "once":
        once(config, capfd)
    else:
        with pytest.raises(SelectionError):
            once(config, capfd, collect=["nothing"])

    assert mark.exists()


# collectors


def test_list_of_types(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each type is listed with origin and description, configured or not."""
    assert commands.collectors(options(config)) == 0

    lines = {
        line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()
    }
    folder = config.parent / "plugins"
    assert lines["spool"] == [str(folder / "spool.py"), "Files waiting in a spool directory."]
    assert lines["fails"] == [str(folder / "fails.py"), "A target that refuses us."]
    assert lines["absent"] == [str(folder / "absent.py"), "What is not here."]


def test_list_with_a_type_that_is_broken(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other types are listed, and the exit code is 1 if one is broken."""
    path = drop_in(config.parent / "plugins", "broken", "1/0\n")

    assert commands.collectors(options(config)) == 1
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if line.startswith("broken ")]
    assert line.endswith(
        f"BROKEN: type broken ({path}) is broken: ZeroDivisionError: division by zero ({path}:1)"
    )
    assert "Files waiting" in out


def test_list_whatever_is_wrong_with_the_settings(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Types are listed even if the settings name an unknown one."""
    configure(config, "spoool: ")

    assert commands.collectors(options(config)) == 0
    assert "spool " in capsys.readouterr().out


# metrics


def test_metrics_as_a_table(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every metric has a line with labels, type and help; the exporter's own come last."""
    assert commands.metrics(options(config), "table") == 0

    lines = capsys.readouterr().out.splitlines()
    assert "spool_files{path}  gauge  Files waiting in the spool directory." in lines
    assert "fails_asked_total{a, b}  counter  How often | it was asked." in lines
    assert [line.split("{")[0].split()[0] for line in lines[-len(DECLARED) :]] == [
        m.name for m in DECLARED
    ]


def test_metrics_as_markdown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Markdown, the metrics are a table whose rows have equal numbers of cells."""
    assert commands.metrics(options(config), "markdown") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["| name | type | labels | help | collector |", "|---|---|---|---|---|"]
    assert (
        "| `spool_files` | gauge | path | Files waiting in the spool directory. | spool |" in lines
    )
    assert r"| `fails_asked_total` | counter | a, b | How often \| it was asked. | fails |" in lines
    assert {line.replace(r"\|", "").count("|") for line in lines} == {6}


def test_metrics_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs."""
    assert commands.metrics(options(config), "json") == 0

    listed = {metric["name"]: metric for metric in json.loads(capsys.readouterr().out)}
    assert listed["fails_asked_total"] == {
        "name": "fails_asked_total",
        "type": "counter",
        "labels": ["a", "b"],
        "help": "How often | it was asked.",
        "collector": "fails",
    }
    assert listed["process_open_fds"]["collector"] == ""


def test_metrics_with_a_type_that_is_broken(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other types' metrics are listed; the broken type is reported on standard error."""
    path = drop_in(config.parent / "plugins", "broken", "1/0\n")

    assert commands.metrics(options(config), "json") == 0
    out, err = capsys.readouterr()
    assert "spool_files" in {metric["name"] for metric in json.loads(out)}
    assert err.rstrip().endswith(f"is broken: ZeroDivisionError: division by zero ({path}:1)")


def test_metrics_that_types_share_are_listed_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A metric that several types share is listed once."""
    source = "from bts_exporter import Collector, backlog\nclass {0}(Collector):\n    shared = backlog.VOCABULARY\n    def collect(self, scrape):\n        pass\n"
    for name in ("first", "second"):
        drop_in(config.parent / "plugins", name, source.format(name.title()))

    commands.metrics(options(config), "json")

    names = [metric["name"] for metric in json.loads(capsys.readouterr().out)]
    assert names.count("messaging_lag_seconds") == 1


# Commands of types


@pytest.fixture
def speaking(config: Path) -> Path:
    """Return settings with a type that has a command."""
    drop_in(config.parent / "plugins", "speaks", SPEAKS)
    configure(config, "speaks: [{name: a, whom: world}, {name: b, whom: moon}]")
    return config


def test_command_of_a_type_gets_its_blocks_and_arguments(
    speaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command gets all blocks of its type, and prints a line for each yielded text."""
    found = commands.find_in_types(str(speaking), ["some-file", "speaks-nothing", "speaks-greet"])

    assert found is not None
    assert found.name == "speaks-greet"
    assert commands.of_type(options(speaking), found, ["hello", "2"]) == 0
    assert capsys.readouterr().out == "hello world hello world\nhello moon hello moon\n"


def test_command_of_a_type_says_what_is_wrong(
    speaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command reports an error with ValueError."""
    found = commands.find_in_types(str(speaking), ["speaks-greet"])
    assert found is not None

    assert commands.of_type(options(speaking), found, ["hello", "often"]) == 1
    assert capsys.readouterr().err == "bts-exporter: speaks-greet: times: 'often' is no number\n"


@pytest.mark.parametrize("words", [[], ["speaks"], ["speaks-"], ["speaks-shout"], ["nobody-greet"]])
def test_words_that_are_no_command_of_a_type(speaking: Path, words: list[str]) -> None:
    """They are left to the command line."""
    assert commands.find_in_types(str(speaking), words) is None


def test_commands_of_types_are_listed(speaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below their type, with what they take."""
    commands.collectors(options(speaking))

    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("speaks "))
    assert lines[at + 1].split(maxsplit=3) == ["speaks-greet", "WORD", "TIMES", "say it"]


def test_metrics_of_the_settings_are_listed(
    speaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics of a block of settings are listed, too."""
    commands.metrics(options(speaking), "json")

    listed = {one["name"]: one["collector"] for one in json.loads(capsys.readouterr().out)}
    assert listed["speaks_world"] == listed["speaks_moon"] == "speaks"


def test_settings_that_are_wrong_name_no_metrics(
    speaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With invalid settings the types' metrics are listed, and the errors are reported."""
    configure(speaking, "speaks: {who: world}")

    assert commands.metrics(options(speaking), "json") == 0
    out, err = capsys.readouterr()
    assert "spool_files" in {one["name"] for one in json.loads(out)}
    assert "unknown key 'who'; did you mean whom?" in err


def test_settings_whose_metrics_cannot_be_named(
    speaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception in one type's `declared_by` is reported, and the others are listed."""
    source = SPEAKS.replace("        yield gauge", "        1 / 0\n        yield gauge")
    drop_in(speaking.parent / "plugins", "speaks", source)

    assert commands.metrics(options(speaking), "json") == 0
    out, err = capsys.readouterr()
    assert "spool_files" in {one["name"] for one in json.loads(out)}
    assert "collectors.speaks[0]: ZeroDivisionError: division by zero" in err
