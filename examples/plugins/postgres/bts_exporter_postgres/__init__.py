"""Tables of PostgreSQL that are queues: waiting rows, rows in work, and the age of the oldest row."""

from __future__ import annotations

import math
import os
import socket
from contextlib import suppress
from threading import Timer
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg import sql

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, Url, backlog

#: Text of an error, its reason and its cure. What fails to connect has no SQLSTATE.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("permission denied", "noperm", "GRANT SELECT on the table, and USAGE on its schema"),
    ("statement timeout", "timeout", "an index on the waiting rows helps, or a longer `timeout`"),
    ("pgrowlocks", "protocol", "`locks: true` takes CREATE EXTENSION pgrowlocks"),
    ("refused", "refused", "is it running, and does it listen on this address?"),
    ("resolve", "dns", "check the host's spelling, and the name servers of this machine"),
    ("password", "auth", "check user and password"),
    ("pg_hba.conf", "auth", "permit this user and host in pg_hba.conf"),
    ("starting up", "loading", "it will answer when it has recovered"),
    ("ssl", "tls", "check `tls`, and the server's settings ssl and ssl_cert_file"),
    ("timeout", "timeout", "it did not reply in time"),
    ("closed", "unreachable", "did it end?"),
    ("", "protocol", "check database, table, time and the conditions"),
)
#: Counts the rows of `table`; those for which `work` holds are not waiting.
QUERY = sql.SQL(
    "SELECT count(*) FILTER (WHERE NOT work), count(*) FILTER (WHERE work),"
    " extract(epoch FROM now() - min(since) FILTER (WHERE NOT work))::float8"
    " FROM (SELECT {time} AS since, ({work}\n) IS TRUE AS work"
    " FROM {table} WHERE ({waiting}\n) OR ({in_work}\n)) AS queue"
)
#: Holds for rows that a transaction has locked or changed.
LOCKED = sql.SQL(
    "ctid = ANY (ARRAY(SELECT locked_row FROM pgrowlocks({name}) WHERE modes &&"
    " ARRAY['For Update', 'For No Key Update', 'Update', 'No Key Update']))"
)
SOON = 0.01  # seconds
LIMITS = "SELECT set_config('statement_timeout', %s, true), set_config('timezone', %s, true)"


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
        table = sql.Identifier(*self.table.split("."))
        in_work = sql.SQL(self.in_work or "false")
        work = LOCKED.format(name=table.as_string()) if self.locks else in_work
        waiting = sql.SQL(self.waiting)
        time = sql.Identifier(self.time)
        return QUERY.format(table=table, time=time, waiting=waiting, in_work=in_work, work=work)


class Postgres(bts.Collector):
    """Tables of PostgreSQL that are queues."""

    class Config(bts.CollectorConfig, frozen=True):
        """A database, and its tables that are queues."""

        #: postgresql://[user@]host[:port]/database. For a socket, the host is its folder with %2F.
        url: Url
        queues: tuple[Queue, ...]
        password: Secret | None = None
        #: Encrypts, and checks the certificate; without these settings the server decides.
        tls: bts.TLSConfig | None = None
        #: The time zone of times in columns without one.
        timezone: str = "UTC"

        def __post_init__(self) -> None:
            """Check the address, and what libpq cannot do."""
            self.url.require_scheme("postgresql", "postgres")
            names = {queue.name or queue.table for queue in self.queues}
            for wrong, message in (
                (self.tls and self.tls.server_name, "tls.server_name: write it as host of url"),
                (len(names) < len(self.queues), "queues: two have one name; set `name`"),
                (any(q.locks and q.in_work for q in self.queues), "queues: in_work or locks?"),
            ):
                if wrong:
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
            late = scrape.remaining() < SOON
            raise self._failure(TimeoutError("timeout") if late else error) from error

    def _connect(self, seconds: float) -> psycopg.Connection:
        url, tls, options = self.config.url, self.config.tls, dict[str, Any]()
        if password := self.config.password or url.password:
            options["password"] = password.reread().reveal()
        if tls:
            options["sslmode"] = "require" if tls.insecure_skip_verify else "verify-full"
            options["sslrootcert"] = tls.ca_file or "system"
            options |= {"sslcert": tls.cert_file, "sslkey": tls.key_file}
        options |= {"host": unquote(url.host), "port": url.port, "user": url.username}
        options |= {"dbname": url.path.strip("/") or None, "application_name": "bts-exporter"}
        timeout = math.ceil(seconds)
        connection = psycopg.connect(connect_timeout=timeout, autocommit=True, **options)
        connection.read_only = True
        return connection

    def _read(self, scrape: Scrape, connection: psycopg.Connection) -> None:
        for index, queue in enumerate(self.config.queues):
            share = scrape.remaining() * 900 / (len(self.config.queues) - index)
            try:
                with connection.transaction(), connection.cursor(binary=True) as cursor:
                    cursor.execute(LIMITS, (f"{share + 1:.0f}ms", self.config.timezone))
                    counts = cursor.execute(queue.query()).fetchall()
            except psycopg.Error as error:
                if connection.closed:
                    raise
                scrape.report(self._failure(error, f", table {queue.table}"))
            else:
                self._emit(scrape, queue, *counts[0])

    def _emit(self, scrape: Scrape, queue: Queue, waiting: int, in_work: int, age: float) -> None:
        labels = ("postgres", queue.name or queue.table, "")
        scrape.emit(backlog.BACKLOG, waiting, *labels)
        if queue.locks or queue.in_work:
            scrape.emit(backlog.IN_FLIGHT, in_work, *labels)
        if age is not None or not waiting:  # not of rows whose time is NULL
            backlog.emit_lag(scrape, backlog.Age(max(age or 0.0, 0.0), "message_time"), *labels)

    def _failure(self, error: Exception, place: str = "") -> TargetError:
        text = str(error).partition("\n")[0]
        reason, cure = next((r, cure) for part, r, cure in ERRORS if part in text.lower())
        return TargetError(reason, f"PostgreSQL at {self.config.url}{place}: {text}; {cure}")


def interrupt(connection: psycopg.Connection) -> None:
    """End a connection on which a query waits: libpq has no timeout for that."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


COLLECTOR = Postgres
