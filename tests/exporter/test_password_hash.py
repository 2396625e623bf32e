from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator

import bcrypt
import pytest

from bts_exporter.errors import ExporterError
from bts_exporter.password_hash import hash_password


class Terminal:
    """Standard input that is a terminal, where a user enters `words`."""

    def __init__(self, *words: str) -> None:
        self._words: Iterator[str] = iter(words)

    def isatty(self) -> bool:
        """Say that it is one."""
        return True

    def enter(self, _: str) -> str:
        """Return the next word; EOFError when the user ends the input."""
        try:
            return next(self._words)
        except StopIteration:
            raise EOFError from None


def entered(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Have a user enter `words`."""
    terminal = Terminal(*words)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(getpass, "getpass", terminal.enter)


def test_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the password is entered twice, without being shown."""
    entered(monkeypatch, "zoë", "zoë")
    assert hash_password(4) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("$2b$04$")
    assert bcrypt.checkpw("zoë".encode(), printed.encode())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "b"), "differ"),
        ((), "no password"),
        (("a",), "no password"),
        (("", ""), "from 1 to 72"),
    ],
)
def test_mistakes(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str) -> None:
    """Different entries, an empty one, and an end of the input are errors."""
    entered(monkeypatch, *words)
    with pytest.raises(ExporterError, match=message):
        hash_password(4)
