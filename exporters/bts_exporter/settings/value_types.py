"""Setting types that YAML does not have: durations, secrets, addresses.

A class with a `from_setting(raw)` classmethod can be the type of a setting; it raises ValueError with the reason.
Its classmethod `setting_schema()` says the same as JSON Schema, for editors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

#: Of twelve digits at most, so that the sum is finite. JSON Schema has these patterns, too, so they
#: mean the same in ECMAScript: no classes of Unicode, and `$` with a line end behind it is no end.
_DURATION = re.compile(
    r"^(?=[0-9])(?:([0-9]{1,12})d)?(?:([0-9]{1,12})h)?(?:([0-9]{1,12})m)?"
    r"(?:([0-9]{1,12}(?:\.[0-9]{1,12})?)s)?(?:([0-9]{1,12})ms)?$(?!\n)"
)
#: Hours, minutes and seconds, or two of them.
_COLONS = re.compile(r"\d+:\d+|\d+:\d+:\d+(?:\.\d+)?")
_ADDRESS = "an address is scheme://host[:port]"
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)

#: What str.strip removes.
_BLANK = r"\x09-\x0d\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: White space and control characters, and what Unicode's NFKC makes /, ?, #, @ or a colon of.
_NEVER = (
    r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    r"\u2047-\u2049\u2100\u2101\u2105\u2106\u2a74\ufe13\ufe16\ufe55\ufe56\ufe5f\ufe6b"
    r"\uff03\uff0f\uff1a\uff1f\uff20"
)
_USER = rf"(?:[^:/?#\[\]{_NEVER}]*(?::[^/?#\[\]{_NEVER}]+)?@)?"
#: Letters, digits, and signs of host names; no other characters of ASCII.
_NAME = rf"[^\x21-\x24\x26-\x2c/\x3a-\x40\x5b-\x5e`\x7b-\x7e{_NEVER}]+"
_GROUPS = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*"
_IPV6 = (
    r"\[(?=(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}[\]%])"
    rf"(?:(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}|(?:{_GROUPS})?::(?:{_GROUPS})?)"
    r"(?:%[A-Za-z0-9_.-]+)?\]"
)
_PORT = (
    r"(?::(?:0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]"
    r"|6553[0-5]))?)?"
)
_REST = rf"(?:\?[^#@{_NEVER}]*)?"
_PATH = rf"/[^?#@{_NEVER}]*"
_URL = re.compile(
    rf"^(?:[A-Za-z][A-Za-z0-9+.-]*://{_USER}(?:{_NAME}|{_IPV6}){_PORT}(?:{_PATH})?{_REST}"
    rf"|[Uu][Nn][Ii][Xx]://{_USER}{_PATH}{_REST})$"
)


class Duration(float):
    """Seconds, written as a number or as Prometheus writes durations: `1m30s`, `500ms`."""

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        return {
            "description": "Duration: seconds, or days, hours, minutes, seconds and milliseconds: 1d, 1m30s, 500ms.",
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": sys.float_info.max,
            "pattern": _DURATION.pattern,
            "patternErrorMessage": "Expected seconds or a duration such as 1m30s.",
        }

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the duration that `raw` means; ValueError when it means none."""
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            try:
                seconds = float(raw)
            except OverflowError:
                seconds = float("inf")
        elif isinstance(raw, str) and (match := _DURATION.search(raw)):
            seconds = sum(
                float(n) * unit for n, unit in zip(match.groups(), _UNITS, strict=True) if n
            )
        else:
            msg = f"expected seconds or a duration such as 1m30s, got {raw!r}{_without_colons(raw)}"
            raise ValueError(msg)
        if not 0 <= seconds < float("inf"):
            msg = f"a duration must be finite and not negative, got {raw!r}"
            raise ValueError(msg)
        return cls(seconds)

    def as_setting(self) -> str:
        """Return it as `from_setting` accepts it: in seconds, without an exponent."""
        return f"{self:.9f}".rstrip("0").rstrip(".") + "s"


def _without_colons(raw: object) -> str:
    """Return how to write a duration that has colons, such as 1:30:00; empty for others."""
    if type(raw) is not str or not _COLONS.fullmatch(raw):  # not of a secret from outside the file
        return ""
    parts = raw.split(":")
    if len(parts) == 2:  # noqa: PLR2004  # hours and minutes, or minutes and seconds
        return "; write {0}h{1}m or {0}m{1}s".format(*parts)
    return "; write {}h{}m{}s".format(*parts)


@dataclass(frozen=True, slots=True)
class Secret:
    """A string that never appears in logs, pages and errors."""

    _text: str = field(repr=False)
    _reread: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        return {
            "description": "Secret: !env NAME, !file PATH or !credential NAME.",
            "type": "string",
            "pattern": rf"[^{_BLANK}]",
        }

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return `raw` as a secret; ValueError, without the content, if it is not a string."""
        if not isinstance(raw, str):
            msg = f"expected a string, got {type(raw).__name__} (put it in quotes)"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        if not raw.strip():
            msg = (
                "the password is empty: remove the key if no password is needed, or write !env NAME"
            )
            raise ValueError(msg)
        return cls(raw, getattr(raw, "reread", None))

    def reread(self) -> Secret:
        """Return the secret as its `!file`, `!credential` or `!env` has it now.

        For a target that refuses the login: its password may have been changed since the start.
        Returns itself if it was written in the settings, or cannot be read now.
        """
        if self._reread is None:
            return self
        try:
            return Secret(self._reread(), self._reread)
        except (LookupError, OSError, ValueError):
            return self

    def reveal(self) -> str:
        """Return the text, for the client library that needs it."""
        return self._text

    def __str__(self) -> str:
        return "<secret>"


@dataclass(frozen=True, slots=True)
class Url:
    """The address of a target; its text does not contain the credentials."""

    scheme: str
    host: str = ""  # empty for unix sockets
    port: int | None = None
    path: str = ""
    username: str | None = None
    password: Secret | None = None
    query: str = field(default="", repr=False)  # a token may be in it

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        return {
            "description": f"Address: {_ADDRESS.removeprefix('an address is ')}.",
            "type": "string",
            "pattern": _URL.pattern,
            "patternErrorMessage": f"Not a valid address; {_ADDRESS}.",
        }

    def as_setting(self) -> str:
        """Return a default as it is written in the settings, with its login."""
        if self.username is None:
            return str(self)
        password = f":{self.password.reveal()}" if self.password else ""
        return str(self).replace("://", f"://{self.username}{password}@", 1)

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return `raw` as an address; ValueError, without credentials, if it is not valid."""
        if not isinstance(raw, str):
            msg = f"expected an address such as redis://host:6379, got {type(raw).__name__}"
            if isinstance(raw, list):
                msg += "; several targets are a list of blocks: - {name: NAME, url: ADDRESS}"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        if mistake := _mistake_in(raw):
            raise ValueError(mistake)
        try:
            parts = urlsplit(raw)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            # urlsplit's own messages quote the address, password and all.
            msg = f"invalid port (expected 1 to 65535); in a password, percent-encode special characters; {_ADDRESS}"
            if "@" in raw:
                msg += "; in a password / is written %2F and # is %23, or write password: !env NAME"
            raise ValueError(msg) from None
        if "://" not in raw or not parts.scheme:
            msg = f"missing scheme, e.g. redis://; {_ADDRESS}"
            raise ValueError(msg)
        if not (host or (parts.scheme == "unix" and parts.path)):
            msg = f"missing host; {_ADDRESS}"
            raise ValueError(msg)
        if "@" in parts.path + parts.query + parts.fragment:
            # Part of an unquoted password ended up behind the host and would be shown as a path.
            msg = "percent-encode the special characters of user and password (/ is %2F, # is %23)"
            raise ValueError(msg)
        if mistake := _mistake_in_parts(parts, raw):
            raise ValueError(mistake)
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            path=parts.path,
            username=unquote(parts.username) if parts.username else None,
            password=Secret(unquote(parts.password)) if parts.password else None,
            query=parts.query,
        )

    @classmethod
    def schema_of_schemes(cls, *schemes: str) -> dict[str, Any]:
        """Return the JSON Schema of addresses with one of `schemes`; `require_scheme` checks the same.

        For editors: `Annotated[Url, msgspec.Meta(extra_json_schema=Url.schema_of_schemes("redis"))]`.
        """
        either = "|".join("".join(f"[{c.upper()}{c}]" for c in scheme) for scheme in schemes)
        message = f"Expected {listed_schemes(schemes, 'or')}."
        return {"pattern": f"^(?:{either})://", "patternErrorMessage": message}

    def require_scheme(self, *schemes: str, key: str = "url") -> None:
        """Raise ValueError unless the scheme is one of `schemes`; `key` is the setting's name."""
        if self.scheme not in schemes:
            msg = f"{key}: expected {listed_schemes(schemes, 'or')}, got {self}"
            raise ValueError(msg)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}{self.path}"


def listed_schemes(schemes: Sequence[str], conjunction: str) -> str:
    """Return schemes as a sentence has them: `redis://, rediss:// or unix://`."""
    *first, last = [f"{scheme}://" for scheme in schemes]
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _mistake_in(raw: str) -> str | None:
    """Return why an address would be misread, without quoting it."""
    _, _, rest = raw.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if "," in place:
        return (
            "several hosts, or a comma at its end; an address has one host. For Redis Sentinel, write"
            " sentinel: {master: NAME, addresses: [redis://HOST:26379]}"
        )
    if place.count(":") > 1 and not place.startswith("["):
        return f"an IPv6 address needs brackets, such as redis://[::1]:6379; {_ADDRESS}"
    if re.search(r"\s", raw):
        return f"unexpected space; {_ADDRESS}"
    return None


def _mistake_in_parts(parts: SplitResult, raw: str) -> str | None:
    if parts.password == "":
        return "the password is empty: remove the colon, or write password: !env NAME"
    if re.search(r"[^\w.:%-]", parts.hostname or ""):
        return f"invalid characters in the host name; {_ADDRESS}"
    if parts.port == 0:
        return f"invalid port 0; {_ADDRESS}"
    if parts.fragment:
        return "unexpected #; in a password, write %23 for #"
    if not _URL.search(raw):
        return f"not a valid address; {_ADDRESS}, and special characters are percent-encoded"
    return None
