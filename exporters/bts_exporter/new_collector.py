"""The command `new-collector`: files to begin a collector with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path

import bts_exporter
from bts_exporter.collection.registry import GROUP
from bts_exporter.errors import PluginError
from bts_exporter.plugin import API_VERSION

_NAME = re.compile(r"[a-z][a-z0-9_]*")
#: Longer names would be broken into lines in another way.
_MAX_NAME = 30
_NOQA = "# ruff: noqa: INP001, RUF100  # a plug-in is a file of its own\n"

#: What is created for a plug-in of one file, and the template of each.
_SINGLE = {"@NAME@.py": "collector.py", "test_@NAME@.py": "test_collector.py"}
_PACKAGE = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
    "src/@MODULE@/__init__.py": "collector.py",
    "src/@MODULE@/py.typed": "",
    "tests/test_@NAME@.py": "test_collector.py",
    "tests/test_project.py": "test_project.py",
}


def create(name: str, *, package: bool) -> int:
    """Create a collector in the current folder, and print what can be done with it.

    PluginError for a name that cannot be used, and if a file exists already: nothing is overwritten.
    """
    _check(name, package=package)
    values = _values(name, package=package)
    folder = Path(values["PROJECT"]) if package else Path()
    templates = _PACKAGE if package else _SINGLE
    made = {folder / _filled(file, values): template for file, template in templates.items()}
    if existing := [path for path in (folder, *made) if path != Path() and path.exists()]:
        msg = f"{existing[0]} exists already, and is not overwritten: choose another name, or move it away"
        raise PluginError(msg)
    for path, template in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_filled(_template(template), values))
        print(f"created {path}")
    print(_next_steps(values, package=package))
    return 0


def _check(name: str, *, package: bool) -> None:
    """Raise PluginError for a name that a collector type cannot have."""
    problem = ""
    if not _NAME.fullmatch(name):
        problem = "expected lower-case letters, digits and _, beginning with a letter"
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        problem += f", such as {near}" if _NAME.fullmatch(near) else ""
    elif keyword.iskeyword(name) or keyword.issoftkeyword(name):
        problem = "Python has this word for itself"
    elif name == "conftest" or name.startswith("test_"):
        problem = "pytest would take its file for a test"
    elif len(name) > _MAX_NAME:
        problem = f"at most {_MAX_NAME} characters"
    elif taken := list(importlib.metadata.entry_points(group=GROUP, name=name)):
        problem = f"it is a collector type of {taken[0].value} already"
    elif not package and _hides_module(name):
        problem = (
            "its file would hide Python's module of this name: choose another one, or use --package"
        )
    if problem:
        msg = f"{name!r} cannot be the name of a collector: {problem}"
        raise PluginError(msg)


def _hides_module(name: str) -> bool:
    """Return whether Python finds a module of this name, and not in the current folder."""
    found = importlib.util.find_spec(name)
    file = found.origin if found else None
    return file is not None and Path(file).parent != Path.cwd()


def _values(name: str, *, package: bool) -> dict[str, str]:
    """Return what the placeholders of the templates stand for."""
    module = f"bts_exporter_{name}"
    source = f'.parents[1] / "src" / "{module}"' if package else f'.with_name("{name}.py")'
    return {
        "NAME": name,
        "CLASS": "".join(word.capitalize() for word in name.split("_")),
        "MODULE": module,
        "PROJECT": f"bts-exporter-{name.replace('_', '-').strip('-')}",
        "API": API_VERSION,
        "VERSION": bts_exporter.__version__,
        "NOQA": "" if package else _NOQA,
        "SOURCE": source,
    }


def _template(name: str) -> str:
    if not name:
        return ""
    return (files(bts_exporter) / "collector_templates" / f"{name}.in").read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], text)


def _next_steps(values: dict[str, str], *, package: bool) -> str:
    name = values["NAME"]
    if package:
        steps = f"""
  cd {values["PROJECT"]}
  pip install --editable '.[dev]'
  pytest
  bts-exporter run-collector src/{values["MODULE"]} --set path=. --watch"""
    else:
        steps = f"""
  bts-exporter run-collector {name}.py --set path=. --watch
  python3 -m pytest test_{name}.py
  sudo install -D -m 644 {name}.py /etc/bts-exporter/plugins/{name}.py"""
    return f"\nNext:{steps}"
