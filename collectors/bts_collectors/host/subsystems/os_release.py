"""The subsystem `os`: name, version and end of support of the distribution (`os` is a standard module)."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

from bts_collectors.host.kernel.files import errors_in, read, text, unexpected_content
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_LABELS = (
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
)
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?(?![0-9])")
#: A part of a value in shell syntax: 'literal', "with escapes", an escaped character, other characters, spaces.
_PART = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\\s]+)|(\s+)""")
_ESCAPE = re.compile(r"""\\([\\"$`])""")
_FIELD = re.compile(r"[A-Za-z0-9_]+")


class OperatingSystem(Subsystem):
    """Distribution from /etc/os-release, else /usr/lib/os-release."""

    name = "os"

    info = gauge(
        "node_os_info",
        "A metric with a constant '1' value, labelled by the fields of os-release.",
        _LABELS,
    )
    version = gauge(
        "node_os_version",
        "Version as a number, major.minor (os-release, VERSION_ID).",
        ("id", "id_like", "name"),
    )
    support_end = gauge(
        "node_os_support_end_timestamp_seconds",
        "End of support in Unix time (os-release, SUPPORT_END).",
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        root = config.rootfs.rstrip("/")
        self._paths = (f"{root}/etc/os-release", f"{root}/usr/lib/os-release")
        self._content: bytes | None = None
        self._fields: dict[str, str] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the distribution, and its version and end of support if the file has them."""
        fields = self._current()
        scrape.emit(self.info, 1, *(fields.get(label, "") for label in _LABELS))
        version = _NUMBER.match(fields.get("version_id", ""))
        if version:
            labels = (fields.get(label, "") for label in self.version.labels)
            scrape.emit(self.version, float(version[0]), *labels)
        try:
            end = datetime.strptime(fields.get("support_end", ""), "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            return
        scrape.emit(self.support_end, end.timestamp())

    def _current(self) -> dict[str, str]:
        """Return the fields, which are parsed only when the file changes: on an upgrade."""
        for path in self._paths:
            with suppress(NotPresent):
                content = read(path)
                if content != self._content:
                    with errors_in(path):
                        self._fields = parse(content)
                    self._content = content
                return self._fields
        msg = f"{' and '.join(self._paths)} are absent"
        raise NotPresent(msg)


def parse(content: bytes) -> dict[str, str]:
    """Return the fields by their names in lower case; ValueError if there are none.

    Lines without an assignment, such as comments, are skipped.
    """
    fields = {}
    for line in text(content).split("\n"):
        name, assigned, value = line.strip().partition("=")
        if assigned and _FIELD.fullmatch(name):
            fields[name.lower()] = _unquoted(value)
    if not fields:
        raise unexpected_content(content)
    return fields


def _unquoted(value: str) -> str:
    """Return a value as a shell would read it; unchanged if its syntax is invalid."""
    read, end = [], 0
    for found in _PART.finditer(value):
        literal, escaped, character, plain, space = found.groups()
        if found.start() != end:
            return value  # an unclosed quotation mark, or a backslash at the end
        if plain is not None and plain.startswith("#") and value[end - 1 : end].isspace():
            break  # a comment
        if escaped is not None:
            escaped = _ESCAPE.sub(r"\1", escaped)
        read.append(literal or escaped or character or plain or (" " if space else ""))
        end = found.end()
    else:
        if end != len(value):
            return value
    return "".join(read).rstrip(" ")


COLLECTOR = OperatingSystem
