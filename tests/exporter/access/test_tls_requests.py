"""Requests over TLS, whole and damaged."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from bts_exporter.web.server import Response
from servers import wait_until
from servers.certificate_authority import Authority
from servers.guarded import client_of, guarded_by
from servers.listener import GET, Gate


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that turns TLS on."""
    file = tmp_path_factory.mktemp("tls") / "web.yml"
    Authority(file.parent, "ca").sign("server", "subjectAltName=IP:127.0.0.1")
    file.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    return file


def test_large_and_pipelined_requests(web: Path) -> None:
    """Requests that share a TLS record, and answers of many records, arrive complete and in order."""
    bodies = [bytes([number]) * 300_000 for number in range(20)]
    asked = iter(bodies)
    filler = b"X: " + b"x" * 900 + b"\r\n"
    request = GET.replace(b"\r\n\r\n", b"\r\n" + filler * 15 + b"\r\n")
    with (
        guarded_by(web, lambda _: Response(200, next(asked))) as (listener, _),
        listener.wire(client_of(web.parent / "ca.pem")) as wire,
    ):
        wire.send(request * len(bodies))
        assert [wire.answer().body for _ in bodies] == bodies


def test_answers_to_head_and_errors(web: Path) -> None:
    """TLS changes nothing about requests without a body in the answer, and about invalid ones."""
    with guarded_by(web) as (listener, _), listener.wire(client_of(web.parent / "ca.pem")) as wire:
        wire.send(GET.replace(b"GET", b"HEAD"))
        assert wire.answer(head_only=True).status == 200
        assert wire.ask(b"GET / HTTP/1.1\r\n\r\n").status == 400
        assert wire.ended()


def test_stop_during_a_request(web: Path) -> None:
    """A server that stops finishes the answer under way, and then ends TLS."""
    gate = Gate()
    with (
        guarded_by(web, gate) as (listener, _),
        listener.wire(client_of(web.parent / "ca.pem")) as wire,
        ThreadPoolExecutor(1) as pool,
    ):
        wire.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        wire.send(GET)
        assert gate.inside.acquire(timeout=20)
        stopped = pool.submit(listener.server.stop, 20)
        wait_until(lambda: listener.server._connections._all()[0].last, "it reads no more requests")
        gate.open.set()
        answer = wire.answer()
        assert (answer.body, answer.headers["Connection"]) == (b"at last\n", "close")
        assert wire.sock.recv(1) == b""
        stopped.result(20)


def test_random_handshakes(web: Path) -> None:
    """Damaged handshakes end their connection; a good client is served, and nothing is left behind."""
    seeded = Random(14)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_of(web.parent / "ca.pem").wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()
    with guarded_by(web, header_seconds=3) as (listener, _):
        for _ in range(300):
            sent = bytearray(hello)
            for _ in range(seeded.randrange(1, 8)):
                sent[seeded.randrange(1, len(sent))] = seeded.randrange(256)
            with listener.wire() as wire:
                wire.send(bytes(sent[: seeded.randrange(1, len(sent) + 1)]))
                if seeded.random() < 0.5:
                    wire.sock.shutdown(1)
        with listener.wire(client_of(web.parent / "ca.pem")) as wire:
            assert wire.ask().status == 200
        wait_until(lambda: listener.traffic.open == 0, "all are closed")
