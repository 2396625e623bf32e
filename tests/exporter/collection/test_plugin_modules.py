"""Plug-ins that consist of several files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError
from bts_exporter.plugin import Collector
from bts_exporter.testing import collect
from stubs import drop_in

#: A collector whose value comes from another file, given the line that imports `VALUE`.
IMPORTING = """\
{line}
from bts_exporter import Collector, gauge

class Thing(Collector):
    value = gauge("thing_value", "A value.")

    def collect(self, scrape):
        scrape.emit(self.value, VALUE)
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write the files of a plug-in folder, which only we can write to."""
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        path.chmod(0o644)
    for path in (folder, *folder.rglob("*/")):
        path.chmod(0o755)
    return folder


def value_of(cls: type[Collector]) -> float:
    """Return the value that a collector emits."""
    [samples] = collect(cls(cls.Config())).values()
    return samples[()]


def problem_with(folder: Path, name: str) -> str:
    """Return why a type cannot be loaded."""
    with pytest.raises(PluginError) as caught:
        Registry(folder).load(name)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the path of the plug-in folder."""
    return tmp_path / "plugins"


# Sharing code


def test_package_is_one_plugin(folder: Path) -> None:
    """A folder with __init__.py is a type; its modules import each other, on any level."""
    write(
        folder,
        {
            "thing/__init__.py": "from .collector import Thing\n",
            "thing/collector.py": IMPORTING.format(line="from .client.values import VALUE"),
            "thing/client/__init__.py": "",
            "thing/client/values.py": "from ..numbers_of_ours import VALUE\n",
            "thing/numbers_of_ours.py": "VALUE = 7\n",
        },
    )

    registry = Registry(folder)

    assert registry.source("thing") == str(folder / "thing")
    assert value_of(registry.load("thing")) == 7


@pytest.mark.parametrize(
    "line",
    [
        "from ._values import VALUE",
        "from . import _values\nVALUE = _values.VALUE",
        "from ._more.values import VALUE",
    ],
)
def test_files_share_a_file(folder: Path, line: str) -> None:
    """Plug-ins import a file or package whose name begins with _, which is no plug-in itself."""
    write(
        folder,
        {
            "one.py": IMPORTING.format(line=line),
            "two/__init__.py": IMPORTING.format(line=line.replace("from .", "from ..", 1)),
            "_values.py": "VALUE = object()\n",
            "_more/__init__.py": "",
            "_more/values.py": "VALUE = object()\n",
        },
    )
    registry = Registry(folder)

    shared = [vars(sys.modules[registry.load(name).__module__])["VALUE"] for name in ("one", "two")]

    assert shared[0] is shared[1]
    assert {"_values", "_more"}.isdisjoint(registry.names())


def test_modules_of_the_same_name(folder: Path) -> None:
    """Two plug-ins can have a module of the same name, and that of a standard module or a plug-in."""
    files = {}
    for number, name in enumerate(("one", "two", "json")):
        files[f"{name}/__init__.py"] = IMPORTING.format(
            line=f"import json\njson.dumps(1)\nfrom .client import VALUE\nfrom .{name} import LIST"
        )
        files[f"{name}/client.py"] = f"VALUE = {number}\n"
        files[f"{name}/{name}.py"] = "LIST = []\n"
    registry = Registry(write(folder, files))

    assert [value_of(registry.load(name)) for name in ("one", "two", "json")] == [0, 1, 2]


def test_same_name_in_another_folder(tmp_path: Path) -> None:
    """Plug-ins of two folders do not meet either, although one process may have both."""
    folders = [
        write(
            tmp_path / str(number),
            {
                "thing.py": IMPORTING.format(line="from ._values import VALUE"),
                "_values.py": f"VALUE = {number}\n",
            },
        )
        for number in range(2)
    ]

    assert [value_of(Registry(folder).load("thing")) for folder in folders] == [0, 1]


def test_import_during_a_collection(folder: Path) -> None:
    """A module that is imported by a collection is the one of the time when the plug-in was loaded."""
    source = IMPORTING.format(line="").replace(
        "        scrape.emit", "        from .late import VALUE\n        scrape.emit"
    )
    write(folder, {"thing/__init__.py": source, "thing/late.py": "VALUE = 1\n"})
    cls = Registry(folder).load("thing")

    (folder / "thing" / "late.py").write_text("VALUE = 2\n")

    assert value_of(cls) == 1


def test_file_that_was_not_there_when_the_plugin_was_loaded(folder: Path) -> None:
    """A module that nothing has checked is not imported, and a package without __init__.py is none."""
    source = IMPORTING.format(line="").replace(
        "        scrape", "        from . import late\n        scrape"
    )
    write(folder, {"thing/__init__.py": source, "thing/late/x.py": ""})
    cls = Registry(folder).load("thing")
    (folder / "thing" / "late.py").touch()

    with pytest.raises(ImportError, match="late"):
        value_of(cls)


def test_import_without_a_dot(folder: Path) -> None:
    """The error about an import that lacks its dot says so."""
    write(folder, {"thing.py": "import _values\n", "_values.py": "", "two/__init__.py": "import client\n", "two/client.py": ""})  # fmt: skip

    assert problem_with(folder, "thing").endswith(
        f"No module named '_values' ({folder}/thing.py:1); "
        "a file next to it is imported with a dot: from . import _values"
    )
    assert problem_with(folder, "two").endswith("from . import client")


# Reloading


@pytest.mark.parametrize("changed", ["thing/values.py", "_deeper.py"])
def test_change_of_any_file_is_a_change_of_the_plugin(folder: Path, changed: str) -> None:
    """A plug-in is executed again if any of its files changed, also one that another file imports."""
    files = {
        "thing/__init__.py": IMPORTING.format(line="from .values import VALUE"),
        "thing/values.py": "from .._shared import VALUE\n",
        "_shared.py": "from ._deeper import VALUE\n",
        "_deeper.py": "VALUE = 1\n",
        "other.py": IMPORTING.format(line="VALUE = 5"),
    }
    write(folder, files)
    before, other = Registry(folder).load("thing"), Registry(folder).load("other")
    assert Registry(folder).load("thing") is before

    (folder / changed).write_text("VALUE = 2\n")

    assert value_of(Registry(folder).load("thing")) == 2
    assert Registry(folder).load("other") is other


def test_shared_file_changes_all_plugins_that_use_it(folder: Path) -> None:
    """Both plug-ins have the new version, and one object of it."""
    line = "from ._values import VALUE"
    write(folder, {"one.py": IMPORTING.format(line=line), "two.py": IMPORTING.format(line=line), "_values.py": "VALUE = 1\n"})  # fmt: skip
    for name in ("one", "two"):
        Registry(folder).load(name)
    (folder / "_values.py").write_text("VALUE = object()\n")

    registry = Registry(folder)
    found = [vars(sys.modules[registry.load(name).__module__])["VALUE"] for name in ("one", "two")]

    assert found[0] is found[1]
    assert found[0] != 1


def test_new_version_that_is_broken(folder: Path) -> None:
    """The version in use can still import its modules after a new one failed; the next one is used."""
    late = IMPORTING.format(line="").replace(
        "        scrape.emit", "        from .late import VALUE\n        scrape.emit"
    )
    write(folder, {"thing/__init__.py": late, "thing/late.py": "VALUE = 1\n"})
    write(folder, {"other.py": IMPORTING.format(line="VALUE = 5")})
    before, other = Registry(folder).load("thing"), Registry(folder).load("other")

    (folder / "thing" / "__init__.py").write_text(f"from . import late\n1/0\n{late}")
    assert "ZeroDivisionError" in problem_with(folder, "thing")
    assert value_of(before) == 1
    assert Registry(folder).load("other") is other

    (folder / "thing" / "__init__.py").write_text(late.replace("VALUE)", "VALUE + 1)"))
    assert value_of(Registry(folder).load("thing")) == 2


# Errors


def test_error_names_the_file_of_the_package(folder: Path) -> None:
    """An error at import has file and line of the plug-in's code, wherever it was raised."""
    write(
        folder,
        {
            "thing/__init__.py": "from . import client\n",
            "thing/client.py": "import json\n\njson.loads('{')\n",
            "typo/__init__.py": "from . import client\n",
            "typo/client.py": "\ndef f(:\n",
        },
    )

    assert problem_with(folder, "thing").endswith(f"({folder}/thing/client.py:3)")
    assert problem_with(folder, "typo").endswith(
        f"SyntaxError: invalid syntax ({folder}/typo/client.py:2)"
    )


def test_file_and_package_of_the_same_name(folder: Path) -> None:
    """Two plug-ins of one name are an error that names both."""
    write(folder, {"thing.py": "", "thing/__init__.py": ""})

    assert f"{folder}/thing and {folder}/thing.py: remove one of them" in problem_with(
        folder, "thing"
    )


# Ownership


@pytest.mark.parametrize(
    "file", ["thing/__init__.py", "thing/client.py", "thing/sub/x.py", "thing/data.json", "_shared.py"]
)  # fmt: skip
def test_every_file_of_a_package_is_checked(folder: Path, file: str) -> None:
    """A file that others can write to makes the whole plug-in unusable, whether it is imported or not."""
    write(
        folder,
        {
            "thing/__init__.py": IMPORTING.format(line="from .._shared import VALUE"),
            "thing/client.py": "",
            "thing/sub/x.py": "",
            "thing/data.json": "{}",
            "_shared.py": "VALUE = 1\n",
        },
    )
    (folder / file).chmod(0o666)

    assert f"{folder / file} is writable by other users (mode 0666)" in problem_with(
        folder, "thing"
    )


@pytest.mark.parametrize("inner", ["thing", "thing/sub"])
def test_every_folder_of_a_package_is_checked(folder: Path, inner: str) -> None:
    """A folder in which others can create files is refused, with the sticky bit too."""
    write(
        folder, {"thing/__init__.py": IMPORTING.format(line="VALUE = 1"), "thing/sub/data.txt": ""}
    )
    (folder / inner).chmod(0o1777)

    assert f"{folder / inner} is writable by other users" in problem_with(folder, "thing")


@pytest.mark.parametrize("link", ["thing", "thing/client.py", "thing/sub", "thing/data.json"])
def test_links_in_a_package_are_refused(folder: Path, tmp_path: Path, link: str) -> None:
    """Neither the package nor anything in it may be a symbolic link."""
    if link == "thing":
        write(tmp_path / "there", {"__init__.py": ""})
        folder.mkdir()
        folder.chmod(0o755)
    else:
        write(folder, {"thing/__init__.py": ""})
        (tmp_path / "there").touch()
    (folder / link).symlink_to(tmp_path / "there")

    assert f"{folder / link} is a symbolic link" in problem_with(folder, "thing")


def test_caches_and_hidden_files_do_not_count(folder: Path) -> None:
    """Files that are never read, such as caches, may have any owner and mode."""
    write(
        folder,
        {
            "thing/__init__.py": IMPORTING.format(line="VALUE = 1"),
            "thing/__pycache__/x.pyc": "",
            "thing/.cache/x": "",
        },
    )
    for path in ("thing/__pycache__", "thing/__pycache__/x.pyc", "thing/.cache"):
        (folder / path).chmod(0o777)

    assert value_of(Registry(folder).load("thing")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="not everywhere: only root can give files away")
def test_file_of_another_user_in_a_package(folder: Path) -> None:
    """A file in a package that belongs to another user is refused."""
    write(folder, {"thing/__init__.py": "", "thing/client.py": ""})
    os.chown(folder / "thing" / "client.py", 12345, -1)

    assert f"{folder}/thing/client.py belongs to user 12345" in problem_with(folder, "thing")


def test_no_descriptor_of_a_package_is_left_open(folder: Path) -> None:
    """Neither a package that is read nor one that is refused keeps a file descriptor."""
    write(folder, {"thing/__init__.py": IMPORTING.format(line="VALUE = 1"), "bad/__init__.py": ""})
    drop_in(folder / "bad", "client").chmod(0o666)
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(3):
        Registry(folder).load("thing")
        problem_with(folder, "bad")

    assert len(list(Path("/proc/self/fd").iterdir())) == before
