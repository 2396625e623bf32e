"""The plug-in and Debian's nats-server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nkeys
import pytest
from nats.js import JetStreamContext
from nkeys import PREFIX_BYTE_ACCOUNT, PREFIX_BYTE_OPERATOR, PREFIX_BYTE_USER

from bts_exporter.testing import ExporterProcess, collect, configured, look, naming_problems, run
from bts_exporter_nats import Nats
from servers import Process, free_port, listens, need
from servers.certificates import Certificates

#: The user `half` may not list the consumers of the stream `secret`.
USERS = """
authorization { users = [
  { user: admin, password: hidden }
  { user: half, password: hidden, permissions: { publish: { deny: ["$JS.API.CONSUMER.LIST.secret"] } } }
] }
"""
CREDENTIALS = """
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------
-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""
#: How far clocks of processes may be apart on a virtual machine, in seconds.
SKEW = 10
StartNats = Callable[..., "NatsServer"]


class NatsServer(Process):
    """A NATS with JetStream."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self.url = f"nats://admin@127.0.0.1:{self.port}"
        config = folder / "nats.conf"
        config.write_text("\n".join([f'jetstream {{ store_dir: "{folder}" }}', *settings]))
        program = need("nats-server", "nats-server")
        super().__init__(
            [program, "-a", "127.0.0.1", "-p", f"{self.port}", "-c", f"{config}"], folder
        )
        self.ready(lambda: listens(self.port))

    def use(self, work: Callable[[JetStreamContext], Any], **options: Any) -> None:
        """Run `work`, a coroutine function, with JetStream."""

        async def connected() -> None:
            options.setdefault("servers", f"nats://admin:hidden@127.0.0.1:{self.port}")
            client = await nats.connect(connect_timeout=30, **options)
            await work(client.jetstream(timeout=30))
            await client.close()

        asyncio.run(connected())

    def collector(self, **settings: Any) -> Nats:
        """Return a collector of this server."""
        found = configured(Nats, **{"url": self.url, "password": "hidden", **settings})
        assert isinstance(found, Nats)
        return found


@pytest.fixture
def start_nats(tmp_path: Path) -> Iterator[StartNats]:
    """Give a function that starts a server; all end with the test."""
    running: list[NatsServer] = []

    def start(*settings: str, users: str = USERS) -> NatsServer:
        running.append(NatsServer(tmp_path, users, *settings))
        return running[-1]

    yield start
    for server in running:
        server.kill()


async def publish(js: JetStreamContext, *subjects: str) -> list[tuple[float, float]]:
    """Publish messages; return between which times each one was."""
    times = []
    for subject in subjects:
        before = time.time()
        await js.publish(subject, b"x")
        times.append((before, time.time()))
    return times


@pytest.mark.live
def test_consumer_that_stopped(
    start_nats: StartNats, bts_exporter_process: Callable[..., ExporterProcess]
) -> None:
    """Backlog and ages of a stopped consumer are those of the messages; after the server's end nats_up is 0."""
    server = start_nats()
    times: list[tuple[float, float]] = []

    async def begin(js: JetStreamContext) -> None:
        await js.add_stream(name="orders", subjects=["orders.*"])
        times.extend(await publish(js, "orders.a"))
        await js.add_consumer("orders", durable_name="billing", ack_policy="explicit")

    async def take_one(js: JetStreamContext) -> None:
        times.extend(await publish(js, "orders.b", "orders.b"))
        consumer = await js.pull_subscribe("", durable="billing", stream="orders")
        await consumer.fetch(1, timeout=30)  # and it stops without an acknowledgement

    server.use(begin)
    exporter = bts_exporter_process({"nats": {"url": server.url, "password": "hidden"}})
    assert exporter.page().value("messaging_backlog_messages", group="billing") == 1
    server.use(take_one)
    queue = {"system": "nats", "destination": "orders", "group": "billing"}
    exporter.wait_for(  # NATS adds a message to num_pending after it has acknowledged it
        lambda: exporter.page().value("messaging_backlog_messages", **queue) == 2,
        "the published messages wait",
    )
    start = time.time()
    page = exporter.page()
    end = time.time()

    assert page.value("nats_up") == 1
    assert page.value("messaging_backlog_messages", **queue) == 2
    assert page.value("messaging_in_flight_messages", **queue) == 1
    assert page.value("messaging_consumed_messages_total", **queue) == 1
    assert page.value("messaging_lag_method_info", **queue, method="message_time") == 1
    assert page.value("messaging_published_messages_total", destination="orders") == 3
    lag = page.value("messaging_lag_seconds", **queue)
    assert start - times[1][1] - SKEW <= lag <= end - times[1][0] + SKEW

    server.kill()
    page = exporter.page()
    assert page.value("nats_up") == 0
    assert (
        page.value("bts_exporter_collector_errors_total", collector="nats", reason="refused") == 1
    )
    assert page.find("messaging_backlog_messages") == []
    assert "connection refused; is nats-server running?" in exporter.log.read_text()


@pytest.mark.live
def test_consumers(start_nats: StartNats) -> None:
    """What the server says of consumers is served, and nothing that it does not say."""
    server = start_nats()

    async def work(js: JetStreamContext) -> None:
        await js.add_stream(name="orders", subjects=["orders.*"])
        await js.add_stream(name="secret", subjects=["secret"])
        await publish(js, "orders.a", "orders.b")
        await js.add_consumer(
            "orders", durable_name="of_b", filter_subject="orders.b", ack_policy="explicit"
        )
        await js.add_consumer("orders", durable_name="pushed", deliver_subject="inbox")
        await js.add_consumer(
            "orders",
            durable_name="last",
            deliver_policy="last_per_subject",
            filter_subject="orders.*",
            ack_policy="explicit",
        )
        await js.add_consumer("secret", durable_name="quick", ack_policy="explicit")
        await js.subscribe("orders.a")  # without a durable name
        start = time.time()
        samples = await asyncio.to_thread(collect, server.collector())
        end = time.time()
        assert {key[1:] for key in samples["messaging_backlog_messages"]} == {
            ("orders", "of_b"),
            ("orders", "pushed"),
            ("orders", "last"),
            ("secret", "quick"),
        }
        assert samples.value("messaging_backlog_messages", group="of_b") == 1
        lag = samples.value("messaging_lag_seconds", group="of_b")
        second = (await js.get_msg("orders", 2)).time
        assert second is not None
        assert start - second.timestamp() <= lag <= end - second.timestamp()
        assert samples.value("messaging_lag_seconds", group="quick") == 0
        assert samples.find("messaging_lag_seconds", group="last") == []
        assert samples.find("messaging_lag_method_info", group="quick") == []
        assert [s.labels["group"] for s in samples.find("messaging_consumers")] == ["pushed"]
        assert samples.value("messaging_consumers", group="pushed") == 0
        samples = await asyncio.to_thread(collect, server.collector(streams="^sec"))
        assert {key[1] for key in samples["messaging_published_messages_total"]} == {"secret"}
        half = server.collector(url=server.url.replace("admin", "half"))
        samples, error = await asyncio.to_thread(look, half, 600)
        assert error is not None
        assert error.reason == "noperm"
        assert "permit $JS.API.> and _INBOX.> to this user" in str(error)
        assert samples.value("messaging_backlog_messages", group="of_b") == 1
        assert samples.find("messaging_backlog_messages", destination="secret") == []

    server.use(work)


@pytest.mark.live
def test_servers_that_do_not_answer(start_nats: StartNats) -> None:
    """A refused login, and a server that hangs, have their reasons, and no metric but nats_up 0."""
    server = start_nats()
    refused = run(server.collector(password="wrong"))
    server.freeze()
    hung_samples, hung = look(server.collector(), seconds=1)  # without the engine's own deadline
    server.thaw()

    assert hung is not None
    assert (refused.reason, hung.reason) == ("auth", "timeout")
    assert refused.samples == hung_samples == {"nats_up": {(): 0}}
    assert "wrong" not in refused.message
    for message in (refused.message, str(hung)):
        assert f"NATS at nats://127.0.0.1:{server.port}" in message


@pytest.mark.live
def test_tls(start_nats: StartNats, certificates: Certificates) -> None:
    """tls:// checks the certificate; a server without TLS does not get the password."""
    plain = start_nats()
    stripped = run(plain.collector(url=plain.url.replace("nats://", "tls://")))
    plain.kill()
    server = start_nats(
        f'tls {{ cert_file: "{certificates.server}", key_file: "{certificates.server_key}" }}'
    )
    url = server.url.replace("nats://", "tls://")
    trusted = run(server.collector(url=url, tls={"ca_file": certificates.ca}))
    distrusted = run(server.collector(url=url))

    assert (stripped.reason, distrusted.reason, trusted.reason) == ("tls", "tls", None)
    assert "no TLS there" in stripped.message
    assert trusted.samples.value("nats_up") == 1


@pytest.mark.live
def test_token(start_nats: StartNats) -> None:
    """A password without a user is a token."""
    server = start_nats(users="authorization { token: hidden }")
    url = server.url.replace("admin@", "")

    assert run(server.collector(url=url)).success
    assert run(server.collector(url=url, password="wrong")).reason == "auth"


@pytest.mark.live
def test_credentials_file(start_nats: StartNats) -> None:
    """A user with a JWT and a key logs in with the content of its .creds file."""
    operator, account, system, user = map(
        new_key, (PREFIX_BYTE_OPERATOR, PREFIX_BYTE_ACCOUNT, PREFIX_BYTE_ACCOUNT, PREFIX_BYTE_USER)
    )
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    stored = {"mem_storage": 1 << 20, "disk_storage": 1 << 20, "streams": -1, "consumer": -1}
    accounts = {
        account.public_key.decode(): jwt(operator, account, type="account", limits=limits | stored),
        system.public_key.decode(): jwt(operator, system, type="account", limits=limits),
    }
    server = start_nats(
        users=f"operator: {jwt(operator, operator, type='operator')}\n"
        f"system_account: {system.public_key.decode()}\n"
        "resolver: MEMORY\n"
        f"resolver_preload: {json.dumps(accounts)}"
    )
    own = jwt(account, user, type="user", subs=-1, data=-1, payload=-1)
    content = CREDENTIALS.format(jwt=own, seed=user.seed.decode())
    url = server.url.replace("admin@", "")

    assert run(configured(Nats, url=url, credentials=content)).success
    assert run(configured(Nats, url=url)).reason == "auth"


def new_key(prefix: int) -> nkeys.KeyPair:
    """Return a new key of an operator, an account or a user."""
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, **claims: object) -> str:
    """Return claims about `subject`, signed by `issuer`."""
    names = {"iss": issuer.public_key.decode(), "sub": subject.public_key.decode()}
    body = {"jti": os.urandom(8).hex(), "iat": 0, **names, "nats": {"version": 2, **claims}}
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts)
    signature = base64.urlsafe_b64encode(issuer.sign(signed)).rstrip(b"=")
    return (signed + b"." + signature).decode()


def test_names() -> None:
    """The names of the metrics follow the conventions."""
    assert naming_problems(Nats) == []
