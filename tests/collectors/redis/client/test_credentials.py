from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import ModuleType
from typing import Any

import pytest
import redis

from bts_collectors.redis.client.credentials import Provider, ProviderLogin, ProviderSetting
from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.collector import RedisCollector
from bts_exporter import Secret, TargetError, Url

SETTING = "some_login:provider"


class Fake(redis.CredentialProvider):
    """A provider whose credentials the test sets."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get

    def get_credentials(self) -> Any:
        """Return it."""
        return self._get()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give an installed module of a user."""
    made = ModuleType("some_login")
    monkeypatch.setitem(sys.modules, "some_login", made)
    return made


def login(module: ModuleType, get: Callable[[], Any]) -> ProviderLogin:
    """Return the login of a connection with a provider that gets its credentials from `get`."""
    module.provider = lambda: Fake(get)  # type: ignore[attr-defined]
    return ProviderLogin(Provider(ProviderSetting.from_setting(SETTING)))


@pytest.mark.parametrize("words", [("token",), ("user", "token"), ["user", "token"]])
def test_credentials_of_a_provider(module: ModuleType, words: Any) -> None:
    """A provider gives the password, or user and password."""
    assert login(module, lambda: words).credentials(monotonic() + 20) == tuple(words)


def test_a_provider_is_made_once_and_called_every_time(module: ModuleType) -> None:
    """All connections of a block share one provider, which is called for every new connection."""
    tokens = iter(("one", "two"))
    made: list[Fake] = []

    def provider() -> Fake:
        made.append(Fake(lambda: (next(tokens),)))
        return made[-1]

    module.provider = provider  # type: ignore[attr-defined]
    shared = Provider(ProviderSetting.from_setting(SETTING))

    assert [ProviderLogin(shared).credentials(monotonic() + 20) for _ in range(2)] == [
        ("one",),
        ("two",),
    ]
    assert len(made) == 1


def raising() -> None:
    """Raise the error of a library that cannot reach its service."""
    raise RuntimeError("no instance profile")  # noqa: EM101, TRY003


@pytest.mark.parametrize(
    ("get", "message"),
    [
        (raising, "failed with RuntimeError: no instance profile"),
        (lambda: "token", r"returned str, expected \(user, password\) or \(password,\)"),
        (lambda: ("a", "b", "c"), "returned tuple, expected"),
        (lambda: ("user", None), "returned tuple, expected"),
        (lambda: None, "returned NoneType, expected"),
    ],
)
def test_a_provider_that_fails(module: ModuleType, get: Callable[[], Any], message: str) -> None:
    """The failure has the reason auth, and names the setting, the callable and the cure."""
    with pytest.raises(TargetError, match=message) as caught:
        login(module, get).credentials(monotonic() + 20)

    assert caught.value.reason == "auth"
    assert str(caught.value).startswith(f"credentials: {SETTING} ")
    assert "redis.CredentialProvider" in str(caught.value)


def test_a_callable_that_returns_no_provider(module: ModuleType) -> None:
    """The error says if a callable returns a value of the wrong type."""
    module.provider = lambda: "token"  # type: ignore[attr-defined]
    login = ProviderLogin(Provider(ProviderSetting.from_setting(SETTING)))

    with pytest.raises(TargetError, match=r"AttributeError.*it must return"):
        login.credentials(monotonic() + 20)


def test_a_provider_that_hangs(module: ModuleType) -> None:
    """A provider that waits for its service costs no more than the time of the scrape."""
    finish = threading.Event()
    hanging = login(module, lambda: finish.wait(60) and ("token",))

    with pytest.raises(TargetError, match="did not answer in time") as caught:
        hanging.credentials(monotonic())
    finish.set()

    assert caught.value.reason == "auth"
    assert hanging.credentials(monotonic() + 20) == ("token",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("some_login", "'some_login' is not a valid credential provider"),
        (":provider", "is not a valid credential provider .expected module:callable"),
        (7, "7 is not a valid credential provider"),
        ("no_such_module:provider", "module 'no_such_module' cannot be imported: .*install"),
        ("some_login:absent", "module 'some_login' has no callable 'absent'"),
        ("some_login:__name__", "module 'some_login' has no callable '__name__'"),
    ],
)
@pytest.mark.usefixtures("module")
def test_invalid_settings(raw: object, message: str) -> None:
    """An error in the setting names the module or the callable, and the cure."""
    with pytest.raises(ValueError, match=message):
        ProviderSetting.from_setting(raw)


@pytest.mark.parametrize(
    "also", [{"password": Secret("x")}, {"url": Url("redis", "h", username="u")}]
)
def test_credentials_exclude_a_password(module: ModuleType, also: dict[str, Any]) -> None:
    """A user or a password in the settings would be ignored, and is refused."""
    module.provider = Fake  # type: ignore[attr-defined]

    with pytest.raises(ValueError, match="credentials: the provider gives user and password"):
        RedisCollector.Config(credentials=ProviderSetting.from_setting(SETTING), **also)


@pytest.mark.parametrize(
    ("address", "password"), [("redis://bts@h", None), ("redis://h", Secret("x"))]
)
def test_credentials_of_sentinels_exclude_a_password(
    module: ModuleType, address: str, password: Secret | None
) -> None:
    """The sentinels' user or password would be ignored, too."""
    module.provider = Fake  # type: ignore[attr-defined]

    with pytest.raises(ValueError, match="remove them from `addresses` and `password`"):
        SentinelSettings(
            master="orders",
            addresses=(Url.from_setting(address),),
            password=password,
            credentials=ProviderSetting.from_setting(SETTING),
        )
