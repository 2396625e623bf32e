from __future__ import annotations

import errno
import socket
import ssl

import pytest

from bts_exporter.connection_errors import Product, connection_error
from bts_exporter.settings.value_types import Url

BROKER = Product("Broker", if_refused="is it running?", if_closed="is 1883 the right port?")


def certificate_error() -> ssl.SSLCertVerificationError:
    """Return the error of a certificate that is not trusted."""
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (TimeoutError(), "timeout", "no reply in time"),
        (ConnectionRefusedError(), "refused", "connection refused; is it running?"),
        (FileNotFoundError(errno.ENOENT, "x"), "refused", "no such socket; is it running?"),
        (
            certificate_error(),
            "tls",
            (
                "TLS certificate not accepted: self-signed certificate; set tls.ca_file to the CA"
                " that signed it, or tls.server_name to the name in it"
            ),
        ),
        (
            ssl.SSLError(1, "alert handshake failure"),
            "tls",
            (
                "TLS handshake failed: alert handshake failure; the server may require a client"
                " certificate (tls.cert_file, tls.key_file)"
            ),
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "dns",
            (
                "host name does not resolve: Name or service not known; check its spelling, and"
                " which name servers this machine or container uses"
            ),
        ),
        (PermissionError(errno.EACCES, "x"), "noperm", "permission denied by the operating system"),
        (
            ConnectionResetError(),
            "unreachable",
            "connection reset by the server; is 1883 the right port?",
        ),
        (EOFError(), "unreachable", "connection closed by the server; is 1883 the right port?"),
        (OSError(errno.EHOSTUNREACH, "No route"), "unreachable", "no route to host: No route"),
        (OSError(errno.EIO, "I/O error"), "os", "I/O error"),
    ],
    ids=repr,
)
def test_every_failure_names_product_address_cause_and_fix(
    error: Exception, reason: str, message: str
) -> None:
    """The same failure has the same reason and wording for every product."""
    url = Url.from_setting("mqtt://user:secret@broker:1883")

    found = connection_error(BROKER, url, error)

    assert (found.reason, str(found)) == (reason, f"Broker at mqtt://broker:1883: {message}")


def test_plain_port_that_answers_a_tls_handshake_is_named() -> None:
    """OpenSSL's code for an answer that is not TLS leads to the question about the port."""
    error = ssl.SSLError(1, "wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"

    found = connection_error(BROKER, "broker:1883", error)

    assert str(found).endswith("wrong version number; does this port speak TLS?")


def test_settings_of_tls_have_the_name_that_users_give_them() -> None:
    """A command that has flags instead of settings names its flags."""
    product = Product("Exporter", tls="--tls")

    refused = connection_error(product, "host:19100", certificate_error())
    handshake = connection_error(product, "host:19100", ssl.SSLError(1, "alert"))

    assert "set --tls.ca_file to the CA that signed it, or --tls.server_name" in str(refused)
    assert "(--tls.cert_file, --tls.key_file)" in str(handshake)


def test_advice_is_left_out_where_there_is_none() -> None:
    """A product without hints still gets a complete sentence."""
    product = Product("Redis")

    closed = connection_error(product, "cache:6379", ConnectionResetError())
    refused = connection_error(product, "cache:6379", ConnectionRefusedError())

    assert str(closed) == "Redis at cache:6379: connection reset by the server"
    assert str(refused).endswith("connection refused; is Redis running, and listening there?")
