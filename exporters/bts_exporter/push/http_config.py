"""The file of --http.config.file: how to authenticate at the receiver, in Prometheus' http_config format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bts_exporter.errors import ConfigError
from bts_exporter.settings.schema import INVALID, Schema
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Secret, Url
from bts_exporter.settings.yaml_document import read

#: What stands for bytes that are not UTF-8.
_NOT_UTF8 = "\ufffd"


class BasicAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """User and password."""

    username: str = ""
    password: Secret | None = None
    password_file: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.password is not None and self.password_file is not None:
            msg = "password and password_file exclude each other"
            raise ValueError(msg)


class Authorization(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A header Authorization with a token."""

    type: str = "Bearer"
    credentials: Secret | None = None
    credentials_file: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if (self.credentials is None) == (self.credentials_file is None):
            msg = "expected either credentials or credentials_file"
            raise ValueError(msg)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The values of one header."""

    values: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    files: tuple[str, ...] = ()


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How requests to the receiver are made; paths are relative to the file."""

    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    tls_config: TLSConfig = TLSConfig()
    #: HTTP proxy; without it, http_proxy, https_proxy and no_proxy of the environment apply.
    proxy_url: Url | None = None
    http_headers: dict[str, Header] = {}

    def __post_init__(self) -> None:
        """Check the values."""
        if self.basic_auth is not None and self.authorization is not None:
            msg = "basic_auth and authorization exclude each other"
            raise ValueError(msg)
        if self.proxy_url is not None:
            self.proxy_url.require_scheme("http", key="proxy_url")


class Credentials(msgspec.Struct, frozen=True):
    """What the requests of one moment carry."""

    username: str | None
    password: Secret | None
    headers: dict[str, str]


class HttpSettings:
    """The settings of the file, and the files that it names."""

    def __init__(self, config: HttpConfig, folder: Path) -> None:
        """Take the settings, and the folder that paths are relative to."""
        self.tls = config.tls_config.below(folder)
        self.proxy = config.proxy_url
        self._config = config
        self._folder = folder

    def files(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the files with secrets, and the key that names each."""
        authorization, basic = self._config.authorization, self._config.basic_auth
        if authorization is not None and authorization.credentials_file is not None:
            yield ("authorization", "credentials_file"), authorization.credentials_file
        if basic is not None and basic.password_file is not None:
            yield ("basic_auth", "password_file"), basic.password_file
        for name, header in self._config.http_headers.items():
            for index, file in enumerate(header.files):
                yield ("http_headers", name, "files", index), file

    def content(self, name: str) -> str:
        """Return the secret in a file; OSError or ValueError that names it."""
        path = self._folder / name
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if not text or not text.isprintable() or _NOT_UTF8 in text:
            msg = f"{path}: expected one line of text"
            raise ValueError(msg)
        return text

    def credentials(self) -> Credentials:
        """Read the secrets; OSError or ValueError that names the file which cannot be used.

        They are read for each request, so that rotated ones count at once.
        """
        headers = {name: self._header(header) for name, header in self._config.http_headers.items()}
        if (found := self._config.authorization) is not None:
            token = found.credentials and found.credentials.reread().reveal()
            token = token or self.content(str(found.credentials_file))
            headers["Authorization"] = f"{found.type} {token}"
        basic = self._config.basic_auth
        if basic is None:
            return Credentials(None, None, headers)
        password = basic.password and basic.password.reread()
        if basic.password_file is not None:
            password = Secret(self.content(basic.password_file))
        return Credentials(basic.username, password, headers)

    def _header(self, header: Header) -> str:
        values = [*header.values, *(secret.reread().reveal() for secret in header.secrets)]
        return ", ".join([*values, *map(self.content, header.files)])


def load(file: str | None) -> HttpSettings:
    """Return the settings in `file`; ConfigError with every problem."""
    if file is None:
        return HttpSettings(HttpConfig(), Path())
    document = read(Path(file))
    schema = Schema(document)
    found = schema.convert(document.value or {}, HttpConfig, ())
    if found is INVALID or schema.problems:
        raise ConfigError(schema.problems)
    settings = HttpSettings(found, Path(file).parent)
    problems = [
        document.problem(key, problem)
        for key, name in settings.files()
        if (problem := _problem(settings, name))
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def _problem(settings: HttpSettings, name: str) -> str:
    """Return why a file with a secret cannot be used, or nothing."""
    try:
        settings.content(name)
    except OSError as error:
        return f"{error.filename}: {error.strerror}; write the secret to it, readable for this user"
    except ValueError as error:
        return str(error)
    return ""
