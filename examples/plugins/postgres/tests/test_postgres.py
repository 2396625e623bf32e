"""The plug-in and Debian's postgresql."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import bts_exporter_postgres
from bts_exporter.errors import ConfigError
from bts_exporter.testing import ExporterProcess, collect, configured, look, naming_problems, run
from bts_exporter_postgres import Postgres
from servers import Process, free_port, need
from servers.certificates import Certificates

#: `exporter` may read all tables but `secret`.
TABLES = """
CREATE EXTENSION pgrowlocks;
CREATE USER exporter PASSWORD 'hidden';
CREATE SCHEMA "Work";
CREATE TABLE "Work"."Jobs" (id serial, "Since" timestamptz);
CREATE TABLE mails (state text, since timestamp);
CREATE TABLE secret (since timestamptz);
CREATE TABLE dateless (since timestamptz);
INSERT INTO mails VALUES ('ready', '2020-01-01 00:00'), ('rejected', NULL), ('taken', NULL), ('ready', NULL);
INSERT INTO dateless VALUES (NULL);
GRANT USAGE ON SCHEMA "Work" TO exporter;
ALTER USER exporter SET timezone = 'Asia/Tokyo';
GRANT SELECT ON "Work"."Jobs", mails, dateless TO exporter;
"""
JOBS = {"table": "Work.Jobs", "time": "Since", "locks": True}
#: The percent sign and the comment are the user's; neither is ours to read.
MAILS = {
    "table": "mails",
    "time": "since",
    "waiting": "state LIKE 'rea%' -- and no others",
    "in_work": "state = 'taken'",
}


#: How far clocks of processes may be apart on a virtual machine, in seconds; ages here differ by more.
SKEW = 10


class PostgresServer(Process):
    """A PostgreSQL of our own, which does not run as root."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql://exporter@127.0.0.1:{self.port}/postgres"
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        initdb = need(str(programs[-1]) if programs else "initdb", "postgresql")
        self._as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
        self._as = self._as if os.geteuid() == 0 else []
        data = folder / "data"
        options = ["--username=admin", "--auth=trust", "--no-sync", "--no-instructions"]
        argv = [*self._as, initdb, f"--pgdata={data}", "--locale=C", *options]
        if self._as:
            shutil.chown(folder, "nobody", "nogroup")
        subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=120)
        rule = "host all exporter 127.0.0.1/32 scram-sha-256\n"
        rules = data / "pg_hba.conf"
        rules.write_text(rule + rules.read_text())
        for source, name in (
            (certificates.server, "server.crt"),
            (certificates.server_key, "server.key"),
        ):
            shutil.copy(source, data / name)
            (data / name).chmod(0o600)
            if self._as:
                shutil.chown(data / name, "nobody", "nogroup")
        where = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        settings = [*where, "fsync=off", "ssl=on"]
        program = str(Path(initdb).with_name("postgres"))
        argv = [*self._as, program, "-D", str(data), *(f"--{setting}" for setting in settings)]
        super().__init__(argv, folder)
        self.ready(self._answers)

    def _answers(self) -> bool:
        try:  # it listens before it is ready
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the administrator."""
        settings = {"user": "admin", "dbname": "postgres", "autocommit": True}
        return psycopg.connect(host="127.0.0.1", port=self.port, **settings)

    def kill(self) -> None:
        """End it, and all of its processes."""
        if self.popen.poll() is None:
            self.popen.send_signal(3)  # immediate shutdown
        self.popen.wait()

    def collector(self, *queues: dict[str, Any], **settings: Any) -> Postgres:
        """Return a collector of these tables."""
        settings = {"url": self.url, "password": "hidden", "queues": queues, **settings}
        found = configured(Postgres, **settings)
        assert isinstance(found, Postgres)
        return found


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PostgresServer]:
    """Give a server with TABLES."""
    # Not below pytest's folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder), certificates)
        try:
            with closing(server.connect()) as connection:
                connection.execute(TABLES)
            yield server
        finally:
            server.kill()


@pytest.fixture
def jobs(server: PostgresServer) -> list[float]:
    """Fill the table of jobs, and return the times of its rows."""
    times = [time.time() - age for age in (300, 200, 100)]
    with closing(server.connect()) as connection:
        connection.execute('TRUNCATE "Work"."Jobs"')
        for at in times:
            connection.execute(
                'INSERT INTO "Work"."Jobs" ("Since") VALUES (to_timestamp(%s))', [at]
            )
    return times


@pytest.mark.live
def test_conditions(server: PostgresServer) -> None:
    """Rows are counted by the conditions of the settings; times without a zone are in that of the user."""
    start = time.time()
    samples = collect(server.collector(MAILS, {**MAILS, "name": "again"}))
    end = time.time()

    assert samples.value("messaging_backlog_messages", destination="mails") == 2
    assert samples.value("messaging_in_flight_messages", destination="again") == 1
    then = 1577836800 - 9 * 3600  # 2020-01-01 00:00 in Tokyo
    lag = samples.value("messaging_lag_seconds", destination="mails")
    assert start - then - SKEW <= lag <= end - then + SKEW


@pytest.mark.live
def test_tables_that_cannot_be_read(server: PostgresServer, jobs: list[float]) -> None:
    """Each failure is reported with its cure, and the tables after it are served all the same."""
    failing = [
        ({"table": "secret", "time": "since"}, "GRANT SELECT"),
        ({"table": "none", "time": "since"}, "check database, table, time"),
        ({"table": "mails", "time": "since", "waiting": "pg_sleep(60) IS NULL"}, "An index on the"),
        (
            {
                "table": "mails",
                "time": "since",
                "name": "a",
                "waiting": "true); DROP TABLE x; --",
            },
            "syntax error",
        ),
        ({"table": 'x"; DROP TABLE mails; --', "time": "since"}, "does not exist"),
    ]
    settings = [queue for queue, _ in failing]
    last = {"table": "Work.Jobs", "time": "Since", "waiting": 'id > 0 AND "Since" < now()'}
    queues = [*settings, last, {"table": "dateless", "time": "since"}]
    samples, error = look(server.collector(*queues), seconds=4)

    assert error is not None
    assert error.reason == "noperm"
    for _, cure in failing:
        assert cure in str(error)
    assert samples.value("postgres_up") == 1
    backlogs = samples["messaging_backlog_messages"]
    assert backlogs == {("postgres", "Work.Jobs", ""): 3, ("postgres", "dateless", ""): 1}
    assert samples.find("messaging_lag_seconds", destination="dateless") == []
    assert samples.find("messaging_in_flight_messages") == []
    with closing(server.connect()) as connection:
        assert connection.execute("SELECT count(*) FROM mails").fetchall() == [(4,)]


@pytest.mark.live
def test_login_and_tls(server: PostgresServer, certificates: Certificates) -> None:
    """A wrong password and a certificate of an unknown authority have their reasons."""
    wrong = run(server.collector(MAILS, password="wrong-one"))
    distrusted = run(server.collector(MAILS, tls={}))
    trusted = run(server.collector(MAILS, tls={"ca_file": certificates.ca}))

    assert (wrong.reason, distrusted.reason, trusted.reason) == ("auth", "tls", None)
    assert wrong.samples == {"postgres_up": {(): 0}}
    assert "check user and password" in wrong.message
    assert "wrong-one" not in wrong.message


@pytest.mark.live
def test_connection_that_waits_is_ended(server: PostgresServer) -> None:
    """A query to a server that hangs ends at the deadline."""
    with closing(server.connect()) as connection:
        ending = threading.Timer(0.1, bts_exporter_postgres.interrupt, [connection])
        ending.start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(60)")
        ending.join()


@pytest.mark.live
def test_worker_that_stopped(
    server: PostgresServer,
    jobs: list[float],
    bts_exporter_process: Callable[..., ExporterProcess],
) -> None:
    """A locked row is in work until its worker ends; after the server's end postgres_up is 0."""
    exporter = bts_exporter_process(
        {"postgres": {"url": server.url, "password": "hidden", "queues": [JOBS]}}
    )
    queue = {"system": "postgres", "destination": "Work.Jobs"}

    def check(waiting: int, in_work: int, oldest: float) -> None:
        start = time.time()
        page = exporter.page()
        end = time.time()
        assert page.value("postgres_up") == 1
        assert page.value("messaging_backlog_messages", **queue) == waiting
        assert page.value("messaging_in_flight_messages", **queue) == in_work
        assert page.value("messaging_lag_method_info", **queue, method="message_time") == 1
        lag = page.value("messaging_lag_seconds", **queue)
        assert start - oldest - SKEW <= lag <= end - oldest + SKEW

    with closing(server.connect()) as worker, worker.transaction():
        worker.execute('SELECT FROM "Work"."Jobs" ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED')
        check(waiting=2, in_work=1, oldest=jobs[1])
    check(waiting=3, in_work=0, oldest=jobs[0])  # the worker stopped without having done its work

    server.freeze()
    hung = run(server.collector(JOBS), seconds=1)
    server.thaw()
    assert (hung.reason, hung.samples) == ("timeout", {"postgres_up": {(): 0}})

    server.kill()
    page = exporter.page()
    assert page.value("postgres_up") == 0
    assert (
        page.value("bts_exporter_collector_errors_total", collector="postgres", reason="refused")
        == 1
    )
    assert page.find("messaging_backlog_messages") == []
    message = "is it running, and does it listen on this address?"
    assert f"{server.url.replace('exporter@', '')}: " in exporter.log.read_text()
    assert message in exporter.log.read_text()


@pytest.mark.parametrize(
    ("queues", "settings", "message"),
    [
        ([MAILS], {"tls": {"server_name": "db"}}, "tls.server_name"),
        ([MAILS], {"url": "mysql://db"}, "expected postgresql:// or postgres://"),
        ([], {}, "queues: must have at least 1 entry"),
    ],
)
def test_settings_without_sense(queues: list[Any], settings: dict[str, Any], message: str) -> None:
    """Settings that contradict each other, or that libpq does not have, are errors."""
    with pytest.raises(ConfigError, match=message):
        configured(Postgres, **{"url": "postgresql://db/x", "queues": queues, **settings})


def test_names() -> None:
    """The names of the metrics follow the conventions."""
    assert naming_problems(Postgres) == []
