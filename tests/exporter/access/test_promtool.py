"""promtool and bts-exporter agree which files are good, but for exceptions that are listed here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bts_exporter.access.tls_names import CIPHERS, TLS13_CIPHERS
from bts_exporter.access.watched_files import WatchedFiles
from bts_exporter.access.web_config import load
from bts_exporter.errors import ConfigError
from servers import need
from servers.certificate_authority import Authority

HASH = "$2y$10$" + "abcdefghijklmnopqrstuu" + "x" * 31
TLS = "cert_file: server.pem, key_file: server.key"


def tls(*settings: str) -> str:
    """Return a file that turns TLS on, with further settings."""
    return f"tls_server_config: {{{', '.join((TLS, *settings))}}}\n"


def header(line: str) -> str:
    """Return a file that sets one header."""
    return f"http_server_config:\n  headers:\n    {line}\n"


def users(line: str) -> str:
    """Return a file with one user."""
    return f"basic_auth_users:\n  {line}\n"


GOOD = {
    "empty": "",
    "comment": "# nothing\n",
    "empty_map": "{}\n",
    "empty_blocks": "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
    "tls": tls(),
    "tls_with_empty_client_ca": tls('client_ca_file: ""'),
    "absolute_paths": "tls_server_config: {cert_file: FOLDER/server.pem, key_file: FOLDER/server.key}\n",
    "chain": "tls_server_config: {cert_file: chain.pem, key_file: server.key}\n",
    "key_and_certificate_in_one_file": "tls_server_config: {cert_file: both.pem, key_file: both.pem}\n",
    "versions_without_certificate": "tls_server_config: {min_version: TLS13}\n",
    "tls13_only": tls("min_version: TLS13"),
    "tls12_only": tls("max_version: TLS12"),
    "tls10": tls("min_version: TLS10", "max_version: TLS11"),
    "all_ciphers": tls(f"cipher_suites: [{', '.join((*CIPHERS, *TLS13_CIPHERS))}]"),
    "one_cipher": tls("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"),
    "ciphers_of_tls13": tls("cipher_suites: [TLS_AES_128_GCM_SHA256]"),
    "no_ciphers": tls("cipher_suites: []"),
    "p256": tls("curve_preferences: [CurveP256]"),
    "x25519": tls("curve_preferences: [X25519]"),
    "no_curves": tls("curve_preferences: []"),
    "prefer_clients_ciphers": tls("prefer_server_cipher_suites: false"),
    "no_client_cert": tls("client_auth_type: NoClientCert"),
    "empty_auth_type": tls('client_auth_type: ""'),
    "request": tls("client_auth_type: RequestClientCert"),
    "verify_if_given": tls("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: ca.pem"),
    "mutual": tls("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem"),
    "mutual_without_ca": tls("client_auth_type: RequireAndVerifyClientCert"),
    "http2": "http_server_config: {http2: false}\n",
    "hsts": header("Strict-Transport-Security: max-age=31536000"),
    "nosniff": header("X-Content-Type-Options: nosniff"),
    "frame": header("X-Frame-Options: sameorigin"),
    "xss": header("X-XSS-Protection: 0"),
    "csp": header("Content-Security-Policy: \"default-src 'none'\""),
    "user": users(f"alice: {HASH}"),
    "user_2a": users(f"alice: {HASH.replace('2y', '2a')}"),
    "user_2b": users(f"alice: {HASH.replace('2y', '2b')}"),
    "cost_4": users(f"alice: {HASH.replace('$10$', '$04$')}"),
    "user_of_digits": users(f"123: {HASH}"),
    "user_without_name": users(f'"": {HASH}'),
    "user_in_utf8": users(f"zoë: {HASH}"),
    "no_users": "basic_auth_users: {}\n",
    "everything": tls("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
    + header("X-Frame-Options: deny")
    + users(f"alice: {HASH}"),
}
BAD = {
    "junk": "junk\n",
    "not_yaml": "tls_server_config: {cert_file\n",
    "list": "- tls_server_config\n",
    "tabs": "tls_server_config:\n\tcert_file: server.pem\n",
    "unknown_key": "tls_config: {}\n",
    "unknown_key_of_tls": tls("certificate: server.pem"),
    "unknown_key_of_http": "http_server_config: {http3: true}\n",
    "key_twice": "http_server_config: {http2: true, http2: true}\n",
    "block_twice": "http_server_config: {}\nhttp_server_config: {}\n",
    "no_key": "tls_server_config: {cert_file: server.pem}\n",
    "no_certificate": "tls_server_config: {key_file: server.key}\n",
    "empty_key": 'tls_server_config: {cert_file: server.pem, key_file: ""}\n',
    "only_client_ca": "tls_server_config: {client_ca_file: ca.pem}\n",
    "only_auth_type": "tls_server_config: {client_auth_type: NoClientCert}\n",
    "certificate_missing": "tls_server_config: {cert_file: absent.pem, key_file: server.key}\n",
    "key_missing": "tls_server_config: {cert_file: server.pem, key_file: absent.key}\n",
    "certificate_is_folder": "tls_server_config: {cert_file: ., key_file: server.key}\n",
    "certificate_is_key": "tls_server_config: {cert_file: server.key, key_file: server.key}\n",
    "key_is_certificate": "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n",
    "key_of_another": "tls_server_config: {cert_file: server.pem, key_file: other.key}\n",
    "chain_in_wrong_order": "tls_server_config: {cert_file: reversed.pem, key_file: server.key}\n",
    "key_encrypted": "tls_server_config: {cert_file: server.pem, key_file: encrypted.key}\n",
    "certificate_empty": "tls_server_config: {cert_file: empty.pem, key_file: server.key}\n",
    "certificate_cut_off": "tls_server_config: {cert_file: cut.pem, key_file: server.key}\n",
    "client_ca_missing": tls("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: no.pem"),
    "client_ca_without_type": tls("client_ca_file: ca.pem"),
    "client_ca_with_no_client_cert": tls(
        "client_auth_type: NoClientCert", "client_ca_file: ca.pem"
    ),
    "auth_type_unknown": tls("client_auth_type: Always"),
    "auth_type_in_lower_case": tls("client_auth_type: noclientcert"),
    "version_unknown": tls("min_version: TLS14"),
    "version_as_number": tls("min_version: 1.2"),
    "cipher_unknown": tls("cipher_suites: [TLS_OF_MINE]"),
    "cipher_by_openssls_name": tls("cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256]"),
    "cipher_insecure": tls("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"),
    "curve_unknown": tls("curve_preferences: [CurveP224]"),
    "curve_by_openssls_name": tls("curve_preferences: [prime256v1]"),
    "bool_as_text": tls("prefer_server_cipher_suites: maybe"),
    "header_unknown": header("Server: mine"),
    "header_in_lower_case": header("x-frame-options: deny"),
    "header_with_wrong_value": header("X-Frame-Options: ALLOWALL"),
    "header_in_upper_case": header("X-Content-Type-Options: NOSNIFF"),
    "password": users("alice: secret"),
    "hash_without_value": users("alice:"),
    "hash_too_short": users("alice: $2y$10$abc"),
    "hash_of_other_kind": users(
        "alice: $6$salt$abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz12"
    ),
    "cost_too_low": users(f"alice: {HASH.replace('$10$', '$03$')}"),
    "cost_too_high": users(f"alice: {HASH.replace('$10$', '$32$')}"),
    "users_as_list": "basic_auth_users: [alice]\n",
}
#: promtool accepts these, bts-exporter does not.
STRICTER = {
    "any_certificate": (
        tls("client_auth_type: RequireAnyClientCert"),
        "Python's ssl cannot require a certificate without verifying it",
    ),
    "two_curves": (
        tls("curve_preferences: [X25519, CurveP256]"),
        "Python's ssl before 3.15 takes one curve",
    ),
    "versions_swapped": (tls("min_version: TLS13", "max_version: TLS12"), "is above max_version"),
    "tls13_ciphers_for_tls12": (
        tls("max_version: TLS12", "cipher_suites: [TLS_AES_128_GCM_SHA256]"),
        "only suites of TLS 1.3",
    ),
    "client_ca_empty": (
        tls("client_auth_type: VerifyClientCertIfGiven", "client_ca_file: empty.pem"),
        "contains no certificate",
    ),
    "cost_of_hours": (users(f"alice: {HASH.replace('$10$', '$20$')}"), "the bcrypt cost must be"),
    "not_of_bcrypts_alphabet": (users(f'alice: "{HASH[:-1]}="'), "not a bcrypt hash"),
    "user_with_colon": (users(f'"a:b": {HASH}'), "must not contain colons"),
    "header_with_line_break": (
        header('Content-Security-Policy: "a\\nSet-Cookie: b"'),
        "must not contain line breaks",
    ),
}
#: Newer than Debian's promtool, which therefore refuses them.
NEWER = {
    "inline": "tls_server_config: {cert: CERT, key: KEY}\n",
    "inline_client_ca": tls("client_auth_type: VerifyClientCertIfGiven", "client_ca: CERT"),
    "sans": tls(
        "client_auth_type: RequireAndVerifyClientCert",
        "client_ca_file: ca.pem",
        "client_allowed_sans: [client.test]",
    ),
    "rate_limit": "rate_limit: {interval: 1s, burst: 5}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates of all kinds, and all files of settings."""
    folder = tmp_path_factory.mktemp("web_config")
    authority = Authority(folder, "ca")
    server, other = authority.sign("server", "subjectAltName=DNS:a"), authority.sign("other", "")
    cert, ca = server.cert.read_text(), authority.cert.read_text()
    (folder / "chain.pem").write_text(f"subject: server\n{cert}\n# ü\n{ca}{other.cert.read_text()}")
    (folder / "reversed.pem").write_text(ca + cert)
    (folder / "both.pem").write_text(server.key.read_text() + cert)
    (folder / "empty.pem").write_text("")
    (folder / "cut.pem").write_text(cert[:100] + "\n")
    argv = [need("openssl", "openssl"), "pkcs8", "-topk8", "-in", str(server.key), "-passout"]
    argv += ["pass:secret", "-out", str(folder / "encrypted.key")]
    subprocess.run(argv, check=True, capture_output=True)
    texts = {name: text for name, (text, _) in STRICTER.items()}
    for name, text in {**GOOD, **BAD, **texts, **NEWER}.items():
        filled = text.replace("FOLDER", str(folder))
        for word, path in (("CERT", server.cert), ("KEY", server.key)):
            filled = filled.replace(f" {word}", " " + repr(path.read_text())[1:-1].join('""'))
        (folder / f"{name}.yml").write_text(filled)
    return folder


@pytest.fixture(scope="module")
def promtool(folder: Path) -> dict[str, bool]:
    """Return which files promtool regards as good."""
    argv = [need("promtool", "prometheus"), "check", "web-config"]
    argv += map(str, sorted(folder.glob("*.yml")))
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    return {
        Path(line.split()[0]).stem: "SUCCESS" in line
        for line in lines
        if line.endswith("SUCCESS") or " FAILED: " in line
    }


def problems(file: Path) -> Iterator[str]:
    """Yield what bts-exporter finds wrong with a file."""
    try:
        load(file, WatchedFiles())
    except ConfigError as error:
        yield from map(str, error.problems)


def test_agreement(folder: Path, promtool: dict[str, bool]) -> None:
    """Of 90 files both regard the same as good and as bad."""
    ours = {name: not list(problems(folder / f"{name}.yml")) for name in (*GOOD, *BAD)}

    assert len(ours) >= 30
    assert ours == {name: promtool[name] for name in ours}
    assert ours == {**dict.fromkeys(GOOD, True), **dict.fromkeys(BAD, False)}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_explained(folder: Path, name: str) -> None:
    """Every error names the file, and the line if there is one to change."""
    found = list(problems(folder / f"{name}.yml"))

    assert all(problem.startswith(f"{folder / name}.yml:") for problem in found)
    assert all("secret" not in problem for problem in found)


@pytest.mark.parametrize("name", STRICTER)
def test_exceptions(folder: Path, promtool: dict[str, bool], name: str) -> None:
    """What Python cannot do, or what would be a mistake in any case, is refused with the reason."""
    _, reason = STRICTER[name]

    assert promtool[name]
    assert reason in "".join(problems(folder / f"{name}.yml"))


@pytest.mark.parametrize("name", NEWER)
def test_newer_settings(folder: Path, name: str) -> None:
    """Settings of the toolkit that Debian's promtool does not know are accepted."""
    assert list(problems(folder / f"{name}.yml")) == []
