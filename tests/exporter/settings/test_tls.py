from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest

from bts_exporter import TargetError, TLSConfig, Url
from servers import need
from servers.certificates import Certificates


def test_by_default_the_system_is_trusted() -> None:
    """By default a certificate must be valid for the host and signed by an authority of the system."""
    context = TLSConfig().context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_an_authority_instead_of_the_systems(certificates: Certificates) -> None:
    """With `ca_file` only its authorities are trusted."""
    (authority,) = TLSConfig(ca_file=str(certificates.ca)).context().get_ca_certs()

    assert authority["subject"] == ((("commonName", "ca"),),)


def test_no_verification() -> None:
    """With `insecure_skip_verify` the certificate is not checked."""
    context = TLSConfig(insecure_skip_verify=True).context()

    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


@pytest.mark.parametrize("one", ["cert_file", "key_file"])
def test_certificate_and_key_belong_together(one: str) -> None:
    """`cert_file` without `key_file`, and the reverse, is an error."""
    with pytest.raises(ValueError, match="cert_file and key_file belong together"):
        TLSConfig(**{one: "/client.pem"})


def test_unknown_keys_are_refused() -> None:
    """A misspelled setting is an error."""
    with pytest.raises(msgspec.ValidationError, match="cafile"):
        msgspec.convert({"cafile": "/ca.pem"}, TLSConfig)


def test_files_that_cannot_be_used(certificates: Certificates, tmp_path: Path) -> None:
    """The error about an unusable file names its setting and path, and has the reason `tls`."""
    missing = str(tmp_path / "missing.pem")
    cert, key = str(certificates.client), str(certificates.client_key)
    wrong = {
        f"ca_file {missing} cannot be used: No such file": TLSConfig(ca_file=missing),
        f"ca_file {key} cannot be used: ": TLSConfig(ca_file=key),
        f"cert_file {cert} with key_file {missing} cannot be used: No such file": TLSConfig(
            cert_file=cert, key_file=missing
        ),
        f"key_file {certificates.server_key} cannot be used: ": TLSConfig(
            cert_file=cert, key_file=str(certificates.server_key)
        ),
    }
    for message, config in wrong.items():
        with pytest.raises(TargetError) as caught:
            config.context()
        assert message in str(caught.value)
        assert caught.value.reason == "tls"


def test_files_that_are_pipes(certificates: Certificates, tmp_path: Path) -> None:
    """A pipe, for whose writer OpenSSL would wait, is refused at once."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    cert = str(certificates.client)

    for config in (TLSConfig(ca_file=pipe), TLSConfig(cert_file=cert, key_file=pipe)):
        with pytest.raises(TargetError, match=f"_file {pipe} cannot be used: not a regular file"):
            config.context()


def test_a_key_with_a_passphrase_asks_nobody(certificates: Certificates, tmp_path: Path) -> None:
    """An encrypted key is an error; OpenSSL does not ask for a passphrase on the terminal."""
    locked = tmp_path / "locked.key"
    argv = [need("openssl", "openssl"), "ec", "-aes256", "-passout", "pass:abcd"]
    files = ["-in", str(certificates.client_key), "-out", str(locked)]
    subprocess.run([*argv, *files], check=True, capture_output=True)

    with pytest.raises(TargetError, match="cannot be used"):
        TLSConfig(cert_file=str(certificates.client), key_file=str(locked)).context()


def test_renewed_files_count_at_once(certificates: Certificates, tmp_path: Path) -> None:
    """The files are read for each context, so that a renewed certificate needs no restart."""
    file = tmp_path / "ca.pem"
    config = TLSConfig(ca_file=str(file))
    with pytest.raises(TargetError):
        config.context()

    file.write_bytes(certificates.ca.read_bytes())

    assert len(config.context().get_ca_certs()) == 1


def test_paths_are_relative_to_the_settings() -> None:
    """Relative paths are resolved against a folder; absolute ones and other settings stay."""
    config = TLSConfig(ca_file="ca.pem", cert_file="/a.pem", key_file="../a.key", server_name="x")

    assert config.below(Path("/etc/bts")) == TLSConfig(
        ca_file="/etc/bts/ca.pem",
        cert_file="/a.pem",
        key_file="/etc/bts/../a.key",
        server_name="x",
    )
    assert TLSConfig().below(Path("/etc/bts")) == TLSConfig()


def test_tls_settings_need_an_address_that_uses_tls() -> None:
    """TLS settings without an address that uses TLS are an error."""
    plain, secure = Url("mqtt", "broker"), Url("https", "api")
    tls = TLSConfig(ca_file="ca.pem")
    TLSConfig().require_used_by(plain, schemes=("mqtts",))
    tls.require_used_by(plain, secure, schemes=("mqtts", "https"))

    with pytest.raises(ValueError, match=r"^tls: only mqtts:// uses TLS, got mqtt://$"):
        tls.require_used_by(plain, schemes=("mqtts",))
    with pytest.raises(ValueError, match=r"only a:// and b:// use TLS, got mqtt:// and https://$"):
        tls.require_used_by(plain, secure, schemes=("a", "b"))
