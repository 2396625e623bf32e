"""Explains YAML syntax errors: the line to change, and the fix.

No message quotes more of the text than one character: it may hold passwords.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import yaml

_TAB = "indent with spaces: YAML allows no tab here"
_INDENT = "the indentation fits no line above: keys of one block begin in the same column"
#: What to say of `{{ name }}`.
TEMPLATE = (
    "this looks like a template that was not rendered ({{ }} or {% %});"
    " values from the environment are !env NAME"
)
_BULLETS = "–—−•*"  # noqa: RUF001  # bullets and dashes instead of a hyphen
_LIST_ITEM = re.compile(rf"\s*[{re.escape(_BULLETS)}]\s")
#: A variable as written in shells and compose files; a key and the beginning of its value.
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)")
_KEY_BEFORE = re.compile(r"([\w-]+):[ \t]+([^\s,{}\[\]]*)\Z")
_NAMED = re.compile(r"\b(alias|anchor|tag handle) '.*?'")


class Explained(NamedTuple):
    """A syntax error, and the line to change."""

    line: int | None
    message: str


def explain(error: yaml.MarkedYAMLError, text: str) -> Explained:
    """Explain the `error` that the parser found in `text`."""
    line = error.problem_mark.line + 1 if error.problem_mark else None
    words = " ".join(filter(None, [error.context, error.problem]))
    # What YAML takes for a name may be a password that begins with its sign.
    words = _NAMED.sub(r"\1 (text that begins with its sign needs quotes)", words)
    if error.problem_mark is None:
        return Explained(line, words)
    lines = text.splitlines()
    for pattern, cure in _CURES:
        if match := re.search(pattern, words):
            found = cure(_Case(text, lines, error, error.problem_mark, match))
            if found is not None:
                return found if found.line else Explained(line, f"{words}; {found.message}")
    return Explained(line, words)


class _Case(NamedTuple):
    text: str
    lines: list[str]
    error: yaml.MarkedYAMLError
    mark: yaml.Mark
    match: re.Match[str]

    @property
    def own(self) -> str:
        """The line in which the parser stopped."""
        return self.lines[self.mark.line] if self.mark.line < len(self.lines) else ""


def _says(message: str) -> Callable[[_Case], Explained | None]:
    return lambda _: Explained(None, message)


def _open_quote(case: _Case) -> Explained | None:
    """Find where a quote opened: one that is not closed goes on to the next quote, or to the end."""
    opened = case.error.context_mark
    if "quoted scalar" in case.match[0]:
        message = "the quote that opens in this line is not closed"
        return Explained(opened.line + 1, message) if opened else None
    long = [
        token
        for token in _tokens(case.text)
        if isinstance(token, yaml.ScalarToken)
        and token.style in {"'", '"'}
        and token.start_mark.line < token.end_mark.line
    ]
    if not long:
        return None
    closed = long[-1].end_mark.line + 1
    message = f"the quote that opens in this line is closed only by the next one, in line {closed}"
    return Explained(long[-1].start_mark.line + 1, message)


def _open_bracket(case: _Case) -> Explained | None:
    brackets: list[yaml.Token] = []
    for token in _tokens(case.text):
        if isinstance(token, yaml.FlowMappingStartToken | yaml.FlowSequenceStartToken):
            brackets.append(token)
        elif brackets and isinstance(token, yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken):
            brackets.pop()
    if not brackets:
        return Explained(None, "a comma is missing, or text needs quotes; a comment begins with #")
    opened = brackets[-1].start_mark
    sign = case.text[opened.index]
    close = "}" if sign == "{" else "]"
    where = "" if opened.line == case.mark.line else f", and line {case.mark.line + 1} goes on"
    message = (
        f"the {sign} that opens in this line is not closed by {close}, or a comma is missing{where};"
        f" text that begins with {sign} needs quotes"
    )
    return Explained(opened.line + 1, message)


def _variable_in_brackets(case: _Case) -> Explained | None:
    """Explain `{password: ${NAME}}`: the parser stops at the brace of the variable."""
    index = case.mark.index
    variable = _VARIABLE.match(case.text, index - 1) if index else None
    if variable is None:
        return None
    before = _KEY_BEFORE.search(case.lines[case.mark.line][: case.mark.column - 1])
    key, text = before.groups() if before else ("", "")
    cure = f"write {key}: !env {variable[1]}" if key else f"write !env {variable[1]}"
    if "://" in text:
        cure = f"leave the password out of the address and write password: !env {variable[1]}"
    where = f"{key}: " if key else ""
    message = f"{where}variables such as ${{{variable[1]}}} are not replaced; {cure}"
    return Explained(case.mark.line + 1, message)


def _mapping_values(case: _Case) -> Explained | None:
    """Find why a colon is not a key's: it is part of a value, or the line above is not complete."""
    if re.search(r":\s", case.own[: case.mark.column]):
        return Explained(None, "text that holds ': ' needs quotes")
    number, above = _line_above(case)
    if not above:
        return None
    if _LIST_ITEM.match(above):
        return Explained(number, "a list item begins with a hyphen and a space: - name: a")
    if not re.search(r":(\s|$)", above):
        return Explained(number, "this line needs a colon and a space: key: value")
    message = f"this line is indented deeper than line {number}, whose key has a value already"
    return Explained(case.mark.line + 1, f"{message}; begin both in the same column")


def _line_above(case: _Case) -> tuple[int, str]:
    """Return number and text of the line before, comments left out."""
    for number in range(case.mark.line, 0, -1):
        line = case.lines[number - 1]
        if line.strip() and not line.lstrip().startswith("#"):
            return number, line
    return 0, ""


def _no_colon(case: _Case) -> Explained | None:
    begun = case.error.context_mark
    return Explained(begun.line + 1, "a key needs a colon behind it: key:") if begun else None


def _forbidden(case: _Case) -> Explained:
    sign = case.match[1]
    if "{%" in case.own or "{{" in case.own:
        return Explained(None, TEMPLATE)
    return Explained(None, f"text that begins with {sign} needs quotes")


def _misplaced(case: _Case) -> Explained | None:
    what = case.match[1]
    if what == "-":
        return Explained(None, "a list item among keys: a block is a list or a map, not both")
    if what in {"?", "<block mapping start>", "<block sequence start>"}:
        item = case.error.context == "while parsing a block collection"
        below = "; keys of a list item stand in the column of its first key, right of the hyphen"
        return Explained(None, _INDENT + (below if item else ""))
    if what in {"}", "]"}:
        return Explained(None, f"this {what} closes nothing")
    cure = "a space is missing behind the colon, or a value goes on behind its closing quote"
    return Explained(None, cure)


def _tokens(text: str) -> Iterator[yaml.Token]:
    """Yield the tokens of `text` up to the error."""
    with suppress(yaml.YAMLError):
        yield from yaml.scan(text, Loader=yaml.SafeLoader)


_CURES: tuple[tuple[str, Callable[[_Case], Explained | None]], ...] = (
    (r"found character '\\t'", _says(_TAB)),
    (r"found character '(.)'", _forbidden),
    (r"expected ',' or .*'\{'", _variable_in_brackets),
    (r"quoted scalar found unexpected (?:end|document)", _open_quote),
    (r"expected (?:<block end>|',' or)", _open_quote),
    (r"scanning an alias|undefined alias", _says('text that begins with * needs quotes: "*"')),
    (r"expected ',' or", _open_bracket),
    (r"expected the node content, but found '<", _open_bracket),
    (r"expected the node content, but found '(.*?)'", _forbidden),
    (r"mapping values are not allowed", _mapping_values),
    (r"could not find expected ':'", _no_colon),
    (r"expected <block end>, but found '(.*?)'", _misplaced),
    (r"unknown escape", _says("in double quotes \\ begins an escape: use single quotes")),
    (r"scanning a block scalar", _says("text that begins with | or > needs quotes")),
    (r"another document|<document start>", _says("the file must be one document: one map of keys")),
)
