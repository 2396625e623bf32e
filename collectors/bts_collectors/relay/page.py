"""The response of an application as families of metrics."""

from __future__ import annotations

from http import HTTPStatus

from bts_exporter import HttpResponse, Reason, TargetError, prometheus_text

_OPENMETRICS = "application/openmetrics-text"
_END = b"# EOF"
#: Bytes of a page that an error quotes.
_MAX_QUOTED = 60
_REASONS: dict[int, Reason] = {
    HTTPStatus.UNAUTHORIZED: "auth",
    HTTPStatus.FORBIDDEN: "noperm",
}
_CURES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "set a user in url and password, or token",
    HTTPStatus.NOT_FOUND: "is the path of url right?",
    HTTPStatus.LOOP_DETECTED: "a bts-exporter is not relayed, let Prometheus scrape it",
}


def read_page(response: HttpResponse) -> prometheus_text.Page:
    """Return the families of a response; TargetError if it is not a page of metrics.

    The content type decides only between the formats: old libraries send text/html, or none.
    """
    if response.status != HTTPStatus.OK:
        raise _refused(response)
    body = response.body
    begin = bytes(body[:_MAX_QUOTED])
    openmetrics = response.content_type.strip().lower().startswith(_OPENMETRICS)
    if not openmetrics and body[-16:].rstrip().endswith(_END):
        openmetrics = True
    page = prometheus_text.read(body.decode(errors="surrogateescape"), openmetrics=openmetrics)
    if not page.families and page.error_count:
        what = f"application at {response.address}: not a page of metrics, it begins with {begin!r}"
        raise TargetError(reason="protocol", message=what)
    return page


def _refused(response: HttpResponse) -> TargetError:
    cure = _CURES.get(response.status, "is this the address of its metrics?")
    if response.location:
        cure = f"it redirects to {response.location}: write that as url"
    reason = _REASONS.get(response.status, "protocol")
    what = f"application at {response.address}: HTTP {response.status}; {cure}"
    return TargetError(reason, what)
