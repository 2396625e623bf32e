"""What `new-collector` creates works as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bts_exporter.cli import main
from stubs import environment

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: One without words to separate, the longest ones, and one with digits.
NAMES = ["tray", "a" * 30, "a_b" * 10, "x_2y"]


def run(folder: Path, *argv: str | Path, **variables: str) -> str:
    """Run a command in `folder`, and return what it prints; AssertionError with that if it fails."""
    done = subprocess.run(
        list(map(str, argv)),
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def python(folder: Path, *argv: str, **variables: str) -> str:
    """Run a module of Python."""
    return run(folder, sys.executable, "-m", *argv, **variables)


def create(folder: Path, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run the command in `folder`, and return its exit code."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as caught:
        main(["new-collector", *argv])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def check_lint(folder: Path) -> None:
    """Check Python files with our settings, from their folder and from ours."""
    config = f"--config={ROOT / 'pyproject.toml'}"
    for where in (folder, ROOT):
        run(where, BIN / "ruff", "check", "--no-cache", config, folder)
        run(where, BIN / "ruff", "format", "--check", "--no-cache", config, folder)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a plug-in of one file."""
    folder = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as patch:
        assert create(folder, patch, "tray") == 0
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a project."""
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        assert create(folder, patch, "job_tray", "--package") == 0
    return folder / "bts-exporter-job-tray"


def test_file_passes_its_tests(single: Path) -> None:
    """The test that comes with the file passes, with every warning an error."""
    assert "4 passed" in python(single, "pytest", "-q", "-p", "no:hypothesispytest", "-W", "error")


@pytest.mark.parametrize("name", NAMES)
def test_files_pass_our_lint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms have no findings of ruff with all rules, whatever their name is."""
    assert create(tmp_path, monkeypatch, name) == 0
    assert create(tmp_path, monkeypatch, name, "--package") == 0

    check_lint(tmp_path)


def test_files_have_types(single: Path, project: Path) -> None:
    """The strict mode of mypy has no findings."""
    files = [*single.glob("*.py"), project / "src", *project.glob("tests/*.py")]
    # Our editable installation is not visible to mypy, as an installed wheel is.
    path = str(ROOT / "exporters")
    run(project, BIN / "mypy", "--strict", "--cache-dir=/dev/null", *files, MYPYPATH=path)


def test_file_is_a_plugin(single: Path) -> None:
    """The file works in the command that the output names."""
    page = python(single, "bts_exporter", "run-collector", "tray.py", "--set", "path=.")

    assert 'tray_files{path="."} ' in page


def test_project_passes_its_tests_and_lint(project: Path) -> None:
    """The tests of the project pass in its folder, and so does ruff with its settings."""
    assert "6 passed" in python(project, "pytest", "-q", "-p", "no:hypothesispytest")
    run(project, BIN / "ruff", "check", "--no-cache")
    run(project, BIN / "ruff", "format", "--check", "--no-cache")


def test_project_can_be_installed(project: Path, tmp_path: Path) -> None:
    """After pip install the exporter has the type, with the version of the project."""
    pip = ("pip", "install", "-q", "--no-deps", "--no-build-isolation", f"--target={tmp_path}")
    python(project, *pip, str(project), PIP_DISABLE_PIP_VERSION_CHECK="1")

    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    listed = python(tmp_path, "bts_exporter", "collectors", PYTHONPATH=path)

    assert (
        "job_tray         bts-exporter-job-tray 0.1.0      Files that wait in a folder." in listed
    )
    assert (tmp_path / "bts_exporter_job_tray" / "py.typed").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Job-Tray", "expected lower-case letters, digits and _, beginning with a letter, such as job_tray"),
        ("_tray", "expected lower-case letters, digits and _, beginning with a letter, such as tray"),
        ("2", "expected lower-case letters, digits and _, beginning with a letter"),
        ("../tray", "expected lower-case letters, digits and _, beginning with a letter, such as tray"),
        ("", "expected lower-case letters, digits and _, beginning with a letter"),
        ("class", "Python has this word for itself"),
        ("conftest", "pytest would take its file for a test"),
        ("test_tray", "pytest would take its file for a test"),
        ("a" * 31, "at most 30 characters"),
        ("redis", "it is a collector type of bts_collectors.redis:COLLECTOR already"),
    ],
)  # fmt: skip
def test_bad_names(
    name: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A name that could not work is refused with the reason, and nothing is created."""
    for flags in ((), ("--package",)):
        assert create(tmp_path, monkeypatch, name, *flags) == 1
        message = f"bts-exporter: {name!r} cannot be the name of a collector: {problem}\n"
        assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["queue", "msgspec"])
def test_name_of_a_module_of_python(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of this name would be imported in place of the module; a project has another one."""
    assert create(tmp_path, monkeypatch, name) == 1
    assert "its file would hide Python's module of this name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    assert create(tmp_path, monkeypatch, name, "--package") == 0
    project = tmp_path / f"bts-exporter-{name}"
    assert "6 passed" in python(project, "pytest", "-q", "-p", "no:hypothesispytest")


@pytest.mark.parametrize(
    ("existing", "flags"),
    [
        ("tray.py", ()),
        ("test_tray.py", ()),
        ("bts-exporter-tray", ("--package",)),
    ],
)
def test_existing_files(
    existing: str,
    flags: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is overwritten, and nothing is created next to it."""
    (tmp_path / existing).write_text("mine")

    assert create(tmp_path, monkeypatch, "tray", *flags) == 1

    assert f"bts-exporter: {existing} exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"
