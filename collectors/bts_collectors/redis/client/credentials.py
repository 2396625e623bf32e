"""The login: user and password of the settings, or a credential provider of the `redis` package.

Providers are for managed services with logins that expire (IAM, Entra ID): the `redis` package asks
them at every connection, and so does the exporter.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from redis.credentials import UsernamePasswordCredentialProvider

from bts_collectors.redis.client.bounded_call import BoundedCall
from bts_exporter import Secret, TargetError

_EXPECTED = "expected module:callable, such as my_login:provider"
#: One or two strings: the password, or user and password.
_LENGTHS = (1, 2)


@dataclass(frozen=True, slots=True)
class ProviderSetting:
    """`module:callable`; the callable returns a `redis.CredentialProvider`."""

    spelling: str
    factory: Callable[[], Any] = field(repr=False, compare=False)

    example: ClassVar[str] = "my_login:provider"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts, if it can be imported."""
        return {"type": "string", "pattern": r"^[^:]+:[\s\S]"}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the setting with its callable imported; ValueError with the cure if it cannot be imported."""
        module_name, _, name = raw.partition(":") if isinstance(raw, str) else ("", "", "")
        if not module_name or not name:
            msg = f"{raw!r} is not a valid credential provider ({_EXPECTED})"
            raise ValueError(msg)
        try:
            module = importlib.import_module(module_name)
        except (ImportError, SystemExit) as error:
            cure = f"install the package that has {module_name!r} where bts-exporter is installed"
            msg = f"module {module_name!r} cannot be imported: {error}; {cure}"
            raise ValueError(msg) from error
        factory = getattr(module, name, None)
        if not callable(factory):
            msg = f"module {module_name!r} has no callable {name!r} ({_EXPECTED})"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        return cls(str(raw), factory)


class Login(Protocol):
    """Gives the arguments of AUTH for each new connection."""

    def credentials(self, deadline: float) -> tuple[str, ...]:
        """Return the password, user and password, or nothing for a server without a login.

        TargetError (auth) if they are not known by `deadline`, on time.monotonic's clock.
        """

    def renew(self) -> bool:
        """Return whether there are other credentials, after these were refused."""


class PasswordLogin:
    """User and password of the settings."""

    def __init__(self, username: str | None, password: Secret | None) -> None:
        """Take what the settings say; both may be missing."""
        self._username = username
        self._password = password

    def credentials(self, deadline: float) -> tuple[str, ...]:  # noqa: ARG002  # known already
        """Return the words of AUTH."""
        if self._password is None and not self._username:
            return ()
        password = self._password.reveal() if self._password is not None else ""
        provider = UsernamePasswordCredentialProvider(self._username, password)
        return tuple(provider.get_credentials())  # type: ignore[no-untyped-call]

    def renew(self) -> bool:
        """Return whether the password has changed where the settings took it from."""
        before = self._password
        self._password = before and before.reread()
        return self._password != before


class Provider:
    """One credential provider, which all connections of a block share; it is made when needed."""

    def __init__(self, setting: ProviderSetting) -> None:
        """Take the setting. Nothing is called here."""
        self.setting = setting
        self._lock = threading.Lock()
        self._made: Any = None

    def fetch(self) -> Any:
        """Return what the provider says; it may raise anything, and take any time."""
        with self._lock:
            if self._made is None:
                self._made = self.setting.factory()
            return self._made.get_credentials()


class ProviderLogin:
    """Asks a provider for every connection, in a thread: it may wait for a service elsewhere."""

    def __init__(self, provider: Provider) -> None:
        """Take the provider."""
        self._provider = provider
        self._call = BoundedCall("bts-redis-credentials")

    def credentials(self, deadline: float) -> tuple[str, ...]:
        """Return the words of AUTH."""
        try:
            words, error = self._call.outcome("", self._provider.fetch, deadline)
        except TimeoutError:
            raise _failure(self._provider, "did not answer in time") from None
        except RuntimeError as no_thread:
            raise _failure(self._provider, f"cannot be called: {no_thread}") from no_thread
        if error is not None:
            kind = type(error).__name__
            raise _failure(self._provider, f"failed with {kind}: {str(error)[:200]}")
        if not _are_words(words):
            # Not quoted: there may be a password in it.
            what = f"returned {type(words).__name__}, expected (user, password) or (password,)"
            raise _failure(self._provider, what)
        return tuple(words)

    def renew(self) -> bool:
        """Return False: a provider always gives its current credentials."""
        return False


def _failure(provider: Provider, what: str) -> TargetError:
    cure = "it must return a redis.CredentialProvider that works on this host"
    return TargetError("auth", f"credentials: {provider.setting.spelling} {what}; {cure}")


def _are_words(words: Any) -> bool:
    return (
        isinstance(words, tuple | list)
        and len(words) in _LENGTHS
        and all(isinstance(word, str) for word in words)
    )
