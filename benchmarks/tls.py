"""TLS and passwords: what they add to a scrape."""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass, field

import bcrypt

from measuring import HOST_ONLY, Access, Bench, Scraper, Server, ratios, running, spread
from report import Bar, Row, Section, Table
from servers.certificate_authority import Authority, Signed

TURN = 25
PASSWORD = "benchmark"
#: What TLS and a password may add to a scrape over a kept connection, of the CPU.
_MOST = 1.25


@dataclass
class Side:
    """A server, and its measurements in turns."""

    server: Server
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall_new: list[float] = field(default_factory=list)
    cpu_new: list[float] = field(default_factory=list)

    def turn(self, kept: Scraper) -> None:
        """Scrape over a connection that is kept, and over a new one each time."""
        before = self.server.cpu()
        self.wall += [kept.scrape().seconds * 1000 for _ in range(TURN)]
        middle = self.server.cpu()
        for _ in range(TURN):
            with Scraper(self.server.port, access=self.server.access) as scraper:
                answer = scraper.scrape()
            assert answer.status == 200
            self.wall_new.append(answer.seconds * 1000)
        after = self.server.cpu()
        self.cpu.append((middle - before) / TURN * 1000)
        self.cpu_new.append((after - middle) / TURN * 1000)


def run(bench: Bench) -> Section:
    """Scrape both in turns."""
    plain, secured = bench.start_ours(), _start_secured(bench)
    sides = Side(plain), Side(secured)
    with (
        running(plain, secured),
        Scraper(plain.port) as first,
        Scraper(secured.port, access=secured.access) as second,
    ):
        for number in range(bench.often(12, 3) + 1):
            for side, scraper in zip(sides, (first, second), strict=True):
                side.turn(scraper)
            if not number:  # what was only to warm up
                sides = Side(plain), Side(secured)
        return _section(*sides)


def _start_secured(bench: Bench) -> Server:
    folder = bench.new_folder("certificates")
    authority = Authority(folder, "ca")
    server, client = (
        authority.sign("server", "subjectAltName=IP:127.0.0.1"),
        authority.sign("client"),
    )
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    file = folder / "web.yml"
    file.write_text(
        f"tls_server_config: {{cert_file: {server.cert}, key_file: {server.key}, client_ca_file: "
        f"{authority.cert}, client_auth_type: RequireAndVerifyClientCert}}\n"
        f"basic_auth_users: {{prometheus: {hashed}}}\n"
    )
    started = bench.start_ours(HOST_ONLY, f"--web.config.file={file}")
    started.access = _access(authority, client)
    return started


def _access(authority: Authority, client: Signed) -> Access:
    context = ssl.create_default_context(cafile=authority.cert)
    context.load_cert_chain(client.cert, client.key)
    token = b64encode(f"prometheus:{PASSWORD}".encode()).decode()
    return Access(context, {"Authorization": f"Basic {token}"})


def _section(plain: Side, secured: Side) -> Section:
    def row(what: str, name: str) -> Row:
        ours, theirs = getattr(secured, name), getattr(plain, name)
        return Row(what, [spread(theirs), spread(ours)], ratios(ours, theirs))

    rows = [
        row("one connection: CPU a scrape, ms", "cpu"),
        row("one connection: wall, ms", "wall"),
        row("a connection for each scrape: CPU, ms", "cpu_new"),
        row("a connection for each scrape: wall without connecting, ms", "wall_new"),
        Row(
            "resident memory, MB",
            [side.server.memory().resident / 1e6 for side in (plain, secured)],
        ),
    ]
    how = f"""\
`collectors: {{host: }}` twice: plain, and with a client certificate (ECDSA P-256, TLS 1.3) and a password (bcrypt, cost
10) by `--web.config.file`. {len(plain.wall)} scrapes each, in turns of {TURN}, with Prometheus' request headers, gzip. Prometheus keeps
its connection; a connection for each scrape includes a full handshake, without resumption. The password is compared
once and then remembered."""
    ratio = rows[0].ratio
    assert ratio is not None
    what = f"one connection: CPU {ratio.median:.2f} of plain, at most {_MOST}"
    return Section(
        "TLS and a password",
        how,
        [Table(("plain", "mutual TLS, password"), "secured / plain", rows)],
        bars=[Bar(what, ratio.median <= _MOST)],
    )
