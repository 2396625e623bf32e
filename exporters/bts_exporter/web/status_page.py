"""The status page at `/`: the state of all collectors, for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote

import bts_exporter
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Runner
from bts_exporter.page_service import Exporter
from bts_exporter.printable import printable
from bts_exporter.reload_state import ReloadState

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.25rem .8rem;border-bottom:1px solid #ccc;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.failing{color:#b00020;font-weight:600}
.absent{color:#666}.ok{color:#0a6b2d}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}td,th{border-color:#444}
a{color:#8ab4f8}.failing{color:#ff8a80}.absent{color:#999}.ok{color:#81c995}}
"""


def render(exporter: Exporter, reload_state: ReloadState, telemetry_path: str) -> str:
    """Return the page as HTML, from what the last scrapes found: it collects nothing itself."""
    rows = "".join(_rows(exporter, telemetry_path))
    settings = "".join(
        f"<p class=failing>The last reload failed:</p><pre>{_escape(state.problem)}</pre>"
        for state in (reload_state, exporter.web_state)
        if state is not None and state.problem
    )
    version = _escape(bts_exporter.__version__)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>bts-exporter</title><style>{_STYLE}</style></head>
<body><h1>bts-exporter</h1>
<p>Version {version}. Settings loaded {_moment(reload_state.loaded_at)}.</p>{settings}
<p><a href="{_escape(telemetry_path)}">Metrics</a> ·
<a href="/-/healthy">Healthy</a> · <a href="/-/ready">Ready</a></p>
<table><thead><tr><th>Collector</th><th>Target</th><th>State</th><th>Duration</th><th>Series</th>
<th>Last success</th><th>Message</th></tr></thead>
<tbody>
{rows}</tbody></table>
</body></html>
"""


def _rows(exporter: Exporter, telemetry_path: str) -> Iterator[str]:
    for runner in exporter.collectors.runners:
        last = exporter.last.get(runner)
        outcome = last.outcome if last and last.outcome else runner.outcome
        state = _state(outcome)
        error = outcome.message if outcome else ""
        seen = runner.totals.last_success
        yield (
            f"<tr><td>{_link(runner, telemetry_path)}</td>"
            f"<td>{_target(runner)}</td>"
            f'<td class="{state.split()[0]}">{state}</td>'
            f'<td class="n">{f"{last.duration * 1000:.1f} ms" if last else ""}</td>'
            f'<td class="n">{last.series if last else ""}</td>'
            f"<td>{_moment(seen) if seen else 'never'}</td>"
            f"<td>{_escape(error)}</td></tr>\n"
        )


def _link(runner: Runner, telemetry_path: str) -> str:
    address = f"{telemetry_path}?collect[]={quote(runner.name)}"
    return f'<a href="{_escape(address)}">{_escape(runner.name)}</a>'


def _target(runner: Runner) -> str:
    if not runner.target:
        return ""
    return f'<a href="/probe?target={quote(runner.target)}">{_escape(runner.target)}</a>'


def _state(outcome: Outcome | None) -> str:
    if outcome is None:
        return "waiting for the first scrape"
    if not outcome.success:
        return f"failing ({outcome.reason})"
    return "ok" if outcome.supported else "absent"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _escape(text: str) -> str:
    text = printable(text, lines=True)
    # The standard library's module would bring the names of all entities there are.
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
