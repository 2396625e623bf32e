"""The file of --web.config.file: loaded at the start, and loaded again when it or a file that it names changes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from bts_exporter.access.rate_limit import RateLimiter
from bts_exporter.access.watched_files import WatchedFiles
from bts_exporter.access.web_settings import RateLimit, TLSServer, WebSettings
from bts_exporter.errors import ConfigError, Problem
from bts_exporter.reload_state import ReloadState
from bts_exporter.settings.schema import INVALID, Schema
from bts_exporter.settings.yaml_document import Document, parse
from bts_exporter.web.protocol import security_fields

if TYPE_CHECKING:  # OpenSSL takes 5 MB, which is only needed for TLS
    import ssl

    from bts_exporter.access.tls_context import ServerContext

log = logging.getLogger("bts_exporter.access.web_config")

#: Seconds until a file that could not be used is read again although nothing has changed.
_RETRY_SECONDS = 10.0
#: Seconds since the last change of a file until it counts as complete.
_WRITTEN_SECONDS = 2.0


@dataclass(frozen=True)
class Certificates:
    """The certificates and keys that the settings name."""

    document: Document
    settings: TLSServer

    def context(self, files: WatchedFiles) -> ServerContext:
        """Return the context made of them; ConfigError with every problem."""
        from bts_exporter.access import tls_context  # noqa: PLC0415  # only for TLS

        problems: list[Problem] = []
        contents: list[bytes | None] = []
        for setting in ("cert", "key", "client_ca"):
            try:
                contents.append(self._read(setting, files))
            except (OSError, ValueError) as error:
                problems.append(self._problem(setting, _unreadable(error)))
        if problems:
            raise ConfigError(problems)
        cert, key, client_ca = contents
        try:
            return tls_context.context(self.settings, cert or b"", key or b"", client_ca)
        except tls_context.TLSError as error:
            raise ConfigError([self._problem(error.setting, str(error))]) from error
        except OSError as error:  # such as no file descriptor left
            message = f"cannot be used: {error.strerror or error}"
            raise ConfigError([self._problem("cert", message)]) from error

    def _read(self, setting: str, files: WatchedFiles) -> bytes | None:
        """Return the content; OSError or ValueError if it cannot be read, None if there is no setting."""
        if inline := getattr(self.settings, setting):
            return str(inline.text).encode()
        named = getattr(self.settings, f"{setting}_file")
        return None if named is None else files.read(Path(self.document.file).parent / named)

    def _problem(self, setting: str, message: str) -> Problem:
        if named := getattr(self.settings, f"{setting}_file", None):
            setting = f"{setting}_file"
            message = f"{Path(self.document.file).parent / named}: {message}"
        return self.document.problem(("tls_server_config", setting), message)


@dataclass(frozen=True)
class Loaded:
    """The content of the file, ready for use."""

    tls: ServerContext | None
    #: Hashes of passwords by user.
    users: Mapping[bytes, bytes]
    rate_limit: RateLimit
    #: Header fields of every response.
    fields: str
    #: What `tls` is made of.
    certificates: Certificates | None = None
    #: Whether the file had no content.
    empty: bool = False
    #: Settings that have another effect than they seem to.
    warnings: tuple[Problem, ...] = ()

    @property
    def protections(self) -> set[str]:
        """The settings that keep clients out, by name."""
        tls = self.certificates.settings if self.certificates is not None else TLSServer()
        given = {
            "basic_auth_users": self.users,
            "rate_limit": self.rate_limit.interval,
            "client_auth_type": tls.client_auth.verifies,
            "client_ca": tls.client_ca or tls.client_ca_file,
            "client_allowed_sans": tls.client_allowed_sans,
        }
        return {name for name, value in given.items() if value}


class WebConfig:
    """The active settings; for use by any thread."""

    def __init__(self, path: Path) -> None:
        """Load the file; ConfigError with every problem if it cannot be used."""
        self.state = ReloadState()
        self._path = path
        self._files = WatchedFiles()
        self._lock = threading.RLock()
        #: The failure that was logged last, and when to try again: too many open files can be the cause.
        self._logged = ""
        self._retry = float("inf")
        self.active = load(path, self._files)
        self.limiter = RateLimiter(self.active.rate_limit)
        self._loaded()

    def refresh(self) -> None:
        """Load the file again if something changed; a failure keeps the active settings."""
        # Until the result is known: an exception from another thread may be raised right after the call.
        held = True
        try:
            # While another thread does it, the active settings are good enough.
            held = self._lock.acquire(blocking=False)
            if held and (self._files.changed() or monotonic() >= self._retry):
                self._load()
        finally:
            if held:
                self._lock.release()

    def reload(self) -> list[Problem]:
        """Load the file again in any case; return the problems."""
        with self._lock:
            self._logged = ""
            return self._load(complete=True)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Put TLS around a new connection, without I/O on it."""
        self.refresh()
        assert self.active.tls is not None  # noqa: S101  # neither turned on nor off by a reload
        return self.active.tls.shake_hands_later(sock)

    def _load(self, *, complete: bool = False) -> list[Problem]:
        """Load the file, which is `complete` if the operator says so; return the problems."""
        files = WatchedFiles()
        try:
            loaded = load(self._path, files)
            self._refuse_loss(loaded)
        except ConfigError as error:
            self._fail(error)
            self._renew(files)
            return error.problems
        finally:
            self._files = files
        if not complete and self._may_be_half_written(loaded):
            self._retry = monotonic() + _WRITTEN_SECONDS
            return []
        self.active = loaded
        if loaded.rate_limit != self.limiter.settings:
            self.limiter = RateLimiter(loaded.rate_limit)
        self._loaded()
        return []

    def _renew(self, files: WatchedFiles) -> None:
        """Load the certificates of the active settings: they may be renewed while the file has an error."""
        if self.active.certificates is not None:
            with suppress(ConfigError):
                tls = self.active.certificates.context(files)
                self.active = replace(self.active, tls=tls)

    def _refuse_loss(self, loaded: Loaded) -> None:
        """Raise ConfigError for changes that would drop the protection by mistake."""
        message = ""
        if loaded.empty and not self.active.empty:
            # Such as a file that is being written.
            message = "the file is empty; write {} into it to serve without passwords, or restart"
        elif (loaded.tls is None) != (self.active.tls is None):
            message = "tls_server_config was added or removed: restart to turn TLS on or off"
        if message:
            raise ConfigError([Problem(str(self._path), None, "", message)])

    def _may_be_half_written(self, loaded: Loaded) -> bool:
        """Return whether `loaded` lacks a protection, and the file has been changed just now."""
        if self.active.protections <= loaded.protections:
            return False
        try:
            age = time.time() - self._path.stat().st_mtime
        except OSError:
            return True
        return abs(age) < _WRITTEN_SECONDS

    def _loaded(self) -> None:
        self._logged = ""
        self._retry = float("inf")
        self.state.succeed(time.time())
        for warning in self.active.warnings:
            log.warning("%s", warning)
        log.info(
            "web configuration loaded",
            extra={
                "file": str(self._path),
                "tls": self.active.tls is not None,
                "users": len(self.active.users),
            },
        )

    def _fail(self, error: ConfigError) -> None:
        if self._logged != str(error):  # once, not for every request
            log.error(
                "web configuration not loaded, the previous one remains active: %s",
                "; ".join(map(str, error.problems)),
            )
        self._logged = str(error)
        self._retry = monotonic() + _RETRY_SECONDS
        self.state.fail(str(error))


def load(path: Path, files: WatchedFiles) -> Loaded:
    """Return the content of the file `path`; ConfigError with every problem."""
    document = _document(path, files)
    schema = Schema(document)
    settings = schema.convert(document.value, WebSettings, ())
    if settings is INVALID or schema.problems:
        raise ConfigError(sorted(schema.problems, key=lambda problem: problem.line or 0))
    if problems := list(_wrong_users(document, settings)):
        raise ConfigError(problems)
    tls = settings.tls_server_config
    certificates = Certificates(document, tls) if tls.enabled else None
    return Loaded(
        tls=certificates.context(files) if certificates is not None else None,
        certificates=certificates,
        users={
            name.encode(): hashed.encode()
            for name, hashed in (settings.basic_auth_users or {}).items()
        },
        rate_limit=settings.rate_limit,
        fields=security_fields(settings.http_server_config.headers or {}),
        empty=document.value is None,
        warnings=tuple(_warnings(document, tls)),
    )


def _document(path: Path, files: WatchedFiles) -> Document:
    try:
        content = files.read(path)
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(str(path), None, "", _unreadable(error))]) from error
    return parse(str(path), content, files.watch)


def _wrong_users(document: Document, settings: WebSettings) -> Iterator[Problem]:
    for name in settings.basic_auth_users or {}:
        if ":" in name or not name.isprintable():
            message = "a user name must not contain colons or control characters"
            yield document.problem(("basic_auth_users", name), message)


def _warnings(document: Document, tls: TLSServer) -> Iterator[Problem]:
    def about(message: str, *path: str) -> Problem:
        return document.problem(("tls_server_config", *path), message)

    if document.value is None:
        yield document.problem(
            (), "the file is empty: metrics are served without TLS and passwords"
        )
    if not tls.enabled and tls != TLSServer():
        yield about("TLS is off, because cert_file and key_file are missing")
    auth = tls.client_auth
    if auth == "RequestClientCert":
        yield about(
            "RequestClientCert admits clients with any certificate and with none: none is requested",
            "client_auth_type",
        )
    if auth.verifies and not (tls.client_ca or tls.client_ca_file):
        yield about(
            f"{auth} without client_ca_file accepts certificates of every authority that this system trusts",
            "client_auth_type",
        )


def _unreadable(error: OSError | ValueError) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
