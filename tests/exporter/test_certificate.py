from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter.certificate import expiry_of
from servers import need


def certificate(folder: Path, days: int, *arguments: str) -> bytes:
    """Return a certificate of its own authority in DER, valid for `days`."""
    file = folder / "certificate.pem"
    request = ("req", "-x509", "-nodes", "-subj", "/CN=a", "-days", str(days))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "/dev/null")
    argv = [need("openssl", "openssl"), *request, *key, "-out", str(file), *arguments]
    subprocess.run(argv, check=True, capture_output=True)
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.mark.parametrize("days", [1, 20_000], ids=["two digits", "four digits"])
def test_expiry_is_the_one_that_openssl_shows(days: int, tmp_path: Path) -> None:
    """Before 2050 a year has two digits in a certificate, and four from then on."""
    der = certificate(tmp_path, days)

    file = str(tmp_path / "certificate.pem")
    argv = [need("openssl", "openssl"), "x509", "-noout", "-enddate", "-in", file]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert expiry_of(der) == ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter="))


def test_long_names_do_not_matter(tmp_path: Path) -> None:
    """Lengths of more than one byte are read."""
    name = "/CN=a" + "/OU=" + "/OU=".join("u" * 60 for _ in range(9))

    assert expiry_of(certificate(tmp_path, 1, "-subj", name)) is not None


@given(st.binary(max_size=80))
def test_anything_else_has_no_expiry(der: bytes) -> None:
    """Whatever a server sends in place of a certificate, nothing is raised."""
    found = expiry_of(der)

    assert found is None or isinstance(found, float)
