"""CONFIG GET: the few parameters that dashboards use; never all of them, since some are passwords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.labels import text
from bts_collectors.redis.server.info import Facts, number
from bts_exporter import Metric, Scrape, gauge

_SEVERAL_AT_ONCE = (7,)


def _plain(*names: str, prefix: str = "config_") -> dict[str, Metric]:
    return {
        name: gauge(f"redis_{prefix}{name.replace('-', '_')}", f"Parameter {name} of CONFIG GET.")
        for name in names
    }


PLAIN = {
    **_plain("maxclients", "maxmemory", "io-threads", "repl-backlog-size"),
    **_plain(
        "commandlog-execution-slower-than",
        "commandlog-slow-execution-max-len",
        "commandlog-request-larger-than",
        "commandlog-large-request-max-len",
        "commandlog-reply-larger-than",
        "commandlog-large-reply-max-len",
        prefix="",
    ),
}
_CLASS = ("class", "limit")
_LIMITS = "client-output-buffer-limit"
LIMIT = gauge(
    "redis_config_client_output_buffer_limit_bytes",
    "Parameter client-output-buffer-limit of CONFIG GET: the limit in bytes.",
    _CLASS,
)
OVERCOME = gauge(
    "redis_config_client_output_buffer_limit_overcome_seconds",
    "Parameter client-output-buffer-limit of CONFIG GET: seconds for which the soft limit may be exceeded.",
    _CLASS,
)
METRICS: tuple[Metric, ...] = (*PLAIN.values(), LIMIT, OVERCOME)

_EVERYWHERE = (
    "databases",
    "maxclients",
    "maxmemory",
    "io-threads",
    "repl-backlog-size",
    _LIMITS,
)


def commands(facts: Facts) -> Sequence[Command]:
    """Return the commands for the parameters; servers before 7.0 need one for each."""
    names = (*_EVERYWHERE, "commandlog-*") if facts.has_commandlog else _EVERYWHERE
    if facts.version >= _SEVERAL_AT_ONCE:
        return [("CONFIG", "GET", *names)]
    return [("CONFIG", "GET", name) for name in names]


def parse(replies: Iterable[Reply]) -> dict[str, str]:
    """Return the parameters in `replies` by name."""
    settings: dict[str, str] = {}
    for reply in replies:
        if isinstance(reply, list):
            words = [text(word) for word in reply if type(word) is bytes]
            settings.update(zip(words[::2], words[1::2], strict=False))
    return settings


def databases(settings: Mapping[str, str]) -> int:
    """Return how many databases the server has, 0 if it is unknown."""
    return int(number(settings.get("databases", "")) or 0)


def emit(scrape: Scrape, settings: Mapping[str, str]) -> None:
    """Emit the parameters that are numbers."""
    for name, raw in settings.items():
        metric = PLAIN.get(name)
        if metric is not None and (value := number(raw)) is not None:
            scrape.emit(metric, value)
    _emit_limits(scrape, settings.get(_LIMITS, "").split())


def _emit_limits(scrape: Scrape, words: Sequence[str]) -> None:
    """Emit limits such as `normal 0 0 0 slave 268435456 67108864 60`: class, hard, soft, seconds."""
    for kind, *figures in zip(*[iter(words)] * 4, strict=False):
        hard, soft, seconds = map(number, figures)
        for metric, value, limit in (
            (LIMIT, hard, "hard"),
            (LIMIT, soft, "soft"),
            (OVERCOME, seconds, "soft"),
        ):
            if value is not None:
                scrape.emit(metric, value, kind, limit)
