"""Mistakes that YAML accepts: syntax of other programs, typographic quotes, invisible characters."""

from __future__ import annotations

import re

from bts_exporter.settings.yaml_errors import TEMPLATE

#: Variables as written in shells, compose files and Kubernetes.
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")
_ALONE = re.compile(
    r"^(?:\$(?!SYS$)(?:\(([A-Za-z_][A-Za-z0-9_]*)\)|([A-Z_][A-Z0-9_]*))"
    r"|[Ee][Nn][Vv][:.]([A-Z_][A-Z0-9_]*))$(?!\n)"
)
_UNRENDERED = re.compile(r"\{\{\s*[A-Za-z0-9_.].*\}\}|\{%.*%\}")
_TAG = re.compile(r"(?:^|[:@/])(!(?:env|file|credential))(?![A-Za-z0-9_])")
#: Matches the texts that `mistake_in` refuses with and without quotes, in Python and in ECMAScript.
REFUSED_TEXT = "|".join(regex.pattern for regex in (_VARIABLE, _ALONE, _UNRENDERED, _TAG))
_QUOTES = "“”„‟‘’‚‛«»‹›´`"  # noqa: RUF001  # typographic ones
#: No-break and zero-width spaces, soft hyphen, marks of direction and byte order.
_INVISIBLE = "\u00a0\u00ad\u2007\u200b\u200c\u200d\u200e\u200f\u202f\u2060\ufeff"


def mistake_in(text: str, *, plain: bool, key: bool = False) -> str | None:
    """Return the problem of a key or a value; `plain` says that it has no quotes.

    Of the text itself only the name of a variable is shown: it may be a password.
    """
    if found := _VARIABLE.search(text) or _ALONE.search(text):
        whole = found[0] == text or "://" in text
        return _variable(next(filter(None, found.groups())) if whole else "NAME", text)
    if _UNRENDERED.search(text):
        return TEMPLATE
    if found := _TAG.search(text):
        return f"{found[1]} works only as the whole value and without quotes: {found[1]} NAME"
    if plain and text[:1] in _QUOTES and text:
        return f"{text[0]} is a typographic quote: use straight ones, \" or '"
    seen = text if key else text[:1] + text[-1:]
    hidden = sorted(set(seen) & set(_INVISIBLE)) if plain else []
    if hidden:
        return f"invisible character U+{ord(hidden[0]):04X}: type it again"
    return None


def _variable(name: str, text: str) -> str:
    message = f"variables are not replaced within a text; write !env {name} as the whole value"
    if "://" in text:
        message += f", or leave the password out of the address and write password: !env {name}"
    return message
