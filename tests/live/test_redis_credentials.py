"""Logins from a credential provider of the `redis` package, as managed services need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.exporter import StartExporter
from servers.redis import MakeRedis, RedisServer, calls
from servers.redis_groups import MASTER, MakeSentinel, RedisCluster

pytestmark = pytest.mark.live

#: Reads user and token from a file, as a service's library gets them from its service.
MODULE = """
from pathlib import Path

import redis


class FromFile(redis.CredentialProvider):
    def get_credentials(self):
        return tuple(Path({file!r}).read_text().split())


def provider():
    return FromFile()
"""


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file of user and token; the module `file_login` is installed for the exporter."""
    site = tmp_path / "site"
    site.mkdir()
    file = tmp_path / "token"
    (site / "file_login.py").write_text(MODULE.format(file=str(file)))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    return file


def set_token(server: RedisServer, token: str) -> None:
    """Make the server accept user iam with this token only, and close the user's connections."""
    server.client.execute_command(
        *("ACL", "SETUSER", "iam", "on", "resetpass", f">{token}", "~*", "+@all")
    )
    for client in server.client.client_list():
        if client["user"] == "iam":
            server.client.client_kill_filter(_id=client["id"])


def test_a_token_that_is_renewed(
    make_redis: MakeRedis, exporter: StartExporter, token_file: Path
) -> None:
    """The provider is called for every connection, so that a new token is used when the old one expires."""
    server = make_redis()
    set_token(server, "first")
    token_file.write_text("iam first")
    page = exporter(
        f"collectors:\n  redis: {{url: '{server.url}', credentials: 'file_login:provider'}}"
    )
    assert page.value("redis_up") == 1

    set_token(server, "second")
    token_file.write_text("iam second")

    assert page.value("redis_up") == 1
    assert {client["user"] for client in server.client.client_list()} == {"default", "iam"}


def test_a_wrong_token(make_redis: MakeRedis, exporter: StartExporter, token_file: Path) -> None:
    """A refused token has the reason auth, and is tried once a scrape."""
    server = make_redis()
    set_token(server, "first")
    token_file.write_text("iam wrong")
    page = exporter(
        f"collectors:\n  redis: {{url: '{server.url}', credentials: 'file_login:provider'}}"
    )

    assert page.value("redis_up") == 0
    before = calls(server.client, "auth")
    assert page.value("redis_exporter_last_scrape_error", err="auth") == 1
    assert calls(server.client, "auth") == before + 1


def test_the_master_of_a_sentinel(
    make_redis: MakeRedis,
    make_sentinel: MakeSentinel,
    exporter: StartExporter,
    token_file: Path,
) -> None:
    """The sentinels and their master each have a provider."""
    server = make_redis()
    sentinel = make_sentinel(server)
    for target in (server, sentinel):
        target.client.execute_command(
            *("ACL", "SETUSER", "iam", "on", ">first", "~*", "&*", "+@all"),
        )
    token_file.write_text("iam first")
    page = exporter(
        f"""
collectors:
  redis:
    url: redis://ignored
    credentials: file_login:provider
    sentinel:
      master: {MASTER}
      addresses: ["{sentinel.url}"]
      credentials: file_login:provider
"""
    )

    assert page.value("redis_up") == 1
    assert calls(server.client, "auth") == 1


def test_the_nodes_of_a_cluster(
    redis_cluster: RedisCluster, exporter: StartExporter, token_file: Path
) -> None:
    """All nodes of a cluster use the same provider."""
    for name in ("a", "b"):
        redis_cluster.owner(name).client.rpush(name, 1)
    for node in redis_cluster.nodes:
        node.client.execute_command(*("ACL", "SETUSER", "iam", "on", ">first", "~*", "+@all"))
    token_file.write_text("iam first")
    page = exporter(
        f"""
collectors:
  redis:
    url: {redis_cluster.nodes[0].url}
    credentials: file_login:provider
    cluster: true
    keys: [a, b]
"""
    )

    samples = page.samples()
    users = [
        {client["user"] for client in node.client.client_list()}
        for node in redis_cluster.primaries()
    ]
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "DELUSER", "iam")

    assert sum(name == "redis_key_size" for name, _ in samples) == 2
    assert all("iam" in names for names in users)
