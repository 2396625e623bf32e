"""What pip installs, and what the commands of the Makefile say on a machine that lacks something."""

from __future__ import annotations

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

import bts_exporter
from servers import need
from servers.sources import ROOT, sources

SETTINGS = ("config.yaml", "systemd/config.yaml")


def run(*argv: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Return the output of a command, AssertionError with it where the command failed."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git has or would take: no leftovers of other builds."""
    copy = tmp_path_factory.mktemp("tree")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that pip builds from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), ".", cwd=tree)
    [path] = folder.iterdir()
    return path


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    """The folders' names exporters and collectors would overwrite other people's packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]

    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert tops == {"bts_exporter", "bts_collectors"}


def test_wheel_holds_every_module_script_and_type_marker(wheel: Path, tree: Path) -> None:
    """Each module, Lua script and py.typed of the two source roots is in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    sources = {
        path.relative_to(root).as_posix()
        for root in (tree / "exporters", tree / "collectors")
        for path in root.rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed"
    }
    assert packed == sources
    assert {"bts_exporter/py.typed", "bts_collectors/py.typed"} <= packed


def test_entry_points_are_the_modules_present(wheel: Path, tree: Path) -> None:
    """Every public module of bts_collectors is a collector, without a list that names it."""
    folder = tree / "collectors" / "bts_collectors"
    modules = {path.stem for path in folder.glob("[!_]*.py")}
    packages = {path.parent.name for path in folder.glob("[!_]*/__init__.py")}

    assert dict(entry_points(wheel)["bts_exporter.collectors"]) == {
        name: f"bts_collectors.{name}:COLLECTOR" for name in modules | packages
    }


def test_metadata_names_version_licence_and_python(wheel: Path) -> None:
    """The version is the package's own, the licence is named and its text comes along."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [path] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(path))

    assert metadata["Version"] == bts_exporter.__version__
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(name.endswith("/LICENSE") for name in names)


def test_installed_command_runs(wheel: Path, tmp_path: Path) -> None:
    """The command that the wheel installs tells its version and finds the wheel's collectors."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", "--no-deps", "--target", str(tmp_path), str(wheel), cwd=tmp_path)
    command = str(tmp_path / "bin" / "bts-exporter")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    assert bts_exporter.__version__ in run(command, "--version", cwd=tmp_path, env=env)
    listing = run(command, "collectors", cwd=tmp_path, env=env)
    for name in entry_points(wheel)["bts_exporter.collectors"]:
        assert name in listing.split()


def test_source_distribution_holds_what_the_readme_installs(tree: Path, tmp_path: Path) -> None:
    """Who unpacks it finds the unit, both files of settings and the rules, as the README names them."""
    code = "import setuptools.build_meta as b; print(b.build_sdist(OUT))".replace(
        "OUT", repr(str(tmp_path))
    )
    run(sys.executable, "-c", code, cwd=tree)
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    readme = (tree / "README.md").read_text()
    named = set(re.findall(r"(?:systemd|monitoring/prometheus/rules)/[\w.-]+\.\w+", readme))
    wanted = {"config.yaml", "systemd/config.yaml", "systemd/bts-exporter.service"}
    assert wanted | {"monitoring/prometheus/rules/bts-exporter.yml", *named} <= names


def test_settings_of_the_service_make_nothing_optional(tree: Path) -> None:
    """What is missing on a machine is reported by the service, and no error where people try it out."""
    files = {name: yaml.safe_load((tree / name).read_text()) for name in SETTINGS}
    optional = {
        name: {kind for kind, block in file["collectors"].items() if (block or {}).get("optional")}
        for name, file in files.items()
    }

    assert optional == {
        "config.yaml": {"rabbitmq", "redis", "mqtt"},
        "systemd/config.yaml": set(),
    }
    assert (
        files["config.yaml"]["collectors"].keys()
        == files["systemd/config.yaml"]["collectors"].keys()
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_come_along_are_fine(name: str, tree: Path) -> None:
    """`bts-exporter check` accepts both files without a warning."""
    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={tree / name}", "check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["README.md", "systemd/bts-exporter.service"])
def test_service_is_installed_with_its_own_settings(name: str, tree: Path) -> None:
    """The instructions put the service's file into /etc, and not the one for trying it out."""
    lines = [
        line
        for line in (tree / name).read_text().splitlines()
        if "/etc/bts-exporter/config" in line
    ]

    assert any("install" in line and " systemd/config.yaml " in line for line in lines)
    assert not any("install" in line and " config.yaml " in line for line in lines)


def test_install_servers_knows_every_package_that_tests_need() -> None:
    """A test may need no package that CI does not install."""
    script = (ROOT / "tests" / "install-servers.sh").read_text()
    [installed] = re.findall(r"^packages=\(([^)]*)\)", script, re.MULTILINE)
    needed = {
        package
        for path in (ROOT / "tests").rglob("*.py")
        for package in re.findall(
            r'(?:\bneed\([^,()]+,\s*|^PACKAGE = )"([^"]+)"', path.read_text(), re.MULTILINE
        )
    }

    assert needed - {"coreutils", "git", "make"} <= set(installed.split())


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


def entry_points(wheel: Path) -> configparser.ConfigParser:
    """Return the sections and keys of the wheel's entry_points.txt."""
    parser = configparser.ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        parser.read_string(archive.read(path).decode())
    return parser


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
