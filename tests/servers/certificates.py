"""Certificates for servers of tests: an authority of our own, a server and a client that it knows."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from servers import need

#: The name of the server's certificate, which no address of a test has.
SERVER_NAME = "server.test"


class Certificates(NamedTuple):
    """Files in PEM."""

    ca: Path
    #: Of 127.0.0.1 and SERVER_NAME.
    server: Path
    server_key: Path
    #: Of SERVER_NAME only.
    named: Path
    named_key: Path
    client: Path
    client_key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates, valid for two days."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, *arguments: str) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        request = ("req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        fast = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        files = ("-keyout", str(key), "-out", str(cert))
        argv = [need("openssl", "openssl"), *request, *fast, *files, *arguments]
        subprocess.run(argv, check=True, capture_output=True)
        return cert, key

    ca, ca_key = make("ca")
    signed = ("-CA", str(ca), "-CAkey", str(ca_key), "-addext")
    both = f"subjectAltName=IP:127.0.0.1,DNS:{SERVER_NAME}"
    return Certificates(
        ca,
        *make("server", *signed, both),
        *make("named", *signed, f"subjectAltName=DNS:{SERVER_NAME}"),
        *make("client", *signed, "subjectAltName=DNS:client.test"),
    )
