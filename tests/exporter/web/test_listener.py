from __future__ import annotations

import errno
import socket

import pytest

from bts_exporter.errors import ServeError
from bts_exporter.web.listener import listen


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0"])
def test_listens_on_an_ipv4_address(address: str) -> None:
    """The server listens on an address, or on the IPv4 address of a name."""
    with listen(address) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.getsockname()[1] > 0


def test_listens_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a host it listens on all addresses, of IPv6 as well if there is any."""
    with listen(":0") as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
        pass
    if socket.has_dualstack_ipv6():
        with listen(":0") as sock, socket.create_connection(("::1", sock.getsockname()[1])):
            pass
        with (
            listen("[::]:0") as sock,
            socket.create_connection(("127.0.0.1", sock.getsockname()[1])),
        ):
            pass

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(":0") as sock:
        assert sock.family == socket.AF_INET


def test_port_in_use() -> None:
    """The error about a port in use shows how to find its owner."""
    with listen("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ServeError) as caught:
            listen(f"127.0.0.1:{port}")

    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: port {port} is in use; end the program that has it "
        f"(ss -ltnp 'sport = :{port}' shows it) or take another port"
    )


def test_port_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a privileged port names the alternatives."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ServeError) as caught:
        listen("127.0.0.1:80")

    assert str(caught.value) == (
        "cannot listen on 127.0.0.1:80: no permission for port 80; "
        "take one from 1024 on, or grant CAP_NET_BIND_SERVICE"
    )


def test_address_of_another_machine() -> None:
    """The error about an address that no interface has says so."""
    with pytest.raises(ServeError, match=r"192\.0\.2\.1 is not an address of this machine"):
        listen("192.0.2.1:9100")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid"])
def test_host_that_does_not_resolve(host: str) -> None:
    """A name without an address is named in the error."""
    with pytest.raises(ServeError, match=f"cannot listen on {host}:9100: '{host}' "):
        listen(f"{host}:9100")


@pytest.mark.parametrize(
    "address",
    ["", "9100", "localhost", ":", ":http", ":65536", ":-1", "::1:9100", "[::1]", "http://x:9100"],
)
def test_malformed_address(address: str) -> None:
    """The error about an invalid address shows a valid one."""
    with pytest.raises(ServeError) as caught:
        listen(address)

    assert str(caught.value) == (
        f"cannot listen on {address!r}: write it as host:port with a port up to 65535, "
        'such as ":19100" (all addresses), "127.0.0.1:19100" or "[::1]:19100"'
    )
