"""The settings that all connections of a block share: login, TLS and keepalive."""

from __future__ import annotations

from dataclasses import dataclass

from bts_collectors.redis.client.credentials import Login, PasswordLogin, Provider, ProviderLogin
from bts_collectors.redis.client.keepalive import DEFAULT_KEEPALIVE, Keepalive
from bts_exporter import Secret, TLSConfig, Url

_NO_TLS_SETTINGS = TLSConfig()


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to connect, to whichever server."""

    #: Wins over the password in an address.
    password: Secret | None = None
    #: Replaces user and password.
    provider: Provider | None = None
    tls: TLSConfig = _NO_TLS_SETTINGS
    keepalive: Keepalive = DEFAULT_KEEPALIVE

    def login(self, url: Url) -> Login:
        """Return the login of one connection to `url`."""
        if self.provider is not None:
            return ProviderLogin(self.provider)
        return PasswordLogin(url.username, self.password or url.password)
