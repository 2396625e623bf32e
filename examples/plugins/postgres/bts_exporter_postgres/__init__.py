"""Tables of PostgreSQL that are queues: waiting rows, rows in work, and the age of the oldest row."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from threading import Timer
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
import psycopg
from psycopg import sql

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, Url, backlog

#: Text of an error, its reason and its cure. What fails to connect has no SQLSTATE.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("permission denied", "noperm", "GRANT SELECT on the table, and USAGE on its schema"),
    ("pgrowlocks", "protocol", "`locks: true` takes CREATE EXTENSION pgrowlocks"),
    ("refused", "refused", "is it running, and does it listen on this address?"),
    ("resolve", "dns", "check the host's spelling, and the name servers of this machine"),
    ("password|pg_hba.conf", "auth", "check user and password, and pg_hba.conf"),
    ("starting up", "loading", "it will answer when it has recovered"),
    ("ssl", "tls", "check `tls`, and the server's settings ssl and ssl_cert_file"),
    ("timeout", "timeout", "does it hang? An index on the waiting rows makes queries fast"),
    ("closed", "unreachable", "did it end?"),
    ("", "protocol", "check database, table, time and the conditions"),
)
#: Counts rows; those in work are not waiting. LOCKED holds for rows that a transaction has locked.
QUERY = sql.SQL(
    "SELECT count(*) FILTER (WHERE NOT work), count(*) FILTER (WHERE work),"
    " extract(epoch FROM now() - min(since) FILTER (WHERE NOT work))::float8"
    " FROM (SELECT {time} AS since, ({in_work}\n) IS TRUE OR {locked} AS work"
    " FROM {table} WHERE ({waiting}\n) OR ({in_work}\n)) AS queue"
)
LOCKED = sql.SQL("ctid IN (SELECT locked_row FROM pgrowlocks({name}) WHERE modes::text ~ 'Update')")


class Queue(bts.CollectorConfig, frozen=True):
    """A table whose rows are messages."""

    #: Its name, or schema.name.
    table: str
    #: The column with the time since which a row waits.
    time: str
    #: SQL condition of the rows that wait.
    waiting: str = "true"
    #: SQL condition of the rows that a worker has; without it their number is not known.
    in_work: str | None = None
    #: Whether rows in work are those that are locked (SKIP LOCKED); takes the extension pgrowlocks.
    locks: bool = False
    #: The label `destination`; by default the table.
    name: str = ""

    def query(self) -> sql.Composed:
        """Return the query for waiting rows, rows in work, and seconds since the oldest waits."""
        table, time = sql.Identifier(*self.table.split(".")), sql.Identifier(self.time)
        waiting, in_work = sql.SQL(self.waiting), sql.SQL(self.in_work or "false")
        locked = LOCKED.format(name=table.as_string()) if self.locks else sql.SQL("false")
        return QUERY.format(table=table, time=time, waiting=waiting, in_work=in_work, locked=locked)


class Postgres(bts.Collector):
    """Tables of PostgreSQL that are queues."""

    class Config(bts.CollectorConfig, frozen=True):
        """A database, and its tables that are queues."""

        queues: Annotated[tuple[Queue, ...], msgspec.Meta(min_length=1)]
        #: postgresql://[user@]host[:port]/database. For a socket, the host is its folder with %2F.
        url: Url = Url.from_setting("postgresql://127.0.0.1/postgres")
        password: Secret | None = None
        #: Encrypts, and checks the certificate; without these settings the server decides.
        tls: bts.TLSConfig | None = None

        def __post_init__(self) -> None:
            """Check the address, and what libpq cannot do."""
            self.url.require_scheme("postgresql", "postgres")
            if self.tls and self.tls.server_name:
                message = "tls.server_name: write it as host of url"
                raise ValueError(message)

    config: Config
    up = bts.gauge("postgres_up", "Whether the database answers.")
    vocabulary = (backlog.BACKLOG, backlog.IN_FLIGHT, backlog.LAG_SECONDS, backlog.LAG_METHOD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each table; one that cannot be read is reported."""
        scrape.emit(self.up, 0)
        try:
            with self._connect(scrape.remaining()) as connection:
                scrape.replace(self.up, 1)
                watchdog = Timer(scrape.remaining(), interrupt, [connection])
                watchdog.start()
                try:
                    self._read(scrape, connection)
                finally:
                    watchdog.cancel()
        except psycopg.Error as error:
            late = round(scrape.remaining(), 2) == 0
            raise self._failure(TimeoutError("timeout") if late else error) from error

    def _connect(self, seconds: float) -> psycopg.Connection:
        url, tls = self.config.url, self.config.tls
        options: dict[str, Any] = {"host": unquote(url.host), "port": url.port}
        options |= {"user": url.username, "dbname": url.path.strip("/") or None}
        options |= {"connect_timeout": int(seconds) + 1, "application_name": "bts-exporter"}
        if password := self.config.password or url.password:
            options["password"] = password.reread().reveal()
        if tls:
            options["sslmode"] = "require" if tls.insecure_skip_verify else "verify-full"
            options["sslrootcert"] = tls.ca_file or "system"
            options |= {"sslcert": tls.cert_file, "sslkey": tls.key_file}
        connection = psycopg.connect(autocommit=True, **options)
        connection.read_only = True
        return connection

    def _read(self, scrape: Scrape, connection: psycopg.Connection) -> None:
        for index, queue in enumerate(self.config.queues):
            limit = f"{scrape.remaining() * 900 / (len(self.config.queues) - index) + 1:.0f}ms"
            try:
                with connection.transaction(), connection.cursor(binary=True) as cursor:
                    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [limit])
                    [(waiting, in_work, age)] = cursor.execute(queue.query()).fetchall()
            except psycopg.Error as error:
                if connection.closed:
                    raise
                scrape.report(self._failure(error, f", table {queue.table}"))
                continue
            labels = ("postgres", queue.name or queue.table, "")
            scrape.emit(backlog.BACKLOG, waiting, *labels)
            if queue.locks or queue.in_work:
                scrape.emit(backlog.IN_FLIGHT, in_work, *labels)
            if age is not None or not waiting:  # not of rows whose time is NULL
                backlog.emit_lag(scrape, backlog.Age(max(age or 0, 0), "message_time"), *labels)

    def _failure(self, error: Exception, place: str = "") -> TargetError:
        text = str(error).partition("\n")[0]
        reason, cure = next(row[1:] for row in ERRORS if re.search(row[0], text.lower()))
        return TargetError(reason, f"PostgreSQL at {self.config.url}{place}: {text}; {cure}")


def interrupt(connection: psycopg.Connection) -> None:
    """End a connection on which a query waits: libpq has no timeout for that."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
