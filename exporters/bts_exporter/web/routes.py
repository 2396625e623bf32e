"""The handlers of the HTTP paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bts_exporter.collection.runner import Runner
from bts_exporter.errors import ConfigError, SelectionError
from bts_exporter.exposition.formats import content_type, negotiate
from bts_exporter.page_service import Exporter, TooManyScrapes
from bts_exporter.printable import printable
from bts_exporter.reload_state import ReloadState
from bts_exporter.web import api
from bts_exporter.web.accept import accepts_gzip
from bts_exporter.web.origin import is_cross_site
from bts_exporter.web.server import Request, Response

#: Header of requests by collectors that relay pages. The page would wait for a collector of its own.
_RELAY_HEADER = "X-Bts-Exporter-Relay"
_IS_RELAYED = "a bts-exporter is not relayed, since that could loop; scrape it"
_TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
#: How much earlier than Prometheus' scrape timeout a page is ready, to send it, in seconds.
_TIMEOUT_OFFSET = 0.5


class Routes:
    """The HTTP paths of one exporter."""

    def __init__(  # noqa: PLR0913  # options of the command line
        self,
        exporter: Exporter,
        reload_state: ReloadState | None = None,
        *,
        telemetry_path: str = "/metrics",
        reload: Callable[[], None] | None = None,
        ready: Callable[[], bool] = lambda: True,
        live: bool = True,
    ) -> None:
        """Pass `reload` to allow reloads over HTTP; it raises ConfigError if the reload fails.

        Without `live`, there is no /api/, and `/` is a page that does not change.
        """
        self._exporter = exporter
        self._reload_state = reload_state or ReloadState()
        self._telemetry_path = telemetry_path
        self._reload = reload
        self._ready = ready
        self._is_live = live
        self._pages: dict[str, Callable[[Request], Response]] = {
            "/": self._landing,
            telemetry_path: self._metrics,
            "/probe": self._probe,
            "/-/healthy": self._healthy,
            "/-/ready": self._readiness,
        }
        if live:
            self._pages["/api/lag"] = self._lag
            self._pages |= {
                f"/api/v1/{name}": self._live for name in ("live", "metrics", "history")
            }

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == "/-/reload":
            return self._reloading(request)
        page = self._pages.get(request.path)
        if page is None and request.path.startswith("/assets/"):
            page = self._asset
        if page is None:
            return self._not_found(request.path)
        if request.method not in {"GET", "HEAD"}:
            return _not_allowed("GET, HEAD")
        return page(request)

    def _landing(self, request: Request) -> Response:
        from bts_exporter.web import status_page  # noqa: PLC0415  # scrapers do not need it

        return status_page.respond(
            self._exporter,
            self._reload_state,
            self._telemetry_path,
            request.query,
            live=self._is_live,
        )

    def _asset(self, request: Request) -> Response:
        from bts_exporter.web import assets  # noqa: PLC0415  # as above

        return assets.respond(request) or self._not_found(request.path)

    def _live(self, request: Request) -> Response:
        from bts_exporter.web import live_api  # noqa: PLC0415  # as above

        match request.path.rpartition("/")[2]:
            case "live":
                return live_api.live(self._exporter, self._reload_state, request)
            case "metrics":
                return live_api.metrics(self._exporter, request)
        return live_api.history(self._exporter, request)

    def _not_found(self, path: str) -> Response:
        if path.startswith("/api/") and not self._is_live:
            return _text(404, "the API is disabled (--web.disable-api)")
        return _text(404, f"not found; metrics are at {self._telemetry_path}")

    def _healthy(self, _: Request) -> Response:
        if problem := self._exporter.stalled():
            return _text(503, f"bts-exporter is not healthy: {problem}")
        return _text(200, "bts-exporter is healthy.")

    def _readiness(self, _: Request) -> Response:
        if self._ready():
            return _text(200, "bts-exporter is ready.")
        return _text(503, "bts-exporter is starting or stopping.")

    def _metrics(self, request: Request) -> Response:
        include = request.query.get("collect[]", [])
        exclude = request.query.get("exclude[]", [])
        try:
            runners = self._exporter.collectors.select(include, exclude)
        except SelectionError as error:
            return _text(400, str(error))
        return self._page(request, runners, with_self_metrics=True)

    def _probe(self, request: Request) -> Response:
        names = request.query.get("target", [])
        if len(names) != 1:
            return _text(
                400,
                "expected exactly one target: /probe?target=NAME, with a name from the configuration",
            )
        try:
            runners = self._exporter.collectors.target(names[0])
        except SelectionError as error:
            return _text(400, str(error))
        return self._page(request, runners, with_self_metrics=False)

    def _lag(self, request: Request) -> Response:
        if request.headers.get(_RELAY_HEADER) is not None:
            return _text(508, _IS_RELAYED)
        timeout = request.headers.get(_TIMEOUT_HEADER) or ""
        return api.lag(self._exporter, request, _timeout(timeout))

    def _page(
        self, request: Request, runners: Sequence[Runner], *, with_self_metrics: bool
    ) -> Response:
        if request.headers.get(_RELAY_HEADER) is not None:
            return _text(508, _IS_RELAYED)
        accept = ", ".join(request.headers.get_all("Accept", []))
        form = negotiate(accept)
        gzip = accepts_gzip(", ".join(request.headers.get_all("Accept-Encoding", [])))
        timeout = request.headers.get(_TIMEOUT_HEADER) or ""
        try:
            body = self._exporter.page(
                runners,
                form,
                timeout=_timeout(timeout),
                gzip=gzip,
                with_self_metrics=with_self_metrics,
            )
        except TooManyScrapes as error:
            return _text(503, str(error), ("Retry-After", "1"))
        headers = [("Vary", "Accept, Accept-Encoding")]
        if gzip:
            headers.append(("Content-Encoding", "gzip"))
        return Response(200, body, content_type(accept), tuple(headers))

    def _reloading(self, request: Request) -> Response:
        if self._reload is None:
            return _text(
                403, "reload over HTTP is disabled; start with --web.enable-lifecycle to enable it"
            )
        if request.method not in {"POST", "PUT"}:
            return _not_allowed("POST, PUT")
        if is_cross_site(request.headers):
            return _text(
                403,
                "reload refused: the request comes from a page of another site; use a program such as curl",
            )
        try:
            self._reload()
        except ConfigError as error:
            return _text(500, f"reload failed, the previous settings remain active:\n{error}")
        return _text(200, "reloaded.")


def _text(status: int, message: str, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{printable(message, lines=True)}\n".encode(), headers=headers)


def _not_allowed(allowed: str) -> Response:
    return _text(405, f"method not allowed; allowed: {allowed}", ("Allow", allowed))


def _timeout(timeout: str) -> float | None:
    """Return the seconds that a scrape may take, from the scrape timeout that Prometheus sends."""
    try:
        seconds = float(timeout)
    except ValueError:
        return None
    if not 0 < seconds < float("inf"):
        return None
    return max(seconds - _TIMEOUT_OFFSET, seconds / 2)
