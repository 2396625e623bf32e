"""Keys that users know from other programs, and where they belong here."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from bts_exporter.settings.field_types import keys_of
from bts_exporter.settings.value_types import Url

_USER = "user username user_name login usr"
_HOST = "host hostname host_name ip endpoint_host port tcp_port scheme"
_ADDRESS = "server broker address addr uri dsn endpoint broker_url connection connection_string target server_url"
_SEVERAL = "hosts servers addresses addrs uris urls targets nodes endpoints brokers instances"
_PASSWORD = "pass passwd passwort pwd pw secret auth requirepass passphrase"  # noqa: S105  # keys, no secret
_PASSWORD_FILE = "password_file passwordfile pass_file redis_pwd_file passwordfilepath"  # noqa: S105  # as above
_AUTH = "basic_auth authorization credentials login_info"
_TLS = "ssl use_ssl use_tls ssl_enabled tls_enabled secure"
_CA = "ca ca_cert ca_certs cacert cafile ca_path tls_ca ssl_ca tls_ca_cert_file ca_file"
_CERT = "cert certfile cert_path client_cert certificate tls_cert ssl_cert cert_file"
_KEY = "key keyfile key_path client_key private_key tls_key ssl_key key_file"
_INSECURE = (
    "insecure skip_verify verify verify_ssl ssl_verify tls_verify tls_skip_verify"
    " skip_tls_verification insecure_skip_verify skip_ssl_verify"
)
_SWITCH = "enabled enable disabled active"


def advice(key: str, known: Container[str], kind: type[Any] | None) -> str:
    """Return where `key` belongs, or nothing: `known` are the block's keys, `kind` its type."""
    own = getattr(kind, "advice", None)
    if isinstance(own, Mapping) and key in own:
        return str(own[key])
    word = key.lower().replace("-", "_")
    example = _example(kind)
    for words, needed, cure in (
        (_USER, "url", f"the user is part of the address: url: {example.format('USER@')}"),
        (_HOST, "url", f"it is part of the address: url: {example.format('')}"),
        (_ADDRESS, "url", f"the address is called url: {example.format('')}"),
        (_SEVERAL, "url", f"several are a list: - {{name: A, url: {example.format('')}}}"),
        (_PASSWORD, "password", "it is called password; password: !env NAME keeps it out of here"),
        (_PASSWORD_FILE, "password", "a password in a file is password: !file PATH"),
        (
            _AUTH,
            "url",
            f"a user and a password are url: {example.format('USER@')} and password: !env NAME",
        ),
        ("tls_config tlsconfig ssl_config", "tls", "it is called tls"),
        (_TLS, "tls", "TLS is asked for by the address; certificates are tls: {ca_file: PATH}"),
        (_CA, "tls", "it belongs into tls: {ca_file: PATH}"),
        (_CA, "ca_file", "it is called ca_file"),
        (_CERT, "tls", "it belongs into tls: {cert_file: PATH, key_file: PATH}"),
        (_CERT, "cert_file", "it is called cert_file, and goes with key_file"),
        (_KEY, "tls", "it belongs into tls: {cert_file: PATH, key_file: PATH}"),
        (_KEY, "key_file", "it is called key_file, and goes with cert_file"),
        (_INSECURE, "tls", "it belongs into tls: {insecure_skip_verify: true}"),
        (_INSECURE, "insecure_skip_verify", "it is called insecure_skip_verify"),
        ("scrape_interval poll_interval refresh every", "interval", "it is called interval"),
        ("connect_timeout scrape_timeout timeout_seconds", "timeout", "it is called timeout"),
        ("alias id instance label", "name", "it is called name"),
        ("tags extra_labels", "labels", "it is called labels"),
        ("whitelist allow include", "metrics", "metrics are chosen by metrics: {allow: [NAME]}"),
        ("blacklist deny exclude", "metrics", "metrics are left out by metrics: {deny: [NAME]}"),
        (_SWITCH, "metrics", "a collector is switched off by leaving its whole block out"),
    ):
        if word in words.split() and needed in known:
            return cure
    return ""


#: Top-level keys that are flags here, by flag.
_FLAGS = {
    "--web.listen-address": "listen listen_address address addr port host bind web http server",
    "--log.level": "log log_level loglevel logging level verbose debug",
    "--log.format": "log_format",
    "--web.telemetry-path": "path metrics_path telemetry_path",
}


def advice_at_top(key: str) -> str:
    """Return where a key at the top of the file belongs, or nothing."""
    word = key.lower().replace("-", "_")
    for flag, words in _FLAGS.items():
        if word in words.split():
            return f"it is a flag of the command: {flag}"
    if word in {"global", "scrape_configs", "rule_files", "alerting", "remote_write", "job_name"}:
        return "it belongs in Prometheus' configuration, not in the exporter's"
    if word in {"tls_server_config", "basic_auth_users", "http_server_config", "rate_limit"}:
        return "it belongs in a file of its own: --web.config.file"
    return ""


def _example(kind: type[Any] | None) -> str:
    """Return an address of this type of target, with a place for the user."""
    wanted: Any = kind
    for field in keys_of(wanted) or ():
        if field.name == "url" and isinstance(field.default, Url):
            port = f":{field.default.port}" if field.default.port else ""
            return f"{field.default.scheme}://{{}}HOST{port}"
    return "SCHEME://{}HOST:PORT"
