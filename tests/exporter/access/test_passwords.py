from __future__ import annotations

import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import bcrypt
import pytest

from bts_exporter.access import passwords as passwords_module
from bts_exporter.access.passwords import Passwords, Verdict
from bts_exporter.access.watched_files import WatchedFiles
from bts_exporter.access.web_config import load
from interruptions import interruptions, is_free
from servers import wait_until
from servers.guarded import get_as, guarded_by
from servers.listener import GET

ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
RIGHT, WRONG, BUSY = Verdict.RIGHT, Verdict.WRONG, Verdict.BUSY


def hashed(password: str | bytes, prefix: bytes = b"2b", cost: int = 4) -> bytes:
    """Return a bcrypt hash."""
    encoded = password.encode() if isinstance(password, str) else password
    made = bcrypt.hashpw(encoded[:72], bcrypt.gensalt(cost))
    return b"$%b$%b" % (prefix, made.split(b"$", 2)[2])


def field(user: str, password: str | bytes) -> str:
    """Return an Authorization field."""
    encoded = password.encode() if isinstance(password, str) else password
    return f"Basic {b64encode(user.encode() + b':' + encoded).decode()}"


class Counted:
    """bcrypt.checkpw, counted, and held up while `open` is not set."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bytes]] = []
        self.open = threading.Event()
        self.open.set()
        self.at_once = 0
        self.most_at_once = 0
        self._real = bcrypt.checkpw

    def __call__(self, password: bytes, against: bytes) -> bool:
        """Compare."""
        self.calls.append((password, against))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.open.wait(30)
        self.at_once -= 1
        return self._real(password, against)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Count the comparisons."""
    counted = Counted()
    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return counted


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
@pytest.mark.parametrize(
    "password",
    ["secret", "with:colon", ":", "zoë ☃", "", "x" * 72, "x" * 73, "ü" * 100, b"\xff\xfe", b"a\0b"],
)
def test_passwords_of_all_kinds(prefix: bytes, password: str | bytes) -> None:
    """Any password can be checked, whatever program made its hash."""
    users = {b"a": hashed(password, prefix)}
    assert Passwords().check(users, field("a", password)) is RIGHT
    assert Passwords().check(users, field("a", "other")) is WRONG


@pytest.mark.parametrize("end", "./0z")
def test_salt_with_spare_bits(tmp_path: Path, end: str) -> None:
    """Some programs leave bits in the end of the salt that do not count."""
    made = hashed("b").decode()
    index = ALPHABET.index(made[28]) & 0x30 | ALPHABET.index(end) & 0x0F
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users: {{a: {made[:28]}{ALPHABET[index]}{made[29:]}}}\n")
    assert Passwords().check(load(file, WatchedFiles()).users, field("a", "b")) is RIGHT


def test_password_is_cut_off_at_72_bytes() -> None:
    """What comes after 72 bytes does not count, here as in the toolkit."""
    users = {b"a": hashed("x" * 72)}
    assert Passwords().check(users, field("a", "x" * 72 + "y")) is RIGHT
    assert Passwords().check(users, field("a", "x" * 71)) is WRONG


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YQ",
        "Basic YQ==",
        "Basic YTpi=garbage",
        "Basic \xe4\xf6",
        "Bearer YTpi",
        "YTpi",
        "Basic YTpi YTpi",
        "Basic " + "A" * 20_000,
    ],
)
def test_fields_that_are_no_password(counted: Counted, given: str | None) -> None:
    """A field without a user and a password is wrong at once, without a comparison."""
    assert Passwords().check({b"a": hashed("b")}, given) is WRONG
    assert counted.calls == []


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "Basic "])
def test_scheme_in_any_case(scheme: str) -> None:
    """The name of the scheme is the same in any case."""
    given = field("a", "b").replace("Basic", scheme)
    assert Passwords().check({b"a": hashed("b")}, given) is RIGHT


def test_user_names() -> None:
    """Names are compared byte by byte; an empty one is a name."""
    users = {"zoë".encode(): hashed("1"), b"": hashed("2")}
    found = [
        Passwords().check(users, field(*given))
        for given in (("zoë", "1"), ("", "2"), ("Zoë", "1"), ("zoe", "1"), ("zoë", "2"))
    ]
    assert found == [RIGHT, RIGHT, WRONG, WRONG, WRONG]


def test_right_password_is_remembered(counted: Counted) -> None:
    """A password is compared once, until its user has another hash."""
    passwords, users = Passwords(), {b"a": hashed("b"), b"other": hashed("b")}
    assert [passwords.check(users, field("a", "b")) for _ in range(5)] == [RIGHT] * 5
    assert len(counted.calls) == 1
    assert passwords.check(users, field("other", "b")) is RIGHT
    assert passwords.check({b"a": hashed("c")}, field("a", "b")) is WRONG
    assert passwords.check({b"x": users[b"a"]}, field("a", "b")) is WRONG
    assert len(counted.calls) == 4


def test_wrong_password_is_not_remembered(counted: Counted) -> None:
    """Wrong passwords take no memory."""
    passwords, users = Passwords(), {b"a": hashed("b")}
    assert [passwords.check(users, field("a", "x")) for _ in range(3)] == [WRONG] * 3
    assert len(counted.calls) == 3
    assert not passwords._right
    assert not passwords._under_way


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest remembered password goes first."""
    monkeypatch.setattr(passwords_module, "_MAX_REMEMBERED", 2)
    passwords = Passwords()
    for number in range(4):
        users = {b"a": hashed(f"{number}")}
        assert passwords.check(users, field("a", f"{number}")) is RIGHT
    assert len(passwords._right) == 2


def test_passwords_are_not_kept() -> None:
    """What is remembered shows neither user nor password, and differs from process to process."""
    kept = []
    users = {b"a": hashed("secret")}
    for _ in range(2):
        passwords = Passwords()
        passwords.check(users, field("a", "secret"))
        kept.append(list(passwords._right))
    assert kept[0] != kept[1]
    assert b"secret" not in b"".join(kept[0] + kept[1])


def test_unknown_user_takes_as_long(counted: Counted) -> None:
    """An unknown user costs a comparison with a hash of a known one, and is wrong in any case."""
    users = {b"a": hashed("b", cost=4), b"c": hashed("d", cost=5)}
    passwords = Passwords()
    for name in ("x", "x", "y", "z", "aa", ""):
        assert passwords.check(users, field(name, "b")) is WRONG
        assert passwords.check(users, field(name, "d")) is WRONG
    assert len(counted.calls) == 12
    assert {against for _, against in counted.calls} <= set(users.values())
    # One name always has the same cost, as a known user has.
    assert len({against for _, against in counted.calls[:4]}) == 1


def test_comparisons_are_made_one_at_a_time(counted: Counted) -> None:
    """Wrong passwords use one core, however many requests have them."""
    users = {b"a": hashed("b", cost=6)}
    passwords = Passwords()
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda n: passwords.check(users, field("a", f"{n}")), range(10)))
    assert found == [WRONG] * 10
    assert counted.most_at_once == 1


def test_same_password_is_compared_once(counted: Counted) -> None:
    """Many scrapers with one password, at the same moment, all wait for one comparison."""
    users = {b"a": hashed("b")}
    passwords = Passwords()
    counted.open.clear()
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(passwords.check, users, field("a", "b")) for _ in range(50)]
        wait_until(lambda: counted.calls, "the comparison has begun")
        counted.open.set()
        assert [future.result(20) for future in waiting] == [RIGHT] * 50
    assert len(counted.calls) == 1


def test_flood_of_wrong_passwords(counted: Counted) -> None:
    """While wrong passwords are compared, a remembered one passes, and others are refused at once."""
    users = {b"a": hashed("b")}
    passwords = Passwords()
    assert passwords.check(users, field("a", "b")) is RIGHT
    counted.open.clear()
    with ThreadPoolExecutor(16) as pool:
        flood = [pool.submit(passwords.check, users, field("a", f"{n}")) for n in range(16)]
        wait_until(lambda: len(passwords._under_way) == 16, "all wait")
        assert passwords.check(users, field("a", "one more")) is BUSY
        assert passwords.check(users, field("unknown", "b")) is BUSY
        assert passwords.check(users, field("a", "b")) is RIGHT
        counted.open.set()
        assert {future.result(20) for future in flood} == {WRONG}
    assert passwords.check(users, field("a", "17")) is WRONG


def test_comparison_that_does_not_begin(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request does not wait for ever for its turn."""
    monkeypatch.setattr(passwords_module, "_WAIT_SECONDS", 0.01)
    users = {b"a": hashed("b")}
    passwords = Passwords()
    counted.open.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(passwords.check, users, field("a", "1"))
        wait_until(lambda: counted.calls, "the first is compared")
        assert passwords.check(users, field("a", "2")) is BUSY
        assert passwords.check(users, field("a", "1")) is BUSY
        counted.open.set()
        assert first.result(20) is WRONG
    assert not passwords._under_way


def test_interrupted_comparison() -> None:
    """Wherever a request's thread is interrupted, the password of the next request is compared."""
    users = {b"a": hashed("b")}
    passwords = Passwords()
    wrong = map(str, count())

    for point in interruptions(lambda: passwords.check(users, field("a", next(wrong)))):
        assert is_free(passwords._one), f"interrupted after {point} calls and returns"

    assert point > 10
    assert passwords.check(users, field("a", "b")) is RIGHT


# Requests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with the user a and the password b."""
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users:\n  a: {hashed('b').decode()}\n")
    return file


def test_request_without_password(file: Path) -> None:
    """A request without the right password gets status 401, which asks for one."""
    with guarded_by(file) as (listener, _), listener.wire() as wire:
        for request in (GET, get_as("a", "x"), get_as("x", "b")):
            answer = wire.ask(request)
            assert answer.status == 401
            assert (
                answer.headers["WWW-Authenticate"] == 'Basic realm="bts-exporter", charset="UTF-8"'
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert wire.ask(get_as("a", "b")).body == b"hello\n"
        assert wire.ask(GET).status == 401  # a connection has no login
        assert listener.traffic.refused["unauthorized"] == 4


def test_busy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose password is not compared, because too many others wait, may be sent again."""
    monkeypatch.setattr(passwords_module, "_MAX_WAITING", 0)
    with guarded_by(file) as (listener, _), listener.wire() as wire:
        answer = wire.ask(get_as("a", "b"))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
