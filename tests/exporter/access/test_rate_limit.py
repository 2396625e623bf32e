from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter.access import rate_limit
from bts_exporter.access.rate_limit import RateLimiter
from bts_exporter.access.watched_files import WatchedFiles
from bts_exporter.access.web_config import load
from bts_exporter.access.web_settings import GoDuration, RateLimit
from bts_exporter.errors import ConfigError
from servers.guarded import get_as, guarded_by
from servers.listener import GET


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock."""
    clock = Clock()
    monkeypatch.setattr(rate_limit, "monotonic", clock)
    return clock


def test_bucket(clock: Clock) -> None:
    """A burst is answered at once, then one request in each interval."""
    limiter = RateLimiter(RateLimit(GoDuration(2), 3))
    assert [limiter.wait() for _ in range(5)] == [0, 0, 0, 2, 2]
    clock.now += 1.5
    assert limiter.wait() == 0.5
    clock.now += 0.5
    assert [limiter.wait() for _ in range(2)] == [0, 2]
    clock.now += 3600
    assert [limiter.wait() for _ in range(4)] == [0, 0, 0, 2]


def test_no_interval() -> None:
    """Without an interval there is no limit."""
    limiter = RateLimiter(RateLimit(GoDuration(0), 1))
    assert [limiter.wait() for _ in range(100)] == [0] * 100


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("10us", 1e-5),
        ("0", 0),
        ("100µs", 1e-4),
    ],
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    """Durations are written as in Go."""
    file = tmp_path / "web.yml"
    file.write_text(f"rate_limit: {{interval: {text}, burst: 1}}\n")
    assert load(file, WatchedFiles()).rate_limit.interval == pytest.approx(seconds)


@pytest.mark.parametrize(
    "settings",
    ["interval: 1", "interval: -1s", "interval: 1d", "interval: s", "interval: 1.5", "interval: true",
     "interval: 1s", "interval: 1s, burst: 0", "burst: -1", "interval: 1s, burst: x", "rate: 1"],
)  # fmt: skip
def test_bad_limits(tmp_path: Path, settings: str) -> None:
    """A duration without its unit, and a limit that answers no request, are errors."""
    file = tmp_path / "web.yml"
    file.write_text(f"\nrate_limit: {{{settings}}}\n")
    with pytest.raises(ConfigError, match=r"web.yml:2: rate_limit"):
        load(file, WatchedFiles())


def test_requests_beyond_the_limit(tmp_path: Path, clock: Clock) -> None:
    """They get status 429 before their password is checked, with the time until the next is answered."""
    file = tmp_path / "web.yml"
    hashed = "$2b$04$" + "a" * 53
    file.write_text(f"rate_limit: {{interval: 90s, burst: 2}}\nbasic_auth_users: {{a: {hashed}}}\n")
    with guarded_by(file) as (listener, _):
        with listener.wire() as first, listener.wire() as second:
            assert first.ask(get_as("a", "x")).status == 401
            assert second.ask(GET).status == 401
            answers = [wire.ask(get_as("a", "x")) for wire in (first, second)]
            clock.now += 90
            assert first.ask(GET).status == 401
        assert {(a.status, a.headers["Retry-After"]) for a in answers} == {(429, "90")}
        assert answers[0].headers["X-Frame-Options"] == "DENY"
        assert listener.traffic.refused["rate_limit"] == 2
