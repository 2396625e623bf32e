"""Names of TLS versions, cipher suites, curves and client authentication, in Go's spelling and in OpenSSL's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from bts_exporter.settings.schema import nearest

#: TLS 1.3 suites, which neither Go nor OpenSSL lets a server choose from.
TLS13_CIPHERS = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
#: Suites of TLS 1.2 and older, by Go's name: OpenSSL's name.
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
#: Curves by Go's name: OpenSSL's names, for one curve and in a list.
CURVES = {
    "CurveP256": ("prime256v1", "P-256"),
    "CurveP384": ("secp384r1", "P-384"),
    "CurveP521": ("secp521r1", "P-521"),
    "X25519": ("X25519", "X25519"),
}
#: Key exchanges that newer versions of Go have, and Python's ssl cannot select.
_GO_ONLY_CURVES = frozenset({"X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"})
#: TLS versions from the oldest: the name in Python's ssl.TLSVersion.
VERSIONS = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}

_CLIENT_AUTH = (
    "NoClientCert",
    "RequestClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
)


class Version(str):
    """A TLS version, such as TLS12."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the version; ValueError if the name is unknown."""
        return cls(_one_of(raw, VERSIONS))


class Cipher(str):
    """Go's name of a cipher suite that Go regards as secure."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the suite; ValueError if the name is unknown."""
        return cls(_one_of(raw, [*CIPHERS, *TLS13_CIPHERS]))


class Curve(str):
    """Go's name of an elliptic curve."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the curve; ValueError if the name is unknown, or Python cannot select it."""
        if raw in _GO_ONLY_CURVES:
            msg = f"Python's ssl cannot select {raw}; known: {', '.join(CURVES)}"
            raise ValueError(msg)
        return cls(_one_of(raw, CURVES))


class ClientAuth(str):
    """Whether clients present certificates, and whether these are verified."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the type; ValueError if the name is unknown, or Python cannot do it."""
        if raw in {"RequireAnyClientCert", "RequireClientCert"}:
            msg = (
                f"Python's ssl cannot require a certificate without verifying it, as {raw} does;"
                " write RequireAndVerifyClientCert and client_ca_file, or NoClientCert to admit every client"
            )
            raise ValueError(msg)
        return cls(_one_of(raw, _CLIENT_AUTH)) if raw != "" else cls("NoClientCert")

    @property
    def verifies(self) -> bool:
        """Whether certificates are verified."""
        return "Verify" in self


def _one_of(raw: object, names: Iterable[str]) -> str:
    if isinstance(raw, str) and raw in names:
        return raw
    near = nearest(str(raw), list(names)) or nearest(str(raw).upper(), list(names))
    msg = (
        f"{raw!r} is unknown; did you mean {near}?"
        if near
        else f"expected one of {', '.join(names)}, got {raw!r}"
    )
    raise ValueError(msg)
