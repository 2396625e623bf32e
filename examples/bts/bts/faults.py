"""The faults that can be injected, and how the processes learn of them.

A fault is a name in a file. The sensors and workers look at the file each half second and behave
accordingly; faults that stop a process or a broker are carried out by the demo, which started them.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

POLL_SECONDS = 0.5
SLOW_SECONDS = 0.05
BURST_FACTOR = 10
DRIFT_AMPERE = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, the alerts that it causes, and who carries it out."""

    name: str
    #: One sentence: what goes wrong.
    description: str
    #: The names of the alerts that fire when it lasts for 20 minutes.
    alerts: tuple[str, ...]
    #: Alerts that may follow when it lasts longer, or at another rate of readings; no others fire.
    may_follow: tuple[str, ...] = ()
    #: The process or broker that the demo stops; empty where the processes read the fault themselves.
    stops: str = ""
    #: The demo freezes it (SIGSTOP) instead of ending it.
    freezes: bool = False


FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault(
            "slow-consumer",
            "the worker sleeps 50 ms for each reading",
            ("BtsEndToEndSlow", "ConsumerBehind"),
        ),
        Fault(
            "consumer-exit",
            "the worker has ended",
            ("BtsServiceDown", "BtsNoPredictions", "BacklogWithoutConsumer", "ConsumerBehind"),
            # The results of the backlog are late.
            ("BtsEndToEndSlow",),
            stops="worker",
        ),
        Fault(
            "consumer-frozen",
            "the worker is frozen (SIGSTOP) and stays connected",
            ("BtsServiceDown", "BtsNoPredictions", "ConsumerStalled", "ConsumerBehind"),
            ("BtsEndToEndSlow", "MessagesNotAcknowledged"),
            stops="worker",
            freezes=True,
        ),
        Fault(
            "blind-consumer",
            "the worker acknowledges before it processes, and is slow",
            ("BlindConsumer", "BtsEndToEndSlow"),
        ),
        Fault("burst", "ten times as many readings", ("BtsInputBurst",), ("BtsEndToEndSlow",)),
        Fault(
            "mosquitto-down",
            "the MQTT broker has ended",
            ("BrokerDown",),
            ("BtsNoReadings",),
            stops="mosquitto",
        ),
        Fault(
            "rabbitmq-down",
            "RabbitMQ has ended",
            ("BrokerDown",),
            # The MQTT broker's queue for the bridge has room for two minutes.
            ("MqttMessagesDropped", "BtsNoReadings", "BtsEndToEndSlow"),
            stops="rabbitmq",
        ),
        Fault(
            "redis-down",
            "Redis has ended",
            ("BrokerDown", "BtsNoPredictions"),
            # The REST service says that it is not ready, and the exporter's probe of it fails.
            (
                "ConsumerStalled",
                "ConsumerBehind",
                "BtsEndToEndSlow",
                "MessagesNotAcknowledged",
                "CollectorFailing",
            ),
            stops="redis",
        ),
        Fault(
            "mqtt-overflow",
            "the bridge has ended: the MQTT broker's queue for it overflows",
            ("BtsServiceDown", "MqttMessagesDropped"),
            stops="bridge",
        ),
        Fault(
            "drift",
            "all stations report 3 A more",
            ("BtsInputDrift", "BtsModelWorseThanNoChange"),
        ),
        Fault(
            "drift-partial", "a quarter of the stations report 3 A more", ("BtsStationsDrifted",)
        ),
        Fault(
            "bad-data",
            "a third of the readings are sentinels, out of range or malformed",
            ("BtsBadData",),
        ),
        Fault("silent-stations", "a quarter of the stations send nothing", ("BtsStationsSilent",)),
        Fault(
            "reader-stopped",
            "the REST service does not read results",
            ("ConsumerStalled",),
            # At 200 readings a second the stream's limit of 10,000 entries is reached after a minute; at a
            # few readings a second the oldest of them is old enough.
            (
                "RedisStreamEntriesLost",
                "MessageLossAhead",
                "MessagesBeingLost",
                "ConsumerBehind",
            ),
        ),
        Fault(
            "bad-weights", "the model predicts with damaged weights", ("BtsModelWorseThanNoChange",)
        ),
    )
}


@dataclass(slots=True)
class ActiveFaults:
    """The faults in a file, read again at most every half second."""

    path: Path
    _names: frozenset[str] = frozenset()
    _next_look: float = field(default=0.0)

    def __contains__(self, name: str) -> bool:
        now = time.monotonic()
        if now >= self._next_look:
            self._names = read(self.path)
            self._next_look = now + POLL_SECONDS
        return name in self._names


def demo_folder() -> Path:
    """Return the folder of this user's demo."""
    return Path(tempfile.gettempdir()) / f"bts-demo-{os.getuid()}"


def read(path: Path) -> frozenset[str]:
    """Return the names in the file; none where there is no file."""
    try:
        return frozenset(path.read_text().split())
    except FileNotFoundError:
        return frozenset()


def write(path: Path, names: frozenset[str]) -> None:
    """Put the names into the file at once: no reader sees half of it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text("".join(f"{name}\n" for name in sorted(names)))
    new.replace(path)
