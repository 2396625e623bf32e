"""TLS settings of a target, the same for all collectors, named as in Prometheus' tls_config."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from bts_exporter.errors import TargetError
from bts_exporter.settings.value_types import Url, listed_schemes

if TYPE_CHECKING:
    import ssl

#: The path of a PEM file, not its content.
_Path = Annotated[str, msgspec.Meta(extra_json_schema={"not": {"pattern": "-----BEGIN"}})]
#: Errors of the operating system, which need no explanation.
_OF_THE_SYSTEM = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP}


class TLSConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Trusted authorities and client certificate; by default the system's authorities are trusted."""

    # Paths are relative to the settings' file.
    #: Certificates of the authorities to trust, instead of the system's; PEM.
    ca_file: _Path | None = None
    #: Client certificate with its chain; PEM.
    cert_file: _Path | None = None
    #: The key of `cert_file`, without a passphrase; PEM.
    key_file: _Path | None = None
    #: The name in the target's certificate, if it is not the host of the address.
    server_name: str | None = None
    #: Whether to accept any certificate: for tests only, since it allows eavesdropping.
    insecure_skip_verify: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("ca_file", "cert_file", "key_file"):
            if "-----BEGIN" in (getattr(self, name) or ""):  # not quoted: it may be the key
                msg = f"{name}: expected the path of a file, got its content"
                raise ValueError(msg)
        if (self.cert_file is None) != (self.key_file is None):
            msg = "cert_file and key_file belong together"
            raise ValueError(msg)

    def require_used_by(self, *urls: Url, schemes: Sequence[str]) -> None:
        """Raise ValueError where these settings are given and no address has one of the TLS `schemes`.

        They would have no effect, and credentials would be sent unencrypted.
        """
        if self != TLSConfig() and not any(url.scheme in schemes for url in urls):
            found = listed_schemes(list(dict.fromkeys(url.scheme for url in urls)), "and")
            verb = "uses" if len(schemes) == 1 else "use"
            msg = f"tls: only {listed_schemes(schemes, 'and')} {verb} TLS, got {found}"
            raise ValueError(msg)

    def below(self, folder: Path) -> TLSConfig:
        """Return these settings with relative paths resolved against `folder`."""
        names = ("ca_file", "cert_file", "key_file")
        paths = {name: path for name in names if (path := getattr(self, name)) is not None}
        return msgspec.structs.replace(self, **{n: str(folder / p) for n, p in paths.items()})

    def _refuse_pipes(self) -> None:
        for setting in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, setting)
            if path is not None and _is_pipe(path):
                raise _pipe(setting, path)

    def context(self) -> ssl.SSLContext:
        """Return a new context; the files are read here, so that renewed ones count at once.

        TargetError (tls) that names the file which cannot be used.
        """
        # It takes 5 MB. A process has it without this only if a client package imports it (redis,
        # urllib3, paho-mqtt).
        import ssl  # noqa: PLC0415

        self._refuse_pipes()
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise _unusable(error, ca_file=self.ca_file) from error
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            try:
                # For want of a passphrase OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                files = {"cert_file": self.cert_file, "key_file": self.key_file}
                raise _unusable(error, **files) from error
        return context


def _pipe(setting: str, path: str) -> TargetError:
    return TargetError("tls", f"{setting} {path} cannot be used: not a regular file")


def _is_pipe(path: str) -> bool:
    """Return whether `path` leads to a pipe, a socket or a device, which OpenSSL may wait for without an end."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _unusable(error: OSError, **files: str | None) -> TargetError:
    which = " with ".join(f"{setting} {file}" for setting, file in files.items())
    words = error.strerror or str(error)
    if error.filename is None and error.errno not in _OF_THE_SYSTEM:
        words += "; is it PEM, without a passphrase, and the key that of the certificate?"
    return TargetError("tls", f"{which} cannot be used: {words}")
