"""The settings in --web.config.file, in the format of Prometheus' exporter-toolkit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import msgspec

from bts_exporter.access.tls_names import VERSIONS, Cipher, ClientAuth, Curve, Version

#: The headers that may be set, with their permitted values if these are limited.
_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_BCRYPT = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
#: Costs of bcrypt: below, the format has none; above, one login takes longer than 2 s.
_COSTS = range(4, 16)
_BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: The last character of the salt, of whose six bits two count. The bcrypt package requires zeros.
_SALT_END = 28
_GO_UNITS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_GO_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")
_GO_DURATION = re.compile(rf"(?:{_GO_PART.pattern})+")


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates or a key in PEM, written in the settings; messages do not show it."""

    text: str = field(repr=False)

    @classmethod
    def from_setting(cls, raw: object) -> Self | None:
        """Return the text, None if it is empty; ValueError, without the text, if it is not PEM."""
        if raw == "":
            return None
        if not isinstance(raw, str) or "-----BEGIN" not in raw:
            msg = "expected PEM text (-----BEGIN ...); the path of a file belongs in the key that ends in _file"
            raise ValueError(msg)
        return cls(raw)


class File(str):
    """The path of a PEM file."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self | None:
        """Return the path, None if it is empty; ValueError if it is not a path."""
        if not isinstance(raw, str):
            msg = f"expected the path of a file, got {type(raw).__name__}"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        if "-----BEGIN" in raw or "\0" in raw:  # not quoted: it may be the key
            msg = "expected the path of a file, got its content: that belongs in the key without _file"
            raise ValueError(msg)
        return cls(raw) if raw else None


class BcryptHash(str):
    """The bcrypt hash of a password."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the hash; ValueError, without the value, if it is not one: it may be a password."""
        match = _BCRYPT.fullmatch(raw) if isinstance(raw, str) else None
        if match is None:
            msg = (
                "not a bcrypt hash ($2y$10$ and 53 characters);"
                " make one with `bts-exporter hash-password` or `htpasswd -nBC 10 USER`"
            )
            raise ValueError(msg)
        if int(match[1]) not in _COSTS:
            msg = f"the bcrypt cost must be from {_COSTS[0]} to {_COSTS[-1]}, got {int(match[1])}; 10 is usual"
            raise ValueError(msg)
        end = _BCRYPT_ALPHABET[_BCRYPT_ALPHABET.index(match[0][_SALT_END]) & 0x30]
        return cls(match[0][:_SALT_END] + end + match[0][_SALT_END + 1 :])

    def __repr__(self) -> str:
        return "<hash>"


class HeaderValue(str):
    """The value of an HTTP header."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the value; ValueError if a header cannot contain it."""
        if isinstance(raw, bool) or not isinstance(raw, str | int):
            msg = f"expected text, got {type(raw).__name__}: put it in quotes"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        text = str(raw)  # X-XSS-Protection: 0
        if not text.isascii() or not text.isprintable():
            msg = "must not contain line breaks, control characters or characters other than ASCII"
            raise ValueError(msg)
        return cls(text)


class GoDuration(float):
    """Seconds, written as Go writes durations: `1s`, `1m30s`, `1.5s`, `500ms`."""

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the duration; ValueError if it is not one."""
        if isinstance(raw, int) and not isinstance(raw, bool) and raw == 0:
            return cls(0)
        if not isinstance(raw, str) or not (raw == "0" or _GO_DURATION.fullmatch(raw)):
            msg = f"expected a duration with its unit, such as 1s or 500ms, got {raw!r}"
            raise ValueError(msg)
        return cls(sum(float(n) * _GO_UNITS[unit] for n, unit in _GO_PART.findall(raw)))


class TLSServer(msgspec.Struct, frozen=True, kw_only=True):
    """`tls_server_config`."""

    cert: Pem | None = None
    cert_file: File | None = None
    key: Pem | None = None
    key_file: File | None = None
    client_ca: Pem | None = None
    client_ca_file: File | None = None
    client_auth_type: ClientAuth | None = None
    client_allowed_sans: tuple[str, ...] | None = None
    min_version: Version = Version("TLS12")
    max_version: Version = Version("TLS13")
    cipher_suites: tuple[Cipher, ...] | None = None
    curve_preferences: tuple[Curve, ...] | None = None
    prefer_server_cipher_suites: bool = True

    def __post_init__(self) -> None:
        """Check what the settings mean together; ValueError with the first mistake."""
        for wrong in (*self._incomplete(), *self._useless()):
            raise ValueError(wrong)

    @property
    def enabled(self) -> bool:
        """Whether these settings turn TLS on."""
        pems = (self.cert, self.cert_file, self.key, self.key_file)
        return any((*pems, self.client_ca, self.client_ca_file, self.client_auth_type))

    @property
    def client_auth(self) -> ClientAuth:
        """Whether clients present certificates."""
        return self.client_auth_type or ClientAuth("NoClientCert")

    def _incomplete(self) -> Iterator[str]:
        for name in ("cert", "key", "client_ca"):
            inline, file = getattr(self, name), getattr(self, f"{name}_file")
            if inline and file:
                yield f"{name}: given twice, here and as {name}_file: leave one of them out"
            elif self.enabled and not inline and not file and name != "client_ca":
                yield f"missing {name}_file (or {name}, the PEM text itself)"

    def _useless(self) -> Iterator[str]:
        auth = self.client_auth
        if (self.client_ca or self.client_ca_file) and auth == "NoClientCert":
            name = "client_ca_file" if self.client_ca_file else "client_ca"
            yield f"{name}: no effect without client_auth_type: RequireAndVerifyClientCert"
        if self.client_allowed_sans is not None:
            if not auth.verifies:
                yield (
                    f"client_allowed_sans: no effect with client_auth_type {auth}, which verifies"
                    " no certificate; write RequireAndVerifyClientCert and client_ca_file"
                )
            if not all(self.client_allowed_sans):
                yield "client_allowed_sans: an empty name is in no certificate"
            if not self.client_allowed_sans:
                yield "client_allowed_sans: an empty list admits no client: leave the key out"
        versions = list(VERSIONS)
        if versions.index(self.min_version) > versions.index(self.max_version):
            yield f"min_version: {self.min_version} is above max_version {self.max_version}"


class HTTPServer(msgspec.Struct, frozen=True):
    """`http_server_config`; http2 is accepted and has no effect, because only HTTP/1.1 is served."""

    http2: bool = True
    headers: dict[str, HeaderValue] | None = None

    def __post_init__(self) -> None:
        """Check the headers; ValueError with the first mistake."""
        for name, value in (self.headers or {}).items():
            if name not in _HEADERS:
                msg = f"headers: {name!r} cannot be set; known: {', '.join(_HEADERS)}"
                raise ValueError(msg)
            if _HEADERS[name] and value not in _HEADERS[name]:
                msg = f"headers: {name}: expected {' or '.join(_HEADERS[name])}, got {value!r}"
                raise ValueError(msg)


class RateLimit(msgspec.Struct, frozen=True):
    """`rate_limit`: a token is added every `interval`, up to `burst`; each request takes one."""

    interval: GoDuration = GoDuration(0)
    burst: int = 0

    def __post_init__(self) -> None:
        """Check the values; ValueError if no request would be answered."""
        if self.burst < 0 or (self.interval and not self.burst):
            msg = f"burst: must be at least 1, or no request is answered; got {self.burst}"
            raise ValueError(msg)


class WebSettings(msgspec.Struct, frozen=True):
    """The whole file."""

    tls_server_config: TLSServer = TLSServer()
    http_server_config: HTTPServer = HTTPServer()
    basic_auth_users: dict[str, BcryptHash] | None = None
    rate_limit: RateLimit = RateLimit()
