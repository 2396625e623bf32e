"""The test kit for authors of collectors. Its pytest fixtures are in bts_exporter_pytest."""

from bts_exporter.test_kit.collecting import collect, look, samples
from bts_exporter.test_kit.declarations import naming_problems, not_emitted
from bts_exporter.test_kit.exporter_process import ExporterProcess
from bts_exporter.test_kit.golden import Golden
from bts_exporter.test_kit.http_server import (
    Handler,
    HttpServer,
    Reply,
    Request,
    drop,
    hang,
    in_turn,
    raw,
    reply,
)
from bts_exporter.test_kit.running import Collected, Running, configured, run
from bts_exporter.test_kit.samples import Page, Sample, Samples

__all__ = [
    "Collected",
    "ExporterProcess",
    "Golden",
    "Handler",
    "HttpServer",
    "Page",
    "Reply",
    "Request",
    "Running",
    "Sample",
    "Samples",
    "collect",
    "configured",
    "drop",
    "hang",
    "in_turn",
    "look",
    "naming_problems",
    "not_emitted",
    "raw",
    "reply",
    "run",
    "samples",
]
