"""YAML with locations: the line of every value, and secrets from files and variables."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bts_exporter.errors import ConfigError, Problem
from bts_exporter.settings.literals import mistake_in
from bts_exporter.settings.yaml_errors import TEMPLATE, explain

#: A key or an index for each step into the document.
Path_ = tuple[str | int, ...]


#: A line that begins with a key.
_KEY = re.compile(r"\s*(?:- )?[\w-]+:(?:\s|$)")
#: More than any settings have, and soon counted.
_MAX_VALUES = 100_000
#: Bytes of a settings file; one with `_MAX_VALUES` values has fewer.
_MAX_BYTES = 16 * 1024 * 1024
#: Bytes of a file with a secret.
_MAX_SECRET_BYTES = 1024 * 1024


class Hidden(str):
    """A string from outside the file, which may be a secret: messages do not quote it."""

    __slots__ = ("reread",)

    #: Reads it once more from where it came from; OSError, LookupError or ValueError if that fails.
    reread: Callable[[], str]

    def __repr__(self) -> str:
        return "<hidden>"


#: Stands for a value that the document does not give; its problems say why.
UNREADABLE: Any = object()


class Document:
    """A file's content as plain values, and the location of each."""

    def __init__(
        self,
        file: str,
        text: str,
        before_reading: Callable[[Path], None] | None = None,
        max_values: int = _MAX_VALUES,
    ) -> None:
        """Parse `text`; ConfigError if it is not valid YAML.

        What else is wrong with it is in `problems`, and UNREADABLE stands in its place. `before_reading`
        gets the path of each `!file`.
        """
        self.file = file
        self._before_reading = before_reading
        self.problems: list[Problem] = []
        self._lines: dict[Path_, int] = {}
        self._open: set[int] = set()
        self._values = 0
        self._max_values = max_values
        self._text_lines = text.splitlines()
        self._written: dict[int, set[int]] = {}
        self.value = self._parse(text)

    def line(self, path: Path_) -> int | None:
        """Return the line of `path`, or of the block that would contain it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def lines_by_path(self) -> dict[str, int]:
        """Return the line of every value, by its path as messages show it."""
        return {format_path(path): line for path, line in self._lines.items()}

    def at(self, place: str) -> Any:
        """Return the value at a path as messages show it; None if there is none."""
        value = self.value
        for path in self._lines:
            if format_path(path) == place:
                for step in path:
                    value = value[step]
                return value
        return None

    def problem(self, path: Path_, message: str) -> Problem:
        """Return a problem at `path`."""
        return Problem(self.file, self.line(path), format_path(path), message)

    def _parse(self, text: str) -> Any:
        try:
            self._loader = yaml.SafeLoader(text)
            node = self._loader.get_single_node()
            return None if node is None else self._build(node, ())
        except yaml.MarkedYAMLError as error:
            line, words = explain(error, text)
            raise ConfigError([Problem(self.file, line, "", f"not YAML: {words}")]) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            message = f"not YAML: it cannot hold the character {error.character:#x}"
            raise ConfigError([Problem(self.file, line, "", message)]) from error
        except RecursionError as error:
            raise ConfigError([Problem(self.file, None, "", "nested too deeply")]) from error

    def _build(self, node: yaml.Node, path: Path_) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._count(1)
        if id(node) in self._open:
            self.problems.append(self.problem(path, "an alias of what it stands in"))
            return UNREADABLE
        if node.tag in _TAGS and not isinstance(node, yaml.ScalarNode):
            self.problems.append(self.problem(path, f"{node.tag} takes one name"))
        elif node.tag not in _TAGS and node.tag not in _YAML_TAGS:
            self.problems.append(self.problem(path, f"unknown tag; {_TAGS_KNOWN}"))
            return UNREADABLE
        self._open.add(id(node))
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, path)
                case yaml.SequenceNode():
                    return [self._build(item, (*path, i)) for i, item in enumerate(node.value)]
                case _:
                    return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _count(self, values: int) -> None:
        # Aliases of aliases: a few lines can stand for more than fits into memory.
        self._values += values
        if self._values > self._max_values:
            message = f"more than {self._max_values} values, aliases written out"
            raise ConfigError([Problem(self.file, None, "", message)])

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> Any:
        # As it was before keys were merged in, also where an alias leads here again.
        written = self._written.setdefault(id(node), {id(key) for key, _ in node.value})
        self._loader.flatten_mapping(node)  # merge keys: <<
        self._count(len(node.value))
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        unreadable = False
        own: set[str] = set()
        # Merged keys come first and are overridden by the keys of the block itself.
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                message = f"a key must be a plain text; {TEMPLATE}"
                self.problems.append(self.problem(path, message))
                unreadable = True
                continue
            if wrong := mistake_in(key_node.value, plain=key_node.style is None, key=True):
                line = key_node.start_mark.line + 1
                self.problems.append(Problem(self.file, line, format_path(path), wrong))
                continue
            key = str(self._construct(key_node, path))
            here = (*path, key)
            if id(key_node) in written:
                self._lines[here] = key_node.start_mark.line + 1
                if key in own:
                    self.problems.append(self.problem(here, "given twice"))
                own.add(key)
            pairs[key] = key_node, value_node
        # A block that merges this one must not see overridden keys: of two keys of one letter PyYAML
        # 6.0.4 takes the first.
        node.value = list(pairs.values())
        built = {key: self._build(value, (*path, key)) for key, (_, value) in pairs.items()}
        return UNREADABLE if unreadable else built

    def _construct(self, node: yaml.Node, path: Path_) -> Any:
        # YAML 1.1 would read 1:30 as 90, in base 60; the type of the setting decides.
        # So is whether a date is meant, or a text such as 2026-11-30.
        if node.tag in _TEXTS or (node.tag in _NUMBERS and ":" in node.value):
            return node.value
        try:
            return self._loader.construct_object(node, deep=True)
        except (AttributeError, ArithmeticError, LookupError, ValueError):
            # Invalid numbers and dates, such as 0x_ and 2026-13-01.
            kind = node.tag.rpartition(":")[2]
            message = f"is not a valid YAML {kind}: put it in quotes"
            self.problems.append(self.problem(path, message))
            return UNREADABLE

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        resolve = _TAGS.get(node.tag)
        if resolve is None:
            wrong = mistake_in(str(node.value), plain=getattr(node, "style", "") is None)
            if wrong := wrong or self._swallowed(node) or self._cut_off(node, path):
                self.problems.append(self.problem(path, wrong))
                return UNREADABLE
            return self._construct(node, path)
        if node.tag == "!file" and self._before_reading is not None:
            self._before_reading(Path(self.file).parent / str(node.value))
        reread = partial(_filled, resolve, str(node.value), self.file)
        try:
            hidden = Hidden(reread())
        except (LookupError, OSError, ValueError) as error:
            reason = error.args[0]
            if isinstance(error, OSError):
                reason = f"{error.filename}: {error.strerror}"
            self.problems.append(self.problem(path, f"{node.tag} {node.value}: {reason}"))
            return UNREADABLE
        hidden.reread = reread
        return hidden

    def _swallowed(self, node: yaml.Node) -> str | None:
        """Return the problem of a quoted text that contains keys of other lines."""
        first, last = node.start_mark.line + 1, node.end_mark.line + 1
        if getattr(node, "style", None) in {"'", '"'} and any(
            _KEY.match(line) for line in self._text_lines[first:last]
        ):
            return f"the quote that opens in this line goes on to line {last}: close it here"
        return None

    def _cut_off(self, node: yaml.Node, path: Path_) -> str | None:
        """Return the problem of an unquoted password that is cut off at a `#`."""
        end = node.end_mark
        if path[-1:] == ("password",) and getattr(node, "style", "") is None:
            lines = self._text_lines[end.line : end.line + 1]
            if lines and re.match(r"\s+#\S", lines[0][end.column :]):
                return (
                    "it ends before #, which begins a comment: put it in quotes, or a space after #"
                )
        return None


def read(path: Path, max_values: int = _MAX_VALUES) -> Document:
    """Return the document in the file `path`; ConfigError when it cannot be read."""
    try:
        content = _read_regular(path, _MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(str(path), None, "", message)]) from error
    except _NotRegularError as error:
        message = f"{error}; copy the settings into a file"
        raise ConfigError([Problem(str(path), None, "", message)]) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError([Problem(str(path), None, "", f"larger than {_MAX_BYTES} bytes")])
    return parse(str(path), content, max_values=max_values)


def parse(
    file: str,
    content: bytes,
    before_reading: Callable[[Path], None] | None = None,
    max_values: int = _MAX_VALUES,
) -> Document:
    """Return the document that is the `content` of `file`; ConfigError if it is not YAML."""
    try:
        return Document(file, content.decode("utf-8"), before_reading, max_values)
    except UnicodeDecodeError as error:
        message = f"not UTF-8 at byte {error.start}: save it as UTF-8"
        raise ConfigError([Problem(file, None, "", message)]) from error


class _NotRegularError(Exception):
    """A path leads to a device, a pipe or a socket."""


def _read_regular(path: Path, most: int) -> bytes:
    """Return up to `most` bytes of `path`; _NotRegularError if it is a device, a pipe or a socket.

    Those are not opened: a pipe without a writer blocks, and opening some devices has effects.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() reports a directory
        msg = "not a regular file"
        raise _NotRegularError(msg)
    with open(path, "rb", opener=_open_without_waiting) as file:
        return file.read(most)


def _open_without_waiting(path: str, flags: int) -> int:
    # The file may have been replaced by a pipe since it was checked.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def format_path(path: Path_) -> str:
    """Return a path as messages show it: `collectors.redis[0].url`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _filled(resolve: Callable[[str, str], str], name: str, file: str) -> str:
    text = resolve(name, file)
    if not text.strip():
        msg = "it is empty"
        raise ValueError(msg)
    return text


def _from_environment(name: str, _file: str) -> str:
    try:
        # As of a file, the end of the last line is left out: secrets are often made by `echo`.
        return os.environ[name].rstrip("\r\n")
    except KeyError:
        msg = "no such environment variable"
        if name.startswith("$"):
            msg += f"; write only the name: !env {name.strip('${}()')}"
        raise LookupError(msg) from None


def _from_file(name: str, file: str) -> str:
    # Relative to the settings, so that a configuration can be moved as a whole.
    return _content(Path(file).parent / name)


def _from_credential(name: str, _file: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        msg = (
            f"no CREDENTIALS_DIRECTORY: run as a systemd service with LoadCredential={name}:PATH,"
            " or set the variable to the folder that holds the file"
        )
        raise LookupError(msg)
    if "/" in name or name in {"", ".", ".."}:
        msg = "the name of a credential must not contain a slash"
        raise ValueError(msg)
    return _content(Path(folder) / name)


def _content(path: Path) -> str:
    """Return the text of a secret's file."""
    try:
        content = _read_regular(path, _MAX_SECRET_BYTES + 1)
    except _NotRegularError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from None
    if len(content) > _MAX_SECRET_BYTES:
        msg = f"{path}: larger than {_MAX_SECRET_BYTES} bytes"
        raise ValueError(msg)
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        msg = "not UTF-8"
        raise ValueError(msg) from None


#: The YAML types of the plain values `=` and `<<`, which are kept as strings.
_SIGNS = frozenset({"tag:yaml.org,2002:value", "tag:yaml.org,2002:merge"})
_TEXTS = _SIGNS | {"tag:yaml.org,2002:timestamp"}
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_YAML_TAGS = _SIGNS.union(yaml.SafeLoader.yaml_constructors)
_TAGS_KNOWN = "there are !env, !file and !credential (text that begins with ! needs quotes)"
_TAGS: dict[str, Callable[[str, str], str]] = {
    "!env": _from_environment,
    "!file": _from_file,
    "!credential": _from_credential,
}
