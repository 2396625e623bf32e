"""The HTTP API: what the exporter knows as JSON."""

from __future__ import annotations

import msgspec

from bts_exporter.lag_report import VERSION, LagReport, matching, reports_lag
from bts_exporter.page_service import Exporter, TooManyScrapes
from bts_exporter.web.json_response import json_error, json_response
from bts_exporter.web.server import Request, Response

_PARAMETERS = ("target", "system", "destination", "group")


def lag(exporter: Exporter, request: Request, timeout: float | None) -> Response:
    """Answer `/api/lag`: a scrape of the collectors that can have destinations."""
    wanted = {name: values[0] for name, values in request.query.items()}
    if problem := _problem_of(request.query):
        return json_error(VERSION, 400, problem)
    runners = [runner for runner in exporter.collectors.runners if reports_lag(runner)]
    if "target" in wanted:  # others are not asked
        runners = [runner for runner in runners if runner.target == wanted["target"]]
    try:
        report = exporter.lag_report(runners, timeout=timeout)
    except TooManyScrapes as error:
        return json_error(VERSION, 503, str(error), ("Retry-After", "1"))
    if not wanted:
        return json_response(request, report)
    return _filtered(request, report, wanted)


def _problem_of(query: dict[str, list[str]]) -> str:
    """Return why a query cannot be answered; one that is misspelled must not select everything."""
    if unknown := sorted(query.keys() - set(_PARAMETERS)):
        return f"unknown parameter: {', '.join(unknown)}; there are: {', '.join(_PARAMETERS)}"
    repeated = [name for name, values in query.items() if len(values) > 1]
    return f"parameter given twice: {', '.join(repeated)}" if repeated else ""


def _filtered(request: Request, report: LagReport, wanted: dict[str, str]) -> Response:
    """Return only the destinations that were asked for; that there are none is never a value."""
    found = matching(report, wanted)
    if found:
        return json_response(request, msgspec.structs.replace(report, destinations=found))
    asked = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    failing = [state for state in report.collectors if not state.success]
    message = f"no destination with {asked}"
    if failing:
        message += f"; {len(failing)} collectors fail, see `collectors`"
    return json_error(VERSION, 404, message, collectors=report.collectors)
