"""The man page and the shell completions, which `make cli-pages` writes from the parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servers import need

DOCS = Path(__file__).parents[1] / "docs"
COMPLETION = DOCS / "completion"
FILES = ("man/bts-exporter.1", *(f"completion/{name}" for name in ("bts-exporter.bash", "_bts-exporter", "bts-exporter.fish")))  # fmt: skip


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with newly written files."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("man", "completion"):
        (folder / name).mkdir()
    (folder / "cli_pages.py").write_text((DOCS / "cli_pages.py").read_text())
    subprocess.run([sys.executable, folder / "cli_pages.py"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("file", FILES)
def test_files_are_those_of_the_parser(file: str, generated: Path) -> None:
    """Each file is what `make cli-pages` writes now."""
    assert (DOCS / file).read_text() == (generated / file).read_text()


def output(*argv: str) -> str:
    """Return what a command prints, without complaints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("che", ["check"]),
        ("--web.en", ["--web.enable-lifecycle"]),
        ("--log.level w", ["warn"]),
        ("--log.level = w", ["warn"]),
        ("check --con", ["--config.file", "--connect"]),
        ("--config.file=x metrics --format m", ["markdown"]),
    ],
)
def test_bash_completes(words: str, expected: list[str]) -> None:
    """Commands, flags of the command that is there, and values."""
    script = (
        f"source '{COMPLETION}/bts-exporter.bash'; COMP_WORDS=(bts-exporter {words});"
        ' COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _bts_exporter; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    assert sorted(output("bash", "-c", script).split()) == expected


@pytest.mark.live
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("che", ["check"]),
        ("--web.en", ["--web.enable-lifecycle"]),
        ("--log.level w", ["warn"]),
        ("check --conn", ["--connect"]),
        ("metrics --format m", ["markdown"]),
    ],
)
def test_fish_completes(words: str, expected: list[str]) -> None:
    """Commands, flags of the command that is there, and values."""
    fish = need("fish", "fish")
    script = f"source '{COMPLETION}/bts-exporter.fish'; complete -C 'bts-exporter {words}'"
    lines = output(fish, "--no-config", "-c", script).splitlines()

    assert [line.partition("\t")[0] for line in lines] == expected


@pytest.mark.live
def test_zsh_loads_the_completion() -> None:
    """The file has no syntax error, and defines the function that its first line announces."""
    zsh = need("zsh", "zsh")
    script = f"autoload -Uz compinit; compinit -D -u; source '{COMPLETION}/_bts-exporter' 2>/dev/null; whence -w _bts_exporter"

    assert output(zsh, "-n", f"{COMPLETION}/_bts-exporter") == ""
    assert output(zsh, "-f", "-c", script) == "_bts_exporter: function\n"
