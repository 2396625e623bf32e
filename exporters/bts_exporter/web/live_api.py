"""The JSON of the live page, below /api/v1/."""

from __future__ import annotations

import math
from time import monotonic, time

import msgspec

from bts_exporter import prometheus_text
from bts_exporter.collection.runner import Runner
from bts_exporter.exposition.formats import Format
from bts_exporter.lag_report import text
from bts_exporter.live.recorder import FIELDS
from bts_exporter.live.report import VERSION, live_report
from bts_exporter.page_service import Exporter, TooManyScrapes
from bts_exporter.reload_state import ReloadState
from bts_exporter.web.json_response import json_error, json_response
from bts_exporter.web.server import Request, Response

#: How many series of one metric the view of a collector lists.
_MOST_SERIES = 200


class Sample(msgspec.Struct):
    """One series of a metric; `value` as the text format spells it, such as +Inf."""

    name: str
    labels: dict[str, str]
    value: float | str


class Family(msgspec.Struct):
    """A metric with its help and its series, of which the first ones are listed."""

    name: str
    type: str
    help: str
    samples: list[Sample]
    series: int


def live(exporter: Exporter, reload_state: ReloadState, request: Request) -> Response:
    """Answer `/api/v1/live`: everything that the page shows, from memory."""
    since = request.query.get("since", ["0"])[0]
    try:
        cursor = float(since)
    except ValueError:
        return json_error(
            VERSION, 400, f"since={since!r} is not a valid cursor (expected a number)"
        )
    if not math.isfinite(cursor):
        message = f"since={since!r} is not a valid cursor (expected a finite number)"
        return json_error(VERSION, 400, message)
    exporter.recorder.viewed_at = monotonic()
    return json_response(request, live_report(exporter, reload_state, cursor))


def metrics(exporter: Exporter, request: Request) -> Response:
    """Answer `/api/v1/metrics`: the metrics of one collector with their help, from a scrape of it."""
    found = _runner(exporter, request)
    if isinstance(found, Response):
        return found
    try:
        page = exporter.page([found], Format.TEXT, with_self_metrics=False)
    except TooManyScrapes as error:
        return json_error(VERSION, 503, str(error), ("Retry-After", "1"))
    families = [_family(family) for family in prometheus_text.parse(page.decode(), strict=False)]
    content = {"version": VERSION, "id": text(found.identity), "families": families}
    return json_response(request, content)


def history(exporter: Exporter, request: Request) -> Response:
    """Answer `/api/v1/history`: the last minutes of one destination."""
    found = _runner(exporter, request)
    if isinstance(found, Response):
        return found
    wanted = [request.query.get(name, [""])[0] for name in ("system", "destination", "group")]
    recorder = exporter.recorder
    offset = time() - monotonic()
    with recorder.lock:
        ring = recorder.rings.get(found)
        keys = [] if ring is None else [key for key in ring.keys if list(map(text, key)) == wanted]
        if ring is None or not keys:
            message = f"{found.identity} has no such destination: {', '.join(wanted)}"
            return json_error(VERSION, 404, message)
        columns = {
            name: [v if math.isfinite(v) else None for v in ring.values_of(keys[0], field)]
            for field, name in enumerate(FIELDS)
        }
        times = [round(moment + offset, 3) for moment in ring.times()]
    return json_response(request, {"version": VERSION, "times": times, **columns})


def _runner(exporter: Exporter, request: Request) -> Runner | Response:
    """Return the collector that the parameter `collector` names, or the error."""
    names = request.query.get("collector", [])
    if len(names) != 1:
        message = "expected exactly one collector: ?collector=ID, with an id of /api/v1/live"
        return json_error(VERSION, 400, message)
    for runner in exporter.collectors.runners:
        if text(runner.identity) == names[0]:
            return runner
    message = f"no collector with the id {names[0]!r}: /api/v1/live lists them"
    return json_error(VERSION, 404, message)


def _family(family: prometheus_text.Family) -> Family:
    samples = list(family.samples)
    return Family(
        family.name,
        str(family.kind),
        family.help,
        [
            Sample(family.name + sample.suffix, sample.labels, _value(sample.value))
            for sample in samples[:_MOST_SERIES]
        ],
        len(samples),
    )


def _value(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{value:+}".replace("inf", "Inf")
