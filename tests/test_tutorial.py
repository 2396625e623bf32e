"""docs/tutorial.md: every command of the page works, and shows what the page says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from bts import scene
from servers import free_port, listens, need, wait_until

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
#: Ports that the reader's own programs listen on.
OWN_PORTS = (8000, 19101, 19102, 19091)
#: The terminal whose commands end; those of the others run until Ctrl-C.
COMMANDS = 2
#: Longest wait for the output of a command, or of the demo while the machine is busy.
SECONDS = 90


@dataclass
class Step:
    """A block of commands for a terminal, or Ctrl-C, and the lines that the page shows below it."""

    line: int
    terminal: int
    commands: str
    shown: list[str] = field(default_factory=list)


def steps() -> Iterator[Step]:
    """Yield the steps of the page in order; those without commands are Ctrl-C."""
    terminal, step = 0, None
    tokens = re.compile(
        r"^\*\*Terminal (\d)\*\*$|^Press Ctrl-C in terminal (\d)\.$|^```(\w+)\n(.*?)^```$",
        re.MULTILINE | re.DOTALL,
    )
    for found in tokens.finditer(PAGE):
        line = PAGE.count("\n", 0, found.start()) + 1
        if found[1]:
            terminal = int(found[1])
        elif found[2]:
            yield from [step] if step else []
            step = Step(line, int(found[2]), "")
        elif found[3] == "sh":
            yield from [step] if step else []
            step = Step(line, terminal, found[4])
        elif found[3] == "text" and step:
            step.shown = found[4].splitlines()
    yield from [step] if step else []


def pattern(shown: str) -> re.Pattern[str]:
    """Return what a line of the page stands for: any numbers, ids and folders, but 1 (up, valid) is meant."""
    number = r"(?<![\w.])(?!1(?![\w.]))\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])"
    parts = re.split(rf"([0-9a-f]{{32}}|/home/you/(?:bts-exporter/)?|{number}|\s+)", shown.strip())
    regexes = [
        re.escape(part)
        if index % 2 == 0
        else r"\s+"
        if part.isspace()
        else r"/(?:\S+/)?"
        if part.startswith("/home/you/")
        else r"[\w.+-]+"
        for index, part in enumerate(parts)
    ]
    return re.compile("".join(regexes))


def missing(shown: list[str], output: str) -> str:
    """Return the first line of the page that the output does not have; empty if it has all, in any order."""
    lines = [line.strip() for line in output.splitlines()]
    for line in shown:
        if line != "..." and not any(map(pattern(line).fullmatch, lines)):
            return line
    return ""


@pytest.mark.parametrize(
    ("shown", "output"),
    [
        ("lag 2.0 s", "lag 14 s"),
        ("up{} => 1 @[1796027146.185]", "up{} => 1 @[1796027150]"),
        ('x{le="0.001"} 2.9e-06', 'x{le="0.5"} 3'),
        ("Checking /home/you/a.yml", "Checking /tmp/x/y/a.yml"),
        ("/home/you/bts-exporter/docs", "/src/docs"),
    ],
)
def test_numbers_and_folders_may_differ(shown: str, output: str) -> None:
    """A line matches whatever the numbers are."""
    assert missing([shown], output) == ""


@pytest.mark.parametrize(
    ("shown", "output"),
    [
        (["up{} => 1 @[2.5]"], "up{} => 0 @[2.5]"),
        (["node_load1 2.5"], "node_load5 2.5"),
        (["a", "...", "b"], "a\nc"),
        (["a"], ""),
    ],
)
def test_other_lines_do_not_match(shown: list[str], output: str) -> None:
    """States and names are meant as they are written."""
    assert missing(shown, output) != ""


def test_installation_has_the_packages_of_the_demo() -> None:
    """The page installs what the demo needs, and nothing that the script does not know."""
    script = (ROOT / "tests" / "install-servers.sh").read_text(encoding="utf-8")
    [listed] = re.findall(r"^packages=\((.*?)\)", script, re.MULTILINE | re.DOTALL)
    [named] = re.findall(
        r"sudo tests/install-servers\.sh (.*?[^\\])\n", installation().commands, re.DOTALL
    )

    packages = set(named.replace("\\\n", "").split())
    everywhere = {"erlang-base", "util-linux"}  # with rabbitmq-server; with every system
    assert set(scene.PACKAGES.values()) - everywhere <= packages <= set(listed.split())


def installation() -> Step:
    """Return the step that installs packages, which the test cannot do again."""
    [step] = [step for step in steps() if "apt-get" in step.commands]
    return step


def test_ports_are_those_of_the_demo() -> None:
    """The table of ports has every port of the demo that the reader may meet."""
    table = PAGE.partition("### Ports")[2].partition("## 3.")[0]
    hidden = {"distribution", "epmd"}
    expected = {port for name, port in scene.PORTS.items() if name not in hidden}

    named = {int(port) for port in re.findall(r"\b\d{4,5}\b", table)}
    named |= set(range(8100, 8104))  # 8100 to 8103
    assert expected | set(OWN_PORTS) <= named


def test_manifests_have_what_they_refer_to() -> None:
    """The pod's labels are those that the set selects, and its volumes are defined."""
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    config, daemons = yaml.safe_load_all(text)
    template = daemons["spec"]["template"]
    [container] = template["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}

    assert daemons["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]


class Terminals:
    """The reader's terminals: their folders, and the programs that run in them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        #: The ports of this machine, by those on the page. The latter are preferred: no outgoing connection takes them.
        self.ports = {port: free_port() if listens(port) else port for port in OWN_PORTS}
        self._kept: dict[int, str] = {}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        # `make test ARGS=...` hands its arguments over in these.
        inherited = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "ARGS"}}
        self._environment = {**inherited, "HOME": str(home), "TMPDIR": str(home)}

    def do(self, step: Step) -> None:
        """Run the commands of a step, or press Ctrl-C; AssertionError if the output is not that of the page."""
        if not step.commands:
            self.interrupt(step.terminal)
        elif step.terminal == COMMANDS:
            self._run(step)
        else:
            self._start(step)
        # A terminal stays in its folder.
        kept = re.findall(r"^(?:cd|umask) .*\n", step.commands, re.MULTILINE)
        self._kept[step.terminal] = self._kept.get(step.terminal, "") + "".join(kept)

    def interrupt(self, terminal: int) -> None:
        """Press Ctrl-C: everything that was started in the terminal gets the signal."""
        process = self._running.pop(terminal)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)

    def close(self) -> None:
        """End what still runs, the demo last."""
        for terminal in sorted(self._running, reverse=True):
            if self._running[terminal].poll() is None:
                self.interrupt(terminal)

    def _run(self, step: Step) -> None:
        """Run commands that end, and repeat those after the last file until they show what the page says."""
        script, output = self._script(step), ""

        def shows_all() -> bool:
            nonlocal script, output
            done = subprocess.run(
                ["bash", "-e", "-c", script],
                cwd=ROOT,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            script, output = script.rpartition("\nEND\n")[2], done.stdout
            return not missing(step.shown, output)

        self._wait_for(step, shows_all, lambda: output)

    def _start(self, step: Step) -> None:
        """Start commands that run until Ctrl-C, and wait for what the page says."""
        assert step.terminal not in self._running, f"line {step.line}: this terminal is in use"
        log = self.home / f"terminal-{step.terminal}.log"
        with log.open("wb") as out:
            self._running[step.terminal] = process = subprocess.Popen(
                ["bash", "-c", self._script(step)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def shows_all() -> bool:
            assert process.poll() is None, "the program ended"
            return not missing(step.shown, log.read_text())

        self._wait_for(step, shows_all, log.read_text)

    def _wait_for(self, step: Step, shows_all: Any, output: Any) -> None:
        try:
            wait_until(shows_all, "the output of the page", SECONDS)
        except AssertionError as error:
            error.add_note(f"docs/tutorial.md, line {step.line}: {step.commands}")
            error.add_note(f"no line like: {missing(step.shown, output())}\n{output()[-3000:]}")
            raise

    def _script(self, step: Step) -> str:
        """Return the commands as this machine can run them: its ports and folders, and no sudo."""
        commands = re.sub(
            r"(?<=127\.0\.0\.1:)\d+|(?<=\(port=)\d+",
            lambda found: str(self.ports.get(int(found[0]), int(found[0]))),
            self._kept.get(step.terminal, "") + step.commands,
        )
        commands = re.sub(
            r"^cd bts-exporter\n|^sudo systemctl .*\n", "", commands, flags=re.MULTILINE
        )
        return commands.replace("sudo ", "").replace("/etc/grafana", f"{self.home}/grafana")


def demo_ports(folder: Path) -> dict[int, int]:
    """Return the ports of the running demo, by those that it uses if they are free."""
    collectors = yaml.safe_load((folder / "exporter.yaml").read_text())["collectors"]
    prometheus = yaml.safe_load((folder / "prometheus.yml").read_text())
    amqp = (folder / "rabbitmq" / "rabbitmq.conf").read_text().splitlines()[0]
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]
    }
    [alertmanager] = prometheus["alerting"]["alertmanagers"]
    addresses = {
        "management": collectors["rabbitmq"]["url"],
        "redis": collectors["redis"]["url"],
        "mosquitto": collectors["mqtt"]["url"],
        "amqp": amqp,
        "exporter": jobs["bts-exporter"][0],
        "prometheus": jobs["prometheus"][0],
        "alertmanager": alertmanager["static_configs"][0]["targets"][0],
        **dict(zip(scene.ROLES, jobs["bts-service"], strict=True)),
    }
    return {
        scene.PORTS[name]: int(address.rpartition(":")[2]) for name, address in addresses.items()
    }


@pytest.mark.live
def test_every_command_works_and_shows_what_the_page_says(tmp_path: Path) -> None:
    """A reader who follows the page from the first command to the last sees the lines that it shows."""
    for program, package in scene.PACKAGES.items():
        need(program, package)
    (tmp_path / "grafana" / "provisioning" / "dashboards").mkdir(parents=True)
    (tmp_path / "grafana" / "provisioning" / "datasources").mkdir()
    terminals = Terminals(tmp_path)
    try:
        for step in steps():
            if step.line == installation().line:
                continue
            terminals.do(step)
            if "make demo" in step.commands:
                [folder] = tmp_path.glob("bts-demo-*")
                terminals.ports |= demo_ports(folder)
    finally:
        terminals.close()

    source = tmp_path / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    [settings] = yaml.safe_load(source.read_text())["datasources"]
    assert settings["url"] == "http://127.0.0.1:19090" or terminals.ports[19090] != 19090
    assert list((tmp_path / "grafana" / "dashboards").glob("*.json"))
    assert list(tmp_path.glob("bts-demo-*")) == []
