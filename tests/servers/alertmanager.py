"""Debian's Alertmanager with the settings that we ship, and the webhook that it delivers to."""

from __future__ import annotations

import json
import re
import threading
from contextlib import ExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from servers import Process, free_port, need

SHIPPED = Path(__file__).parents[2] / "monitoring" / "prometheus"
#: How many times faster than shipped the rules and the settings are: a minute takes a second.
SPEED = 60
#: Seconds of lag above which ConsumerBehind fires, instead of minutes.
LAG = 3


class Webhook:
    """A receiver of notifications on the loopback address: each alert of each, in order of arrival."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        received = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.extend(json.loads(body)["alerts"])
                self.send_response(HTTPStatus.OK)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def delivered(self, status: str, alertname: str, **labels: str) -> bool:
        """Return whether an alert with these labels was delivered as `firing` or `resolved`."""
        wanted = {"alertname": alertname, **labels}.items()
        return any(
            alert["status"] == status and wanted <= alert["labels"].items() for alert in self.alerts
        )

    def stop(self) -> None:
        """End the receiver."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Alertmanager:
    """An Alertmanager with the shipped settings, which delivers to `webhook` within seconds."""

    def __init__(self, folder: Path) -> None:
        program = need("prometheus-alertmanager", "prometheus-alertmanager")
        self.address = f"127.0.0.1:{free_port()}"
        with ExitStack() as failed:
            self.webhook = Webhook()
            failed.callback(self.webhook.stop)
            (folder / "alertmanager.yml").write_text(self._settings())
            self.process = Process(
                [
                    program,
                    f"--config.file={folder / 'alertmanager.yml'}",
                    f"--storage.path={folder}",
                    f"--web.listen-address={self.address}",
                    "--cluster.listen-address=",
                ],
                folder,
            )
            self.process.ready(self._is_ready)
            failed.pop_all()

    def post(self, *alerts: dict[str, str]) -> None:
        """Add alerts with these labels, as Prometheus does."""
        body = json.dumps([{"labels": labels} for labels in alerts])
        status, reply = self._request("POST", "/api/v2/alerts", body)
        assert status == HTTPStatus.OK, reply

    def alerts(self, state: str) -> list[dict[str, str]]:
        """Return the labels of the alerts in a state: `active`, or `suppressed` by another alert."""
        status, body = self._request("GET", "/api/v2/alerts")
        assert status == HTTPStatus.OK, body
        return [alert["labels"] for alert in json.loads(body) if alert["status"]["state"] == state]

    def stop(self) -> None:
        """End the server and its receiver."""
        self.process.kill()
        self.webhook.stop()

    def _settings(self) -> str:
        settings = yaml.safe_load((SHIPPED / "alertmanager.yml").read_text())
        _shorten(settings["route"], "group_wait", "group_interval")
        [webhook] = settings["receivers"][0]["webhook_configs"]
        webhook["url"] = self.webhook.url
        return yaml.safe_dump(settings)

    def _is_ready(self) -> bool:
        try:
            return self._request("GET", "/-/ready")[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        with closing(HTTPConnection(self.address, timeout=10)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()


def write_fast_rules(folder: Path) -> list[Path]:
    """Write copies of the shipped rules that fire within seconds; return their paths.

    Those about the machine keep their times: its load is not the tests' to control.
    """
    written = []
    for path in sorted((SHIPPED / "rules").glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        for group in content["groups"] if path.name != "host.yml" else ():
            for part in (group, *group["rules"]):
                _shorten(part, "interval", "for", "keep_firing_for")
            for rule in group["rules"]:
                if rule.get("alert") == "ConsumerBehind":
                    rule["expr"] = re.sub(r"> \d+", f"> {LAG}", rule["expr"])
        written.append(folder / path.name)
        written[-1].write_text(yaml.safe_dump(content))
    return written


def _shorten(settings: dict[str, Any], *keys: str) -> None:
    """Divide durations such as `5m` by SPEED."""
    for key in keys:
        if key in settings:
            count, unit = re.fullmatch(r"(\d+)([smhd])", settings[key]).groups()
            seconds = int(count) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
            settings[key] = f"{seconds * 1000 // SPEED}ms"
