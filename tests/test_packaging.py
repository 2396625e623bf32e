"""What pip installs: wheel, source distribution, pinned requirements."""

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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bts_exporter
from servers.sources import ROOT, sources

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SETTINGS = ("config.yaml", "systemd/config.yaml")
RULES = "monitoring/prometheus/rules"


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
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), ".", cwd=tree)
    [path] = folder.iterdir()
    return path


def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """The folders' names exporters and collectors would overwrite other people's packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]

    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert tops == {"bts_exporter", "bts_exporter_pytest", "bts_collectors"}


def test_wheel_holds_every_module_and_data_file(wheel: Path, tree: Path) -> None:
    """Each module, Lua script, template, py.typed and file of the live page is in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    sources = {
        path.relative_to(root).as_posix()
        for root in (tree / "exporters", tree / "collectors")
        for path in root.rglob("*")
        if path.suffix in {".py", ".lua", ".in"}
        or path.name == "py.typed"
        or "static" in path.parts
        if path.is_file()
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
    run(*PIP, "install", "--no-deps", "--target", str(tmp_path), str(wheel), cwd=tmp_path)
    command = str(tmp_path / "bin" / "bts-exporter")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    assert bts_exporter.__version__ in run(command, "--version", cwd=tmp_path, env=env)
    listing = run(command, "collectors", cwd=tmp_path, env=env)
    for name in entry_points(wheel)["bts_exporter.collectors"]:
        assert name in listing.split()


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source distribution of the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"import setuptools.build_meta as b; print(b.build_sdist({str(folder)!r}))"
    run(sys.executable, "-c", code, cwd=tree)
    [path] = folder.glob("*.tar.gz")
    return path


def test_source_distribution_can_be_installed(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """The source distribution, far from the clone, gives the same files as the wheel."""
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(sdist), cwd=tmp_path)
    [built] = tmp_path.glob("*.whl")

    with zipfile.ZipFile(built) as archive, zipfile.ZipFile(wheel) as expected:
        assert set(archive.namelist()) == set(expected.namelist())


def test_source_distribution_holds_what_the_readme_installs(tree: Path, sdist: Path) -> None:
    """Who unpacks it finds the unit, both files of settings and the rules, as the README names them."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    readme = (tree / "README.md").read_text()
    assert "packages/requirements.lock" in names
    named = set(re.findall(r"(?:systemd|monitoring/prometheus/rules)/[\w.-]+\.\w+", readme))
    wanted = {"config.yaml", "systemd/config.yaml", "systemd/bts-exporter.service"}
    rules = {f"monitoring/prometheus/rules/{path.name}" for path in (tree / RULES).glob("*.yml")}
    assert rules
    assert wanted | rules | named <= names


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


@pytest.mark.parametrize("name", ["requirements.lock", "build-requirements.lock"])
def test_pinned_requirements_have_hashes(name: str) -> None:
    """Every line pins a version with its hashes, and none says where it comes from."""
    text = (ROOT / "packages" / name).read_text()
    pinned = [line for line in text.splitlines() if line and line[0] not in " #"]

    assert pinned
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .*)? \\", line) for line in pinned)
    assert text.count("\\\n    --hash=sha256:") >= len(pinned)
    assert "://" not in text


def test_pinned_requirements_are_those_of_the_package(wheel: Path) -> None:
    """The versions satisfy setup.py, and nothing is missing: run `make lock` after a change there."""
    text = (ROOT / "packages" / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(path))
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    needed = [each for each in wanted if "extra" not in str(each.marker)]

    assert needed
    for requirement in needed:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def entry_points(wheel: Path) -> configparser.ConfigParser:
    """Return the sections and keys of the wheel's entry_points.txt."""
    parser = configparser.ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        parser.read_string(archive.read(path).decode())
    return parser
