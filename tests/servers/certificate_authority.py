"""An authority that signs certificates of any kind for tests: expired, without names, with odd keys."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from servers import need


class Signed(NamedTuple):
    """A certificate and its key, files in PEM."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates in a folder of its own."""

    def __init__(self, folder: Path, name: str, signer: Signed | None = None) -> None:
        """Make its own certificate, or sign with the one that is given."""
        self.folder = folder
        self._signer = signer
        self._signer = signer or self.sign(name)

    @property
    def cert(self) -> Path:
        """The authority's own certificate."""
        assert self._signer is not None
        return self._signer.cert

    def sign(self, name: str, *extensions: str, days: int = 2, key: str = "ec") -> Signed:
        """Return a certificate with `extensions`, such as subjectAltName=DNS:a; `days` may be negative."""
        made = Signed(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        kinds = {"ec": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), "rsa": ("rsa:2048",)}
        self._openssl("req", "-new", "-nodes", "-subj", f"/CN={name}", "-newkey", *kinds[key],
                      "-keyout", str(made.key), "-out", str(made.cert.with_suffix(".csr")))  # fmt: skip
        file = made.cert.with_suffix(".ext")
        file.write_text("\n".join(extensions) or "basicConstraints=CA:TRUE\n")
        signer = self._signer
        by = ("-signkey", str(made.key))
        if signer is not None:
            by = ("-CA", str(signer.cert), "-CAkey", str(signer.key), "-CAcreateserial")  # type: ignore[assignment]
        self._openssl("x509", "-req", "-in", str(made.cert.with_suffix(".csr")), *by,
                      "-days", str(days), "-extfile", str(file), "-out", str(made.cert))  # fmt: skip
        return made

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run([need("openssl", "openssl"), *arguments], check=True, capture_output=True)
