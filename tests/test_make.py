"""What the commands of the Makefile do to .venv, and what they say on a machine that lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from servers import need
from servers.sources import ROOT

#: Another Python than that of the tests, as far as make can see.
OTHER = "case $2 in *sys.version*) echo '3.12.1 (another)';; esac\n"


def test_make_names_what_an_old_python_lacks(tmp_path: Path) -> None:
    """With no Python that is new enough `make run` says which is needed and how to name one."""
    done = make(tmp_path, 'echo "3.9.2"; case $2 in *sys.exit*) exit 1;; esac')

    assert done.returncode != 0
    assert "needs Python >= 3.11, and python3 here is 3.9.2" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_make_names_the_package_of_venv(tmp_path: Path) -> None:
    """Debian's Python without its venv package gets the command that installs it."""
    done = make(tmp_path, "case $2 in *ensurepip*) exit 1;; esac")

    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a .venv that works, whose pip and bts-exporter only print what they do."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    for name in ("pip", "bts-exporter"):
        script = f"#!{programs}/python\nimport sys\nprint('ran', {name!r}, sys.argv[1:])\n"
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "kept").touch()
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make run` in the folder."""
    return subprocess.run(
        [need("make", "make"), "run", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHON": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python(folder: Path, script: str) -> Path:
    """Write a program that is named as a Python, and return its path."""
    path = folder / "other-python3"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path


def test_same_python_at_another_path_keeps_the_environment(folder: Path) -> None:
    """A .venv stays, and is used, if PYTHON names its interpreter in another way."""
    link = folder / "python-link"
    link.symlink_to(sys.executable)
    first, second = run(folder), run(folder, f"PYTHON={link}")

    assert "ran pip ['install'" in first.stdout
    assert "ran pip" not in second.stdout
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert "ran bts-exporter ['--config.file=config.yaml'" in done.stdout
    assert (folder / ".venv" / "kept").exists()


def test_other_python_does_not_replace_an_environment_that_works(folder: Path) -> None:
    """Another interpreter is refused with the command that removes .venv, which stays."""
    other = python(folder, OTHER)
    done = run(folder, f"PYTHON={other}")

    assert done.returncode != 0
    assert f"has another Python (Python {sys.version.split()[0]}) than {other}" in done.stderr
    assert "make clean" in done.stderr
    assert (folder / ".venv" / "kept").exists()


def test_environment_without_its_python_is_made_again(folder: Path) -> None:
    """A .venv whose interpreter has been removed is made again, and filled."""
    (folder / ".venv" / "bin" / "python").unlink()
    other = python(folder, f'echo "ran python3 $*"; ln -sf {sys.executable} .venv/bin/python\n')
    done = run(folder, f"PYTHON={other}")

    assert done.returncode == 0, done.stderr
    assert "ran python3 -m venv --clear .venv" in done.stdout
    assert "ran pip ['install'" in done.stdout


def test_environment_of_another_folder_is_made_again(folder: Path, tmp_path: Path) -> None:
    """The programs of a .venv that was copied with its folder belong to the original."""
    copy = tmp_path / "copy"
    shutil.copytree(folder / ".venv", copy / ".venv", symlinks=True)
    shutil.copy(ROOT / "Makefile", copy)
    other = python(folder, 'echo "ran python3 $*"\n')

    assert "ran python3 -m venv --clear .venv" in run(copy, f"PYTHON={other}").stdout


def test_address_is_announced_as_one_to_come(folder: Path) -> None:
    """Before the exporter listens `make run` says that it will, with the address to open."""
    done = run(folder, "ADDRESS=:9200")

    assert 'The log says "listening" once it serves http://localhost:9200/metrics' in done.stdout


def make(folder: Path, python3: str) -> subprocess.CompletedProcess[str]:
    """Run `make run` in a folder of its own, where the shell script `python3` is the only Python."""
    program = need("make", "make")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3").write_text(f"#!/bin/sh\n{python3}\n")
    (bin_folder / "python3").chmod(0o755)
    for name in ("sh", "cat", "cksum", "echo", "rm", "mkdir"):
        (bin_folder / name).symlink_to(need(name, "coreutils"))
    shutil.copy(ROOT / "Makefile", folder)
    return subprocess.run(
        [program, "run"],
        cwd=folder,
        env={"PATH": str(bin_folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
