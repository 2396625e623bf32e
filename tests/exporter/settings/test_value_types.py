from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter import Duration, Secret, Url


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (0, 0),
        (15, 15),
        (0.25, 0.25),
        ("500ms", 0.5),
        ("15s", 15),
        ("1.5s", 1.5),
        ("1m30s", 90),
        ("2h", 7200),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_duration(raw: object, seconds: float) -> None:
    """A duration is a number of seconds, or written as Prometheus writes them."""
    assert Duration.from_setting(raw) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "raw", ["", "15", "s", "-1s", "1s1m", "1 s", "1.5m", True, None, [1], {"s": 1}, "soon"]
)
def test_what_is_no_duration(raw: object) -> None:
    """Any other value is refused with an example of a valid one."""
    with pytest.raises(ValueError, match=r"expected seconds or a duration such as 1m30s, got "):
        Duration.from_setting(raw)


@pytest.mark.parametrize("raw", [-1, -0.5, float("inf"), float("nan"), 10**400])
def test_duration_out_of_range(raw: object) -> None:
    """A duration must be finite and not negative."""
    with pytest.raises(ValueError, match="a duration must be finite and not negative"):
        Duration.from_setting(raw)


def test_secret_shows_itself_only_when_asked() -> None:
    """A secret is not shown by any usual way of printing it."""
    secret = Secret.from_setting("hunter2")

    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        "{}".format(secret),  # noqa: UP032  # one of the ways
        repr([secret]),
        f"{secret!r:>30}",
    ]

    assert [text for text in shown if "hunter2" in text] == []
    assert secret.reveal() == "hunter2"


def test_secrets_are_compared_by_content() -> None:
    """Secrets can be compared, so that a reload can detect a change."""
    assert Secret.from_setting("a") == Secret.from_setting("a")
    assert Secret.from_setting("a") != Secret.from_setting("b")


@pytest.mark.parametrize("raw", [271828, 2.7, True, None, ["hunter2"]])
def test_secret_that_is_no_text(raw: object) -> None:
    """A password that is a number must be quoted; the message does not show it."""
    with pytest.raises(
        ValueError, match=r"expected a string, got \w+ \(put it in quotes\)"
    ) as caught:
        Secret.from_setting(raw)

    assert str(raw) not in str(caught.value).replace("NoneType", "")


def test_url_in_parts() -> None:
    """An address is split into its parts, and its credentials are percent-decoded."""
    url = Url.from_setting("amqp://us%40er:p%2Fw%23d@[2001:db8::1]:5672/v%2Fhost?heartbeat=10")

    assert (url.scheme, url.host, url.port) == ("amqp", "2001:db8::1", 5672)
    assert (url.path, url.query, url.username) == ("/v%2Fhost", "heartbeat=10", "us@er")
    assert url.password is not None
    assert url.password.reveal() == "p/w#d"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("redis://user:hunter2@cache:6379/0", "redis://cache:6379/0"),
        ("redis://:hunter2@cache", "redis://cache"),
        ("http://[::1]:15672", "http://[::1]:15672"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("http://host/path?token=hunter2", "http://host/path"),
    ],
)
def test_url_as_text_has_no_secrets(raw: str, shown: str) -> None:
    """The text form has neither credentials nor the query."""
    url = Url.from_setting(raw)

    assert str(url) == shown
    assert "hunter2" not in repr(url)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "cache:6379",
        "//cache",
        "redis://",
        "redis://:hunter2@",
        "redis://a:hunter2@[::1",
        "redis://a:hunter2@h:port",
        "redis://a:hunter2@h:99999",
        "unix://",
    ],
)
def test_what_is_no_url(raw: str) -> None:
    """An invalid address is refused without quoting it, because it may contain a password."""
    with pytest.raises(ValueError, match=r"an address is scheme://host") as caught:
        Url.from_setting(raw)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", ["redis://u:hun/ter2@h", "redis://u:hun#ter2@h", "redis://u:hun?ter2@h"]
)
def test_url_with_a_password_that_splits_it(raw: str) -> None:
    """A password with an unencoded special character is refused, and its rest is not shown as a path."""
    with pytest.raises(ValueError, match=r"percent-encode") as caught:
        Url.from_setting(raw)

    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "cure"),
    [
        ("redis://a:1,b:2", "an address has one"),
        ("redis://u:hunter2@a:1,b:2/x", "an address has one"),
        ("redis://a:1,", "a comma at its end"),
        ("redis://::1:6379", "needs brackets"),
        ("redis://:hunter2@fe80::1", "needs brackets"),
        ("redis://u:@h", "the password is empty"),
        ("redis://:@h", "the password is empty"),
        ("redis://u:hunter2@h:6379 ", "unexpected space"),
        ("redis://<hunter2>", "invalid characters in the host name"),
        ("redis://{hunter2}:1", "invalid characters in the host name"),
        ("redis://h:0", "invalid port 0"),
        ("redis://h/#hunter2", "unexpected #"),
    ],
)
def test_url_that_would_be_misread(raw: str, cure: str) -> None:
    """Parts that would be misread or ignored are refused with the fix."""
    with pytest.raises(ValueError, match=re.escape(cure)) as caught:
        Url.from_setting(raw)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", ["redis://my_redis.local", "redis://bücher.example", "redis://[fe80::1%25eth0]:1"]
)
def test_hosts_of_every_kind(raw: str) -> None:
    """Host names with an underscore or non-ASCII letters, and addresses with a zone, are valid."""
    assert Url.from_setting(raw).host


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_secret_that_is_empty(text: str) -> None:
    """An empty password is refused."""
    with pytest.raises(ValueError, match="the password is empty"):
        Secret.from_setting(text)


@pytest.mark.parametrize("raw", [6379, None, ["redis://h"]])
def test_url_that_is_no_text(raw: object) -> None:
    """A value that is not a text is refused with an example."""
    with pytest.raises(ValueError, match="expected an address such as redis://host:6379, got "):
        Url.from_setting(raw)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_credentials_survive_and_stay_hidden(user: str, password: str) -> None:
    """Percent-encoded credentials of any characters are decoded completely, and are not in the text form."""
    url = Url.from_setting(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h:1/0")

    assert url.username == user
    assert url.password == Secret(password)
    assert str(url) == "redis://h:1/0"


def test_url_of_an_expected_scheme() -> None:
    """A collector names the schemes that it supports, and every other one is refused."""
    url = Url.from_setting("http://user:s3cret@broker:15672/api")
    url.require_scheme("http", "https")

    with pytest.raises(
        ValueError, match=r"^native: expected amqp://, got http://broker:15672/api$"
    ):
        url.require_scheme("amqp", key="native")
    with pytest.raises(
        ValueError, match=r"^url: expected redis://, rediss:// or unix://, got http"
    ):
        url.require_scheme("redis", "rediss", "unix")
