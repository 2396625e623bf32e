from __future__ import annotations

from base64 import b64decode
from contextlib import closing

import pytest

from bts_collectors.rabbitmq.api.client import EXPORTER, MANAGEMENT, Server, connect
from bts_exporter import Secret, TargetError, Url
from servers import free_port
from servers.management import FakeManagement


@pytest.mark.parametrize(
    ("credentials", "password", "expected"),
    [
        ("", None, "guest:guest"),
        ("", "s3cret", "guest:s3cret"),
        ("monitor:old@", "new", "monitor:new"),
        ("monitor@", None, "monitor:"),
    ],
)
def test_user_is_guest_unless_the_address_names_one(
    management: FakeManagement, credentials: str, password: str | None, expected: str
) -> None:
    """Without a user in the address, the default user of a new RabbitMQ is used."""
    url = Url.from_setting(management.url.replace("//", f"//{credentials}"))
    secret = None if password is None else Secret(password)
    with closing(connect(MANAGEMENT, url, secret)) as client:
        client.get("/api/overview", 20)

    sent = management.headers[0]["Authorization"].partition(" ")[2]
    assert b64decode(sent).decode() == expected


@pytest.mark.parametrize(
    ("server", "plugin"),
    [(MANAGEMENT, "rabbitmq_management"), (EXPORTER, "rabbitmq_prometheus")],
)
def test_refused_connection_names_the_plugin_to_enable(server: Server, plugin: str) -> None:
    """The error for a closed port gives the command that enables the plugin."""
    url = Url.from_setting(f"http://127.0.0.1:{free_port()}")
    with (
        closing(connect(server, url)) as client,
        pytest.raises(TargetError, match=f"rabbitmq-plugins enable {plugin}"),
    ):
        client.get("/", 20)
