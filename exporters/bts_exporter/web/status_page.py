"""The live page at `/` as HTML, complete without scripts; `static/main.js` keeps it current."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import quote

from bts_exporter import human_units
from bts_exporter.human_units import UNKNOWN
from bts_exporter.live.report import LiveCollector, LiveDestination, LiveReport, live_report
from bts_exporter.live.ring import HISTORY_SECONDS
from bts_exporter.page_service import Exporter
from bts_exporter.printable import printable
from bts_exporter.reload_state import ReloadState
from bts_exporter.web.assets import FOLDER
from bts_exporter.web.server import Response

#: The beginning of a shorter lag is not shown, in seconds.
_SHORTEST_SINCE = 10.0
#: Failing collectors at the top of the page.
_MOST_FAILING = 3
#: How many destinations the page has without scripts, unless ?all= asks for more.
_MOST_ROWS = 200

_SCRIPTS = """\
<script src="assets/uplot/uPlot.iife.min.js" defer></script>
<script src="assets/main.js" type="module"></script>"""

#: State to icon, text and kind; `static/units.js` has the same.
_STATES = {
    "late": ("▲", "late", "bad"),
    "outdated": ("✕", "outdated", "bad"),
    "no_consumer": ("●", "no consumer", "warning"),
    "behind": ("△", "behind", "warning"),
    "lag_unknown": ("?", "lag unknown", "warning"),
    "ok": ("✓", "ok", "good"),
    "failing": ("✕", "failing", "bad"),
    "absent": ("○", "absent", "quiet"),
    "waiting": ("…", "waiting", "quiet"),
}
_SYSTEMS = {"rabbitmq": "RabbitMQ", "redis": "Redis", "mqtt": "MQTT", "kafka": "Kafka"}
_METHODS = {
    "message_time": ("", "message time"),
    "event_time": ("", "event time"),
    "interpolation": ("≈ ", "interpolated"),
    "lower_bound": ("≥ ", "at least"),
}
#: Name in the URL, title, and the value that it sorts by.
_COLUMNS: tuple[tuple[str, str, Callable[[LiveDestination], float | str | None]], ...] = (
    ("state", "State", lambda row: -list(_STATES).index(row.state)),
    ("name", "Destination", lambda row: f"{row.destination} {row.group}".casefold()),
    ("lag", "Lag", lambda row: row.lag_seconds),
    ("backlog", "Backlog", lambda row: row.backlog_messages),
    ("in", "In", lambda row: row.published_per_second),
    ("out", "Out", lambda row: row.consumed_per_second),
    ("consumers", "Consumers", lambda row: row.consumers),
    (
        "drain",
        "Time to drain",
        lambda row: float("inf") if row.drains is False else row.drain_seconds,
    ),
)
_TEXT_COLUMNS = {"state", "name"}
#: Columns whose first order is ascending.
_ASCENDING_FIRST = {"name"}
_FIGURES: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "cpu_share": ("CPU", human_units.share),
    "memory_share": ("Memory", human_units.share),
    "filesystem_share": ("Fullest file system", human_units.share),
    "disk_read_bytes": ("Disk, read", human_units.bytes_per_second),
    "disk_written_bytes": ("Disk, written", human_units.bytes_per_second),
    "network_received_bytes": ("Network, received", human_units.bytes_per_second),
    "network_sent_bytes": ("Network, sent", human_units.bytes_per_second),
    "cpu_pressure_share": ("Tasks that wait for CPU", human_units.share),
    "memory_pressure_share": ("Tasks that wait for memory", human_units.share),
    "io_pressure_share": ("Tasks that wait for I/O", human_units.share),
}


def respond(
    exporter: Exporter,
    reload_state: ReloadState,
    telemetry_path: str,
    query: Mapping[str, Sequence[str]],
    *,
    live: bool,
) -> Response:
    """Return the page; with `live` it has the scripts that keep it current."""
    report = live_report(exporter, reload_state)
    page = render(report, telemetry_path, query, live=live)
    return Response(
        200,
        page.encode("utf-8", "replace"),
        "text/html; charset=utf-8",
        (("Cache-Control", "no-store"),),
    )


def render(
    report: LiveReport, telemetry_path: str, query: Mapping[str, Sequence[str]], *, live: bool
) -> str:
    """Return the page as HTML."""
    given = {name: values[0] for name, values in query.items()}
    search, sort = given.get("q", ""), given.get("sort", "lag")
    rows = _sorted(_found(report.destinations, search), sort, given.get("order", ""))
    shown = rows if "all" in given else rows[:_MOST_ROWS]
    times = {it.id: it.history_times for it in report.collectors}
    moment = partial(human_units.moment, now=report.time)
    stale = report.age_seconds is None or report.age_seconds > report.stale_after_seconds
    chosen = next((c for c in report.collectors if c.id == given.get("collector")), None)
    path = _escape(telemetry_path.lstrip("/"))
    return _filled(
        (FOLDER / "page.html").read_text(encoding="utf-8"),
        {
            "title": _escape(f"{report.host_name} · bts-exporter"),
            "scripts": _SCRIPTS if live else "",
            "metrics": path,
            "metrics_path": path,
            "api_link": '<a href="api/v1/live">JSON</a> · ' if live else "",
            "host_name": _escape(report.host_name),
            "version": _escape(report.exporter_version),
            "clock": moment(report.time),
            "freshness_class": "bad" if stale else "good",
            "freshness": _freshness(report, stale=stale),
            "alert": _problems(report),
            "headline_class": report.headline.state,
            "headline": _escape_sentence(report.headline.text),
            "failing": "".join(_failing(report, moment)),
            "count": f"{len(rows):,}" + (f" of {len(report.destinations):,}" if search else ""),
            "q": _escape(search),
            "destination_heads": "".join(_heads(sort, given.get("order", ""), search)),
            "destinations": "".join(
                _destination(row, report.time, times.get(row.collector_id, ())) for row in shown
            ),
            "destination_note": _note(report, len(rows) - len(shown), search),
            "figures": "".join(_figures(report)),
            "collector_count": f"{len(report.collectors):,}",
            "collectors": "".join(_collectors(report, moment)),
            "overview_hidden": " hidden" if chosen else "",
            "detail_hidden": "" if chosen else " hidden",
            "detail": _detail(chosen, path, moment) if chosen else "",
            "settings_loaded": moment(report.settings_loaded),
        },
    )


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with `{{name}}` replaced; texts in the values are not searched."""
    pieces = [piece.partition("}}") for piece in template.split("{{")]
    return pieces[0][0] + "".join(values[name] + rest for name, _, rest in pieces[1:])


def _freshness(report: LiveReport, *, stale: bool) -> str:
    if report.age_seconds is None:
        return "No data yet"
    age = human_units.duration(report.age_seconds)
    return f"✕ Data is stale: {age} old" if stale else f"✓ Data is current: {age} old"


def _problems(report: LiveReport) -> str:
    return "".join(
        f"<p>The last reload failed, the previous settings remain active:</p><pre>{_escape(it)}</pre>"
        for it in report.problems
    )


def _failing(report: LiveReport, moment: Callable[[float], str]) -> Iterator[str]:
    """Yield what is wrong with the failing collectors, for the top of the page."""
    failing = [it for it in report.collectors if it.state == "failing"]
    for row in failing[:_MOST_FAILING]:
        since = f" since {moment(row.failing_since)}" if row.failing_since else ""
        yield (
            f'<p><a href="?collector={quote(row.id)}"><bdi>{_escape(row.id)}</bdi></a> fails{since}: '
            f"{_failure(row, moment)}</p>\n"
        )


def _found(rows: Iterable[LiveDestination], search: str) -> list[LiveDestination]:
    words = search.casefold().split()
    return [row for row in rows if all(word in _searchable(row) for word in words)]


def _searchable(row: LiveDestination) -> str:
    parts = (
        row.destination,
        row.group,
        row.system,
        row.target,
        row.collector,
        _STATES[row.state][1],
    )
    return " ".join(parts).casefold()


def _sorted(rows: list[LiveDestination], sort: str, order: str) -> list[LiveDestination]:
    """Return the rows in order, unknown values last; `rows` are sorted by lag."""
    value = {name: function for name, _, function in _COLUMNS}.get(sort)
    if value is None or (sort == "lag" and order != "asc"):
        return rows
    descending = _is_descending(sort, order)
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    key: Callable[[LiveDestination], object] = value
    return sorted(known, key=key, reverse=descending) + unknown  # type: ignore[arg-type]


def _is_descending(sort: str, order: str) -> bool:
    return order == "desc" if sort in _ASCENDING_FIRST else order != "asc"


def _heads(sort: str, order: str, search: str) -> Iterator[str]:
    for name, title, _ in _COLUMNS:
        aria = ""
        following = ""
        if name == sort:
            descending = _is_descending(sort, order)
            aria = f' aria-sort="{"descending" if descending else "ascending"}"'
            following = "&amp;order=" + ("asc" if descending else "desc")
        address = f"?sort={name}{following}" + (f"&amp;q={quote(search)}" if search else "")
        kind = "" if name in _TEXT_COLUMNS else ' class="n"'
        yield f'<th scope="col"{kind}{aria}><a href="{address}" data-sort="{name}">{title}</a></th>'
    yield '<th scope="col" class="spark">Backlog, 15 min</th>'


def _destination(row: LiveDestination, now: float, times: Sequence[float]) -> str:
    kind = _STATES[row.state][2]
    numbers = (
        _number(human_units.count(row.backlog_messages), row.backlog_messages),
        _number(human_units.rate(row.published_per_second), row.published_per_second),
        _number(human_units.rate(row.consumed_per_second), row.consumed_per_second),
        _number(human_units.count(row.consumers), row.consumers),
        _number("never" if row.drains is False else human_units.duration(row.drain_seconds), None),
    )
    return (
        f'<tr class="{kind} {row.state}"><td>{_state(row.state)}</td>'
        f"<th scope=row><span class=name><bdi>{_name(row.destination or row.group or UNKNOWN)}</bdi></span>"
        f"<span class=sub>{_place(row)}</span></th>{_lag(row, now)}{''.join(numbers)}<td class=spark>{_spark(row.backlog_history, times, now)}</td></tr>\n"
    )


def _place(row: LiveDestination) -> str:
    parts = [_escape(_SYSTEMS.get(row.system, row.system))]
    group = row.group if row.destination else ""
    parts += [f"<bdi>{_name(part)}</bdi>" for part in (row.target, group) if part]
    return " · ".join(parts)


def _lag(row: LiveDestination, now: float) -> str:
    if row.lag_seconds is None:
        return f'<td class="n">{UNKNOWN}</td>'
    sign, method = _METHODS.get(row.lag_method or "", ("", ""))
    since = ""
    if row.lag_seconds >= _SHORTEST_SINCE:
        since = f"since {human_units.moment(now - row.age_seconds - row.lag_seconds, now)}"
    old = f"{human_units.duration(row.age_seconds)} ago" if row.state == "outdated" else ""
    parts = (old, since, method if row.lag_seconds else "")
    sub = " · ".join(filter(None, parts))
    return (
        f'<td class="n"><data value="{row.lag_seconds!r}">{sign if row.lag_seconds else ""}'
        f"{human_units.duration(row.lag_seconds)}</data><span class=sub>{_escape(sub)}</span></td>"
    )


def _spark(history: Sequence[float | None], times: Sequence[float], now: float) -> str:
    """Return the backlog of the last 15 minutes as a picture; its right end is now."""
    # Of a collector that a reload is replacing, the times may be missing.
    known = [(t, value) for t, value in zip(times, history, strict=False) if value is not None]
    if not known:
        return ""
    most = max(1.0, *(value for _, value in known))
    points = [
        (120 * (1 - (now - t) / HISTORY_SECONDS), 1 + 22 * (1 - value / most)) for t, value in known
    ]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (
        '<svg viewBox="0 0 120 24" preserveAspectRatio="none" role="img" '
        f'aria-label="Backlog of the last 15 minutes: at most {human_units.count(most)}">'
        f'<path class="area" d="M{line}L{points[-1][0]:.1f} 24L{points[0][0]:.1f} 24Z"></path>'
        f'<path class="line" d="M{line}"></path></svg>'
    )


def _number(shown: str, value: float | None) -> str:
    inner = shown if value is None else f'<data value="{value!r}">{_escape(shown)}</data>'
    return f'<td class="n">{inner}</td>'


def _state(state: str, reason: str | None = None) -> str:
    icon, name, kind = _STATES[state]
    name += f" ({reason})" if reason else ""
    return f'<span class="state {kind}"><span aria-hidden=true>{icon}</span> {name}</span>'


def _note(report: LiveReport, hidden: int, search: str) -> str:
    notes = []
    if hidden:
        address = f"?all=1&amp;q={quote(search)}" if search else "?all=1"
        notes.append(f'<a href="{address}">Show {hidden:,} more</a>')
    if report.destinations_left_out:
        notes.append(
            f"{report.destinations_left_out:,} more destinations exist; those with the most lag are listed."
        )
    return " ".join(notes)


def _figures(report: LiveReport) -> Iterator[str]:
    """Yield the current figures; scripts put plots in their place."""
    if not report.host.figures:
        yield "<p>No figures of the host yet.</p>\n"
        return
    yield "<dl>\n"
    for name, values in report.host.figures.items():
        title, shown = _FIGURES[name]
        place = f" ({report.host.fullest_filesystem})" if name == "filesystem_share" else ""
        yield f"<div><dt>{_escape(title + place)}</dt><dd>{_escape(shown(values[-1]))}</dd></div>\n"
    yield "</dl>\n"


def _collectors(report: LiveReport, moment: Callable[[float], str]) -> Iterator[str]:
    """Yield the rows: failing ones first, and those of the host that work in one."""
    order = list(_STATES)
    rows = sorted(report.collectors, key=lambda c: (c.state != "failing", c.local))
    folded = [row for row in rows if row.local and not row.target and row.state != "failing"]
    for row in (row for row in rows if row not in folded):
        yield _collector(row, moment)
    if folded:
        worst = min((row.state for row in folded), key=order.index)
        absent = sum(row.state == "absent" for row in folded)
        absence = f", {absent} of them absent" if absent else ""
        names = ", ".join(
            f'<a href="?collector={quote(row.id)}"><bdi>{_escape(row.id)}</bdi></a>'
            for row in folded
        )
        duration = sum(row.duration_seconds or 0.0 for row in folded) * 1000
        yield (
            f"<tr><td>{_state(worst)}</td><th scope=row><details><summary>host: {len(folded)} "
            f"subsystem{'' if len(folded) == 1 else 's'}{absence}</summary><p>{names}</p></details></th>"
            f'<td class="n">{duration:.1f} ms</td><td class="n">{sum(row.series or 0 for row in folded):,}'
            "</td><td></td><td></td></tr>\n"
        )


def _collector(row: LiveCollector, moment: Callable[[float], str]) -> str:
    kind = _STATES[row.state][2]
    since = f"<span class=sub>since {moment(row.failing_since)}</span>" if row.failing_since else ""
    duration = UNKNOWN if row.duration_seconds is None else f"{row.duration_seconds * 1000:.1f} ms"
    seen = moment(row.last_success) if row.last_success else "never"
    return (
        f'<tr class="{kind}"><td>{_state(row.state, row.reason)}{since}</td>'
        f'<th scope=row><a href="?collector={quote(row.id)}"><bdi>{_escape(row.id)}</bdi></a></th>'
        f'<td class="n">{duration}</td><td class="n">{UNKNOWN if row.series is None else f"{row.series:,}"}</td>'
        f"<td>{seen}</td><td class=wrap>{_failure(row, moment)}</td></tr>\n"
    )


def _failure(row: LiveCollector, moment: Callable[[float], str]) -> str:
    """Return why a collector fails and what to do, or how it failed last."""
    if row.state == "failing":
        return f"<bdi>{_escape(row.message)}</bdi><span class=sub>{_escape(row.fix)}</span>"
    failure = row.last_failure
    if failure is None:
        return f"<bdi>{_escape(row.message)}</bdi>"
    over = ", over now" if failure.is_over else ""
    return f"{moment(failure.time)}{over}: <bdi>{_escape(failure.message)}</bdi> ({failure.reason})"


def _detail(row: LiveCollector, metrics: str, moment: Callable[[float], str]) -> str:
    address = (
        f"probe?target={quote(row.target)}"
        if row.target
        else f"{metrics}?collect[]={quote(row.collector)}"
    )
    return (
        f'<p><a href="./">← All</a></p><h2><bdi>{_escape(row.id)}</bdi></h2><p>{_state(row.state, row.reason)} '
        f'{_failure(row, moment)}</p><p><a href="{_escape(address)}">Metrics as text</a></p>'
    )


def _escape_sentence(text: str) -> str:
    """Return a sentence whose names have been made printable; it has marks that isolate them."""
    return _entities(text)


def _name(text: str) -> str:
    return _entities(printable(text))


def _escape(text: str) -> str:
    return _entities(printable(text, lines=True))


def _entities(text: str) -> str:
    # The standard library's module would bring the names of all entities there are.
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
