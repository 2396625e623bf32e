"""Addresses are read as the redis package's from_url reads them."""

from __future__ import annotations

import pytest
from redis.connection import parse_url

from bts_collectors.redis.client.address import SCHEMES, check, database, socket_path, with_host
from bts_exporter import Url


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("redis://example.net", 0),
        ("redis://example.net/", 0),
        ("rediss://example.net:6380/12", 12),
        ("unix:///run/redis.sock", 0),
        ("unix:///run/redis.sock?db=3", 3),
        ("redis://example.net?db=2", 2),
        ("redis://example.net/4?db=2", 2),
        ("redis://example.net/4?db=", 4),
        ("redis://example.net?db=2&db=3", 2),
        ("redis://example.net/%31", 1),
    ],
)
def test_number_of_the_database(url: str, number: int) -> None:
    """The path names the database, or the option `db`, which wins."""
    assert number == database(Url.from_setting(url))
    assert number == parse_url(url).get("db", 0)


@pytest.mark.parametrize("url", ["redis://example.net/cache", "unix:///run/redis.sock?db=x"])
def test_what_is_no_number_of_a_database(url: str) -> None:
    """Anything but a number is refused."""
    with pytest.raises(ValueError, match="expected the number of a database"):
        database(Url.from_setting(url))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "redis://h?socket_timeout=5",
            "unknown option 'socket_timeout': use the setting `timeout`",
        ),
        ("redis://h?password=x", "unknown option 'password': use the setting `password`"),
        ("rediss://h?ssl_ca_certs=/ca", "unknown option 'ssl_ca_certs': use `tls: {ca_file: ...}`"),
        ("redis://h?DB=2", "unknown option 'DB': the only option in an address is ?db=NUMBER"),
        ("redis://h?protocol=3", "unknown option 'protocol'"),
        ("unix://run/redis.sock", "a path begins with a slash: unix:///run/redis.sock"),
        ("redis://h?db=two", "expected the number of a database, got 'two'"),
        ("http://h", "expected redis://, rediss:// or unix://, got http://h"),
    ],
)
def test_addresses_that_are_refused(url: str, message: str) -> None:
    """An option without effect is refused; the error names the setting to use."""
    with pytest.raises(ValueError, match=r"option|expected|slash") as caught:
        check(Url.from_setting(url), *SCHEMES, key="address")

    assert str(caught.value).startswith(f"address: {message}")


@pytest.mark.parametrize("url", ["unix:///run/a%20b%25.sock?db=1", "unix://me@/run/redis.sock"])
def test_the_path_of_a_socket(url: str) -> None:
    """A path is percent-encoded in an address, as the redis package reads it."""
    assert socket_path(Url.from_setting(url)) == parse_url(url)["path"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://u:p@h:1/3", "redis://other:7/3"),
        ("rediss://h", "rediss://other:7"),
        ("unix:///run/redis.sock?db=3", "redis://other:7/3"),
    ],
)
def test_the_address_of_another_server(url: str, expected: str) -> None:
    """The address of another server has the login and database of the first one."""
    other = with_host(Url.from_setting(url), "other", 7)

    assert str(other) == expected
    assert database(other) == database(Url.from_setting(url))
    assert other.username == Url.from_setting(url).username
