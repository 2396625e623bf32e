"""Makes texts from outside safe for a terminal or a page: control characters are escaped."""

from __future__ import annotations

import sys


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with every character that cannot be seen as an escape such as \x1b.

    `lines` keeps line ends and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(_shown(character, kept) for character in text)


def on_terminal() -> bool:
    """Return whether standard output is a terminal; it may be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def _shown(character: str, kept: str) -> str:
    if character.isprintable() or character in kept:
        return character
    return character.encode("unicode_escape").decode()
