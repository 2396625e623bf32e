"""What state the units of systemd are in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import (
    CollectorConfig,
    Match,
    Metric,
    NameFilter,
    NothingToRead,
    Scrape,
    TargetError,
    counter,
    gauge,
)

if TYPE_CHECKING:
    from bts_collectors.host.kernel.dbus import SystemdConnection

_NAME = ("name",)
_STATES = ("active", "activating", "deactivating", "inactive", "failed")
_MICROSECONDS = 1e6
_VERSION = re.compile(r"\d{3,}(?:\.\d+)?")

#: What systemd says of a number without a limit, or that it does not count.
_UNSET = 2**64 - 1

#: Kinds of units that have a type, and the interface with it.
_TYPED = {"service": "Service", "mount": "Mount"}


class SystemdSettings(CollectorConfig, frozen=True):
    """Settings of `systemd`; the expressions are for the whole name of a unit."""

    unit_include: re.Pattern[str] = re.compile(".+")
    unit_exclude: re.Pattern[str] = re.compile(r".+\.(automount|device|mount|scope|slice)")
    #: Each of these is one more call for each unit in each scrape.
    restarts: bool = True
    start_time: bool = False
    tasks: bool = False


class Unit(NamedTuple):
    """A unit: its name, state, and path on D-Bus."""

    name: str
    state: str
    path: str

    @property
    def kind(self) -> str:
        """Return what kind of unit it is, such as `service`."""
        return self.name.rpartition(".")[2]


class Property(NamedTuple):
    """A number that units of a kind have: where it is, and what it is divided by."""

    interface: str
    name: str
    metric: Metric
    unit: float = 1.0


def _property(interface: str, name: str, metric: str, what: str, unit: float = 1.0) -> Property:
    declare = counter if metric.endswith("_total") else gauge
    source = f"{what} (D-Bus, org.freedesktop.systemd1.{interface}, {name})."
    return Property(interface, name, declare(f"node_systemd_{metric}", source, _NAME), unit)


class Systemd(Subsystem):
    """Units of systemd, over D-Bus."""

    name = "systemd"
    by_default = False
    local = False
    Settings = SystemdSettings

    state = gauge(
        "node_systemd_unit_state",
        "1 for the state of the unit; the type is that of services and mounts"
        " (D-Bus, org.freedesktop.systemd1.Manager, ListUnits).",
        ("name", "state", "type"),
    )
    units = gauge(
        "node_systemd_units",
        "Units in each state, of all kinds (D-Bus, org.freedesktop.systemd1.Manager, ListUnits).",
        ("state",),
    )
    running = gauge(
        "node_systemd_system_running",
        "1 if all is up and no unit failed (D-Bus, org.freedesktop.systemd1.Manager, SystemState).",
    )
    version = gauge(
        "node_systemd_version",
        "Version as a number (D-Bus, org.freedesktop.systemd1.Manager, Version).",
        ("version",),
    )
    virtualization = gauge(
        "node_systemd_virtualization_info",
        "A metric with a constant '1' value"
        " (D-Bus, org.freedesktop.systemd1.Manager, Virtualization).",
        ("virtualization_type",),
    )

    restarts = (
        _property("Service", "NRestarts", "service_restart_total", "Restarts by systemd itself"),
    )
    tasks = (
        _property("Service", "TasksCurrent", "unit_tasks_current", "Tasks of the service"),
        _property("Service", "TasksMax", "unit_tasks_max", "Tasks that the service may have"),
    )
    started = _property(
        "Unit",
        "ActiveEnterTimestamp",
        "unit_start_time_seconds",
        "When the unit became active, in Unix time, 0 if it is not",
        _MICROSECONDS,
    )
    always = (
        _property(
            "Timer",
            "LastTriggerUSec",
            "timer_last_trigger_seconds",
            "When the timer went off, in Unix time, 0 if never",
            _MICROSECONDS,
        ),
        _property("Socket", "NAccepted", "socket_accepted_connections_total", "Connections taken"),
        _property("Socket", "NConnections", "socket_current_connections", "Connections open"),
        _property("Socket", "NRefused", "socket_refused_connections_total", "Connections refused"),
    )
    settings: SystemdSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        settings = self.settings
        root = config.rootfs.rstrip("/")
        self._bus = f"{root}/run/dbus/system_bus_socket"
        self._private = f"{root}/run/systemd/private"
        self._wants = NameFilter(_whole(settings.unit_include), _whole(settings.unit_exclude))
        wanted = [*self.always]
        wanted += self.restarts if settings.restarts else ()
        wanted += self.tasks if settings.tasks else ()
        self._properties: dict[str, list[Property]] = {}
        for wish in wanted:
            self._properties.setdefault(wish.interface.lower(), []).append(wish)

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield how many units are served, where the settings choose them."""
        expression = self.settings.unit_include
        if expression != SystemdSettings().unit_include:
            found = len({name for name, *_ in samples.get(self.state, {})})
            yield Match("systemd.unit_include", expression.pattern, found, "units")

    def collect(self, scrape: Scrape) -> None:
        """Emit what systemd tells of itself, then the states of units, then their numbers."""
        with self._connect(scrape) as bus:
            self._emit_manager(scrape, bus)
            units, states = parse_units(bus.units())
            for state, number in states.items():
                scrape.emit(self.units, number, state)
            wanted = [unit for unit in units if self._wants(unit.name)]
            self._emit_states(scrape, bus, wanted)
            self._emit_numbers(scrape, bus, list(self._questions(wanted)))

    def _connect(self, scrape: Scrape) -> SystemdConnection:
        """Return a connection to the bus or, for root on a machine without one, to systemd."""
        try:
            # Costs memory, which only those pay who use it.
            from bts_collectors.host.kernel.dbus import SystemdConnection  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = f"{error.name} is missing, in which systemd is spoken to: pip install jeepney"
            raise TargetError(reason="internal", message=msg) from error
        try:
            return SystemdConnection(self._bus, scrape.remaining)
        except FileNotFoundError:
            pass
        try:
            return SystemdConnection(self._private, scrape.remaining, direct=True)
        except FileNotFoundError:
            msg = f"{self._bus} and {self._private} are absent: systemd does not run here"
            raise NothingToRead(msg) from None

    def _emit_manager(self, scrape: Scrape, bus: SystemdConnection) -> None:
        version = str(bus.manager("Version"))
        if found := _VERSION.search(version):
            scrape.emit(self.version, float(found[0]), version)
        state = bus.manager("SystemState")
        if state is not None:
            scrape.emit(self.running, int(state == "running"))
        virtualization = bus.manager("Virtualization")
        if virtualization is not None:
            scrape.emit(self.virtualization, 1, str(virtualization or "none"))

    def _emit_states(self, scrape: Scrape, bus: SystemdConnection, units: list[Unit]) -> None:
        typed = [unit for unit in units if unit.kind in _TYPED]
        asked = [(unit.path, _TYPED[unit.kind], "Type") for unit in typed]
        types = dict(zip(typed, bus.properties(asked), strict=True))
        for unit in units:
            kind = str(types.get(unit) or "")
            for state in _STATES:
                scrape.emit(self.state, int(state == unit.state), unit.name, state, kind)

    def _questions(self, units: list[Unit]) -> Iterator[tuple[Unit, Property]]:
        for unit in units:
            for wish in self._properties.get(unit.kind, ()):
                yield unit, wish
            if self.settings.start_time:
                yield unit, self.started

    def _emit_numbers(
        self, scrape: Scrape, bus: SystemdConnection, questions: list[tuple[Unit, Property]]
    ) -> None:
        asked = [(unit.path, wish.interface, wish.name) for unit, wish in questions]
        for (unit, wish), value in zip(questions, bus.properties(asked), strict=True):
            if not isinstance(value, int) or value == _UNSET:
                continue
            if wish is self.started and unit.state != "active":
                value = 0  # noqa: PLW2901  # when it was active before is not what is asked
            scrape.emit(wish.metric, value / wish.unit, unit.name)


def _whole(expression: re.Pattern[str]) -> re.Pattern[str] | None:
    return re.compile(f"^(?:{expression.pattern})$") if expression.pattern else None


def parse_units(rows: Iterable[tuple[object, ...]]) -> tuple[list[Unit], Counter[str]]:
    """Return the units that are loaded, and how many of all are in each state."""
    units = []
    states = Counter(dict.fromkeys(_STATES, 0))
    for name, _, loaded, state, _, _, path, *_ in rows:
        states[str(state)] += 1
        if loaded == "loaded":
            units.append(Unit(str(name), str(state), str(path)))
    return units, states


COLLECTOR = Systemd
