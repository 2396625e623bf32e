"""Probes an HTTP prediction service: each request of the settings once per collection."""

from __future__ import annotations

from bts_collectors.ml_service import metrics
from bts_collectors.ml_service.config import MlServiceConfig
from bts_collectors.ml_service.request import request_of
from bts_collectors.ml_service.response import Findings, examine
from bts_exporter import (
    ByteBudget,
    Collector,
    HttpClient,
    HttpRequest,
    HttpResponse,
    Product,
    Scrape,
    TargetError,
)

#: Bytes, unpacked, of the response to one probe.
MAX_RESPONSE_BYTES = 1_000_000

_PRODUCT = Product(
    "prediction service",
    if_refused="is the service running, and listening there?",
    if_closed="does this port speak HTTP, or HTTPS (https://)?",
)


class MlService(Collector):
    """An HTTP prediction service: whether it answers, how fast, and whether it predicts."""

    Config = MlServiceConfig
    config: MlServiceConfig

    metrics = metrics.METRICS

    def __init__(self, config: MlServiceConfig) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._requests = {name: request_of(probe) for name, probe in config.probes.items()}
        self._client = HttpClient(
            _PRODUCT,
            config.url,
            password=config.password,
            token=config.token,
            tls=config.tls,
            headers={name: value.reveal() for name, value in config.headers.items()},
        )

    def stop(self) -> None:
        """Close the connection and interrupt a running request."""
        self._client.close()

    def collect(self, scrape: Scrape) -> None:
        """Send each request and emit what its response shows; TargetError if the service answers none."""
        for name in self._requests:
            scrape.emit(metrics.UP, 0, name)
        failures: list[TargetError] = []
        models: set[tuple[str, str]] = set()
        for index, (name, request) in enumerate(self._requests.items()):
            # A probe that hangs leaves the others their share of the time.
            timeout_seconds = scrape.remaining() / (len(self._requests) - index)
            response = self._send(scrape, name, request, timeout_seconds)
            if isinstance(response, TargetError):
                failures.append(response)
            else:
                findings = self._emit_response(scrape, name, response)
                found = findings.model or self.config.model, findings.version or self.config.version
                models.add(found)
        _emit_models(scrape, models)
        if len(failures) == len(self._requests):
            raise failures[0]
        for failure in failures:
            scrape.report(failure)

    def _send(
        self, scrape: Scrape, name: str, request: HttpRequest, timeout_seconds: float
    ) -> HttpResponse | TargetError:
        """Return the response, or why there is none; emit how long the phases took that ended."""
        try:
            return self._client.send(request, timeout_seconds, ByteBudget(MAX_RESPONSE_BYTES))
        except TargetError as error:
            # A copy: the traceback's frames would keep the request in memory.
            return TargetError(error.reason, f"probe {name}: {error}")
        finally:
            for phase, seconds in self._client.phases.items():
                scrape.emit(metrics.DURATION, seconds, name, phase)
            if (expiry := self._client.certificate_expiry) is not None:
                scrape.replace(metrics.CERTIFICATE, expiry)

    def _emit_response(self, scrape: Scrape, name: str, response: HttpResponse) -> Findings:
        scrape.replace(metrics.UP, 1, name)
        scrape.emit(metrics.STATUS, response.status, name)
        findings = examine(response, self.config.probes[name])
        scrape.emit(metrics.VALID, int(not findings.problems), name)
        if findings.problems:
            what = "; ".join(findings.problems)
            message = f"probe {name}: prediction service at {response.address}: {what}"
            scrape.report(TargetError(findings.reason, message))
        elif findings.prediction is not None:
            scrape.emit(metrics.PREDICTION, findings.prediction, name)
        return findings


def _emit_models(scrape: Scrape, models: set[tuple[str, str]]) -> None:
    """Emit each combination of name and version; several if the probes disagree."""
    complete = {pair for pair in models if all(pair)} or models
    for model, version in sorted(complete):
        if model or version:
            scrape.emit(metrics.MODEL, 1, model, version)


COLLECTOR = MlService
