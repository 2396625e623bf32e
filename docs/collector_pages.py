"""Writes the tables of the reference: `make collector-pages`.

The page of each collector gets its settings and metrics, docs/reference.md those of the exporter itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bts_exporter.collection.registry import Registry
from bts_exporter.flags import build_parser
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import Collector
from bts_exporter.self_metrics import DECLARED
from bts_exporter.settings.descriptions import comments_of, summary_of
from bts_exporter.settings.example import as_yaml, block_in, described
from bts_exporter.settings.field_types import Key, arms_of, bare, keys_of, list_type, map_types
from bts_exporter.settings.loader import Common, TopLevel

DOCS = Path(__file__).parent
#: The package whose collectors have pages here.
OURS = "bts_collectors"
_MARK = "<!-- {}: written by `make collector-pages` -->"
_SHARED = "../reference.md#settings-of-every-collector"
_NEW = """\
# {title}

{summary}

"""


def pages(docs: Path) -> dict[Path, str]:
    """Return the text of each page with generated parts, by its path below `docs`."""
    found = {Path("reference.md"): _with_parts(docs / "reference.md", "", _reference())}
    registry = Registry(docs / "no-plugins")
    for name in registry.names():
        cls = registry.load(name)
        if cls.__module__.partition(".")[0] == OURS:
            path = Path("collectors") / f"{name}.md"
            new = _NEW.format(title=name, summary=summary_of(cls))
            found[path] = _with_parts(docs / path, new, _of_collector(name, cls))
    return found


def _of_collector(name: str, cls: type[Collector]) -> dict[str, list[str]]:
    return {
        "All settings": [
            f"[Every collector]({_SHARED}) has further settings than those of `{name}`.",
            "",
            *_settings(cls.Config),
        ],
        "All metrics": [
            "`bts-exporter metrics` prints them, too. `{field}` stands for a name that the source gives."
            if any(isinstance(metric, Template) for metric in cls.declared())
            else "`bts-exporter metrics` prints them, too.",
            "",
            *_metrics(cls.declared()),
        ],
    }


def _reference() -> dict[str, list[str]]:
    return {
        "Settings of the file": _settings(TopLevel),
        "Settings of every collector": _settings(Common),
        "Metrics of the exporter": _metrics(iter(DECLARED)),
        "Flags and commands": _flags(build_parser()),
    }


def _with_parts(page: Path, new: str, parts: dict[str, list[str]]) -> str:
    """Return the text of a page with these parts in place of its former ones, or at its end."""
    text = page.read_text() if page.exists() else new
    for title, lines in parts.items():
        begin, end = _MARK.format(f"begin {title}"), _MARK.format(f"end {title}")
        part = "\n".join([begin, f"## {title}", "", *lines, end])
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{part}{rest.partition(end)[2]}"
        else:
            text = f"{text.rstrip()}\n\n{part}\n"
    return text


def _settings(kind: Any) -> list[str]:
    rows = [
        f"| `{path}` | {_cell(form)} | {_cell(default)} | {_cell(text)} |"
        for path, form, default, text in _rows(kind, "", ())
    ]
    return ["| setting | type | default | description |", "|---|---|---|---|", *rows]


def _rows(kind: Any, prefix: str, outer: tuple[Any, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, type, default and description of each key, and of the keys in it."""
    for key in keys_of(kind) or ():
        inner = block_in(key.kind)
        text = comments_of(kind).get(key.name, "") or (summary_of(inner) if inner else "")
        around = _around(key.kind) if inner else ""
        form = {"": "block", "[]": "list of blocks", ".NAME": "blocks by name"}[around]
        form = form if inner else described(key.kind)[0]
        yield f"{prefix}{key.key}", form, _default(key), text
        if inner is not None and inner not in outer:
            yield from _rows(inner, f"{prefix}{key.key}{around}.", (*outer, inner))


def _around(kind: Any) -> str:
    """Return how the keys of a block are reached: in a list, by a name, or at once."""
    kind = bare(kind)[0]
    kinds = [kind, *(bare(arm)[0] for arm in arms_of(kind))]
    if any(list_type(each) for each in kinds):
        return "[]"
    return ".NAME" if any(map_types(each) for each in kinds) else ""


def _default(key: Key) -> str:
    if key.required:
        return "required"
    shown = as_yaml(key.default)
    return "" if shown is None else f"`{shown}`"


def _metrics(declared: Iterator[Metric | Template]) -> list[str]:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {_cell(metric.help)} |"
        for metric in declared
    ]
    return ["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    rows = [*_rows_of(parser, "")]
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # as above
            helps = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001
            for name, command in action.choices.items():
                rows.append(f"| `{name}` | {_cell(helps[name])} |")
                rows += [row for row in _rows_of(command, f"{name} ") if row not in rows]
    return ["| flag or command | meaning |", "|---|---|", *rows]


def _rows_of(parser: argparse.ArgumentParser, prefix: str) -> Iterator[str]:
    shared = {"--config.file", "--log.level", "--log.format", "-h"} if prefix else {"-h"}
    for action in parser._actions:  # noqa: SLF001  # as above
        if isinstance(action, argparse._SubParsersAction) or shared & {*action.option_strings}:  # noqa: SLF001
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        yield f"| `{prefix}{names}` | {_cell(action.help or 'collector type (default: all)')} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def main() -> int:
    """Write the pages; name those that changed."""
    for path, text in pages(DOCS).items():
        page = DOCS / path
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
            sys.stdout.write(f"docs/{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
