"""The server's side of TLS. Imported only if TLS is configured: OpenSSL takes 5 MB."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bts_exporter.access.tls_names import CIPHERS, CURVES, TLS13_CIPHERS, VERSIONS
from bts_exporter.access.web_settings import TLSServer

_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    # It admits clients with any certificate and with none, so that there is nothing to ask for.
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
#: The kinds of alternative names that are compared; of others Python does not know the value.
_KINDS = {"DNS", "IP Address", "URI", "email"}
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
#: What OpenSSL calls a key that is another certificate's.
_MISMATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}


class TLSError(Exception):
    """Raised when a setting cannot be used; names the setting."""

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class ServerSocket(ssl.SSLSocket):
    """A client's connection, whose handshake includes the names in the client's certificate."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # as in the base
        """Complete the handshake; SSLCertVerificationError if no name in the certificate is allowed."""
        super().do_handshake(block)
        allowed = self.context.allowed if isinstance(self.context, ServerContext) else None
        if allowed is None:
            return
        names = _names(self)
        if not allowed.intersection(names):
            found = ", ".join(map(repr, names)) or "no name"
            msg = f"client_allowed_sans has no name of the client's certificate, which has {found}"
            raise ssl.SSLCertVerificationError(msg)


class ServerContext(ssl.SSLContext):
    """A server's context, with the names that clients' certificates may have."""

    sslsocket_class = ServerSocket
    #: None admits every verified certificate.
    allowed: frozenset[str] | None = None

    def shake_hands_later(self, sock: object) -> ssl.SSLSocket:
        """Put TLS around `sock`, without I/O."""
        return self.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[arg-type]


def context(settings: TLSServer, cert: bytes, key: bytes, client_ca: bytes | None) -> ServerContext:
    """Return a context for `settings`, with the PEM that they name; TLSError for what cannot be used."""
    made = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    # Renegotiation, which TLS 1.3 has dropped, lets a client make the server compute.
    made.options |= ssl.OP_NO_RENEGOTIATION
    # A request has a length of its own, so that one that TCP cuts off is noticed.
    made.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if not settings.prefer_server_cipher_suites:
        made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _limit_versions(made, settings)
    _select_ciphers(made, settings)
    _select_curves(made, settings)
    _load_key(made, cert, key)
    made.verify_mode = _VERIFY[settings.client_auth]
    if settings.client_auth.verifies:
        _trust(made, client_ca)
    if settings.client_allowed_sans is not None:
        made.allowed = frozenset(map(_canonical, settings.client_allowed_sans))
    return made


def _limit_versions(made: ServerContext, settings: TLSServer) -> None:
    for setting, version in (
        ("min_version", settings.min_version),
        ("max_version", settings.max_version),
    ):
        if not getattr(ssl, f"HAS_{VERSIONS[version]}"):
            message = f"{ssl.OPENSSL_VERSION} here cannot do {version}"
            raise TLSError(message, setting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1 were asked for
        made.minimum_version = ssl.TLSVersion[VERSIONS[settings.min_version]]
        made.maximum_version = ssl.TLSVersion[VERSIONS[settings.max_version]]


def _select_ciphers(made: ServerContext, settings: TLSServer) -> None:
    old = settings.min_version in {"TLS10", "TLS11"}
    asked: Sequence[str] = settings.cipher_suites or (list(CIPHERS) if old else [])
    if not asked:
        return
    suites = [CIPHERS[suite] for suite in asked if suite not in TLS13_CIPHERS]
    if not suites:
        if settings.max_version != "TLS13":
            message = f"only suites of TLS 1.3, but max_version is {settings.max_version}"
            raise TLSError(message, "cipher_suites")
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        # TLS 1.0 and 1.1 sign with SHA-1, which OpenSSL permits at level 0 only.
        made.set_ciphers(":".join([*suites, *(["@SECLEVEL=0"] if old else [])]))
    except ssl.SSLError as error:
        message = f"{ssl.OPENSSL_VERSION} has none of them"
        raise TLSError(message, "cipher_suites") from error
    available = {cipher["name"] for cipher in made.get_ciphers()}
    missing = [suite for suite in asked if CIPHERS.get(suite, "") not in {"", *available}]
    if missing and settings.cipher_suites:
        message = f"{ssl.OPENSSL_VERSION} has no {', '.join(missing)}"
        raise TLSError(message, "cipher_suites")


def _select_curves(made: ServerContext, settings: TLSServer) -> None:
    curves = tuple(dict.fromkeys(settings.curve_preferences or ()))
    if len(curves) == 1:
        made.set_ecdh_curve(CURVES[curves[0]][0])
    elif curves and hasattr(made, "set_groups"):  # from Python 3.15 on
        made.set_groups(":".join(CURVES[curve][1] for curve in curves))
    elif curves:
        message = (
            "Python's ssl before 3.15 takes one curve: leave one, or leave the key out for"
            f" OpenSSL's own choice; got {', '.join(curves)}"
        )
        raise TLSError(message, "curve_preferences")


def _load_key(made: ServerContext, cert: bytes, key: bytes) -> None:
    _require_certificate("cert", cert)
    if b" PRIVATE KEY-----" not in key:
        message = "contains no private key in PEM (-----BEGIN PRIVATE KEY-----)"
        raise TLSError(message, "key")
    if any(sign in key for sign in _ENCRYPTED):
        message = (
            "the key is encrypted; write it without a passphrase: openssl pkey -in OLD -out NEW"
        )
        raise TLSError(message, "key")
    with _as_file(cert) as cert_path, _as_file(key) as key_path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert_path)
        except OSError as error:
            message = f"is not a valid certificate: {_words(error)}"
            raise TLSError(message, "cert") from error
        try:
            # For want of a passphrase OpenSSL would ask for one on the terminal.
            made.load_cert_chain(cert_path, key_path, password="")
        except OSError as error:
            raise _unusable(error) from error


def _unusable(error: OSError) -> TLSError:
    """Return why a valid certificate cannot be used with its key."""
    reason = getattr(error, "reason", None) or ""
    if reason in _MISMATCH:
        message = (
            "not the key of the certificate; the server's own certificate comes first in its file,"
            " before those of authorities"
        )
        return TLSError(message, "key")
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return TLSError(f"is refused by {ssl.OPENSSL_VERSION}: {_words(error)}", "cert")
    return TLSError(f"is not a valid key: {_words(error)}", "key")


def _trust(made: ServerContext, client_ca: bytes | None) -> None:
    # As in Go, every certificate of the file is trusted, not only those that signed themselves.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if client_ca is None:
        made.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    _require_certificate("client_ca", client_ca)
    with _as_file(client_ca) as path:
        try:
            made.load_verify_locations(path)
        except OSError as error:
            message = f"cannot be used: {_words(error)}"
            raise TLSError(message, "client_ca") from error


def _require_certificate(setting: str, pem: bytes) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        message = "contains no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        raise TLSError(message, setting)


def _words(error: OSError) -> str:
    return (getattr(error, "reason", "") or str(error)).lower().replace("_", " ")


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give the path of a file with `content`, in memory where the system can: ssl reads paths only."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        import tempfile  # noqa: PLC0415  # few systems need it

        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name


def _names(sock: ssl.SSLSocket) -> list[str]:
    """Return the subject alternative names of the client's certificate."""
    try:
        cert: dict[str, Any] = sock.getpeercert() or {}
    except ValueError:  # text that is not UTF-8
        return []
    names = cert.get("subjectAltName", ())
    return [_canonical(name) for kind, name in names if kind in _KINDS]


def _canonical(name: str) -> str:
    """Return an IP address in its usual spelling: OpenSSL writes ::1 as 0:0:0:0:0:0:0:1."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name
