"""The subsystem `systemd`: states of units, restarts, tasks, timers and sockets."""

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
    NotPresent,
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

#: The value of a limit that is not set, and of a number that systemd does not count.
_UNSET = 2**64 - 1

#: D-Bus interfaces of the kinds of units that have a type.
_TYPED = {"service": "Service", "mount": "Mount"}


class SystemdSettings(CollectorConfig, frozen=True):
    """Settings of `systemd`; the expressions must match the whole name of a unit."""

    #: Units to collect; must match the whole name.
    unit_include: re.Pattern[str] = re.compile(".+")
    #: Units not to collect; must match the whole name.
    unit_exclude: re.Pattern[str] = re.compile(r".+\.(automount|device|mount|scope|slice)")
    #: Each of these needs one more call per unit and scrape.
    restarts: bool = True
    #: Whether to emit start times: one call per unit.
    start_time: bool = False
    #: Whether to emit numbers of tasks: two calls per service.
    tasks: bool = False


class Unit(NamedTuple):
    """A unit: its name, state, and path on D-Bus."""

    name: str
    state: str
    path: str

    @property
    def kind(self) -> str:
        """Return the kind of the unit, such as `service`."""
        return self.name.rpartition(".")[2]


class Property(NamedTuple):
    """A numeric D-Bus property of units: its metric, and the divisor to the metric's unit."""

    interface: str
    name: str
    metric: Metric
    divisor: float = 1.0


def _property(interface: str, name: str, metric: str, what: str, divisor: float = 1.0) -> Property:
    declare = counter if metric.endswith("_total") else gauge
    source = f"{what} (D-Bus, org.freedesktop.systemd1.{interface}, {name})."
    return Property(interface, name, declare(f"node_systemd_{metric}", source, _NAME), divisor)


class Systemd(Subsystem):
    """Units of systemd over D-Bus."""

    name = "systemd"
    by_default = False
    local = False
    Settings = SystemdSettings

    state = gauge(
        "node_systemd_unit_state",
        "1 for the current state of the unit, 0 for the others; only services and mounts have a type"
        " (D-Bus, org.freedesktop.systemd1.Manager, ListUnits).",
        ("name", "state", "type"),
    )
    units = gauge(
        "node_systemd_units",
        "Number of units of all kinds by state (D-Bus, org.freedesktop.systemd1.Manager, ListUnits).",
        ("state",),
    )
    running = gauge(
        "node_systemd_system_running",
        "Whether the system is running, without failed units"
        " (D-Bus, org.freedesktop.systemd1.Manager, SystemState).",
    )
    version = gauge(
        "node_systemd_version",
        "Version as a number (D-Bus, org.freedesktop.systemd1.Manager, Version).",
        ("version",),
    )
    virtualization = gauge(
        "node_systemd_virtualization_info",
        "A metric with a constant '1' value, labelled by the kind of virtualization"
        " (D-Bus, org.freedesktop.systemd1.Manager, Virtualization).",
        ("virtualization_type",),
    )

    restarts = (
        _property(
            "Service", "NRestarts", "service_restart_total", "Automatic restarts of the service"
        ),
    )
    tasks = (
        _property(
            "Service", "TasksCurrent", "unit_tasks_current", "Number of tasks of the service"
        ),
        _property(
            "Service", "TasksMax", "unit_tasks_max", "Maximum number of tasks of the service"
        ),
    )
    started = _property(
        "Unit",
        "ActiveEnterTimestamp",
        "unit_start_time_seconds",
        "Time when the unit became active in Unix time, 0 if it is not active",
        _MICROSECONDS,
    )
    always = (
        _property(
            "Timer",
            "LastTriggerUSec",
            "timer_last_trigger_seconds",
            "Last time the timer triggered in Unix time, 0 if never",
            _MICROSECONDS,
        ),
        _property(
            "Socket", "NAccepted", "socket_accepted_connections_total", "Connections accepted"
        ),
        _property(
            "Socket", "NConnections", "socket_current_connections", "Number of open connections"
        ),
        _property("Socket", "NRefused", "socket_refused_connections_total", "Connections refused"),
    )
    settings: SystemdSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        settings = self.settings
        root = config.rootfs.rstrip("/")
        self._bus = f"{root}/run/dbus/system_bus_socket"
        self._private = f"{root}/run/systemd/private"
        self._name_filter = NameFilter(_whole(settings.unit_include), _whole(settings.unit_exclude))
        properties = [*self.always]
        properties += self.restarts if settings.restarts else ()
        properties += self.tasks if settings.tasks else ()
        self._properties: dict[str, list[Property]] = {}
        for prop in properties:
            self._properties.setdefault(prop.interface.lower(), []).append(prop)

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield the number of units that `unit_include` matches, if it is set."""
        expression = self.settings.unit_include
        if expression != SystemdSettings().unit_include:
            count = len({name for name, *_ in samples.get(self.state, {})})
            yield Match("systemd.unit_include", expression.pattern, count, "units")

    def collect(self, scrape: Scrape) -> None:
        """Emit the state of systemd itself, the states of units, then their numeric properties."""
        with self._connect(scrape) as systemd:
            self._emit_manager(scrape, systemd)
            units, states = parse_units(systemd.units())
            for state, number in states.items():
                scrape.emit(self.units, number, state)
            selected = [unit for unit in units if self._name_filter(unit.name)]
            self._emit_states(scrape, systemd, selected)
            self._emit_properties(scrape, systemd, list(self._requests(selected)))

    def _connect(self, scrape: Scrape) -> SystemdConnection:
        """Return a connection to the system bus, or directly to systemd for root on a host without a bus."""
        try:
            # Imported on first use: it costs memory.
            from bts_collectors.host.kernel.dbus import SystemdConnection  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = f"{error.name} is missing, which is needed for D-Bus: pip install jeepney"
            raise TargetError(reason="internal", message=msg) from error
        try:
            return SystemdConnection(self._bus, scrape.remaining)
        except FileNotFoundError:
            pass
        try:
            return SystemdConnection(self._private, scrape.remaining, direct=True)
        except FileNotFoundError:
            msg = f"{self._bus} and {self._private} are absent: systemd is not running"
            raise NotPresent(msg) from None

    def _emit_manager(self, scrape: Scrape, systemd: SystemdConnection) -> None:
        version = str(systemd.manager_property("Version"))
        if found := _VERSION.search(version):
            scrape.emit(self.version, float(found[0]), version)
        state = systemd.manager_property("SystemState")
        if state is not None:
            scrape.emit(self.running, int(state == "running"))
        virtualization = systemd.manager_property("Virtualization")
        if virtualization is not None:
            scrape.emit(self.virtualization, 1, str(virtualization or "none"))

    def _emit_states(self, scrape: Scrape, systemd: SystemdConnection, units: list[Unit]) -> None:
        typed = [unit for unit in units if unit.kind in _TYPED]
        requests = [(unit.path, _TYPED[unit.kind], "Type") for unit in typed]
        types = dict(zip(typed, systemd.properties(requests), strict=True))
        for unit in units:
            kind = str(types.get(unit) or "")
            for state in _STATES:
                scrape.emit(self.state, int(state == unit.state), unit.name, state, kind)

    def _requests(self, units: list[Unit]) -> Iterator[tuple[Unit, Property]]:
        for unit in units:
            for prop in self._properties.get(unit.kind, ()):
                yield unit, prop
            if self.settings.start_time:
                yield unit, self.started

    def _emit_properties(
        self, scrape: Scrape, systemd: SystemdConnection, requests: list[tuple[Unit, Property]]
    ) -> None:
        names = [(unit.path, prop.interface, prop.name) for unit, prop in requests]
        for (unit, prop), value in zip(requests, systemd.properties(names), strict=True):
            if not isinstance(value, int) or value == _UNSET:
                continue
            inactive = prop is self.started and unit.state != "active"
            # An inactive unit has the time of its previous start.
            scrape.emit(prop.metric, 0 if inactive else value / prop.divisor, unit.name)


def _whole(expression: re.Pattern[str]) -> re.Pattern[str] | None:
    return re.compile(f"^(?:{expression.pattern})$") if expression.pattern else None


def parse_units(rows: Iterable[tuple[object, ...]]) -> tuple[list[Unit], Counter[str]]:
    """Return the loaded units, and the number of all units in each state."""
    units = []
    states = Counter(dict.fromkeys(_STATES, 0))
    for name, _, loaded, state, _, _, path, *_ in rows:
        states[str(state)] += 1
        if loaded == "loaded":
            units.append(Unit(str(name), str(state), str(path)))
    return units, states


COLLECTOR = Systemd
