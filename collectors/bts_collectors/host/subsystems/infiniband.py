"""The subsystem `infiniband`: link state, traffic and errors of InfiniBand, RoCE and Omni-Path ports."""

from __future__ import annotations

import re

from bts_collectors.host.kernel.devices import devices, parse_integer
from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Metric, NotPresent, Scrape, counter, gauge

_PORT = ("device", "port")
#: Bytes per word; data counters count words.
_WORD = 4
_RATE = re.compile(rb"(\d+(?:\.\d+)?) Gb/sec")


def _counter(file: str, name: str, what: str, scale: int = 1) -> tuple[str, Metric, int]:
    """Return a file below a port's directory, its metric, and the factor to the metric's unit."""
    help_ = f"{what} (/sys/class/infiniband/DEVICE/ports/PORT/{file})."
    return file, counter(f"node_infiniband_{name}_total", help_, _PORT), scale


class Infiniband(Subsystem):
    """InfiniBand ports from /sys/class/infiniband."""

    name = "infiniband"

    info = gauge(
        "node_infiniband_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/infiniband/DEVICE.",
        ("device", "board_id", "firmware_version", "hca_type"),
    )
    state = gauge(
        "node_infiniband_state_id",
        "State of the port: 1 down, 2 initializing, 3 armed, 4 active, 5 deferred"
        " (/sys/class/infiniband/DEVICE/ports/PORT/state).",
        _PORT,
    )
    physical_state = gauge(
        "node_infiniband_physical_state_id",
        "Physical state of the port: 1 sleep, 2 polling, 3 disabled, 4 training, 5 link up,"
        " 6 recovering, 7 test (/sys/class/infiniband/DEVICE/ports/PORT/phys_state).",
        _PORT,
    )
    rate = gauge(
        "node_infiniband_rate_bytes_per_second",
        "Maximum rate of the link (/sys/class/infiniband/DEVICE/ports/PORT/rate).",
        _PORT,
    )
    counters = (
        _counter("counters/port_rcv_data", "port_data_received_bytes", "Bytes received", _WORD),
        _counter("counters/port_xmit_data", "port_data_transmitted_bytes", "Bytes sent", _WORD),
        _counter("counters/port_rcv_packets", "port_packets_received", "Packets received"),
        _counter("counters/port_xmit_packets", "port_packets_transmitted", "Packets sent"),
        _counter(
            "counters/unicast_rcv_packets", "unicast_packets_received", "Unicast packets received"
        ),
        _counter(
            "counters/unicast_xmit_packets", "unicast_packets_transmitted", "Unicast packets sent"
        ),
        _counter(
            "counters/multicast_rcv_packets",
            "multicast_packets_received",
            "Multicast packets received",
        ),
        _counter(
            "counters/multicast_xmit_packets",
            "multicast_packets_transmitted",
            "Multicast packets sent",
        ),
        _counter(
            "counters/port_rcv_errors", "port_errors_received", "Packets received with errors"
        ),
        _counter(
            "counters/port_rcv_remote_physical_errors",
            "port_receive_remote_physical_errors",
            "Packets received with the EBP (bad packet) delimiter",
        ),
        _counter(
            "counters/port_rcv_switch_relay_errors",
            "port_receive_switch_relay_errors",
            "Packets received that could not be forwarded by the switch",
        ),
        _counter(
            "counters/port_rcv_discards",
            "port_discards_received",
            "Received packets that were discarded",
        ),
        _counter(
            "counters/port_xmit_discards",
            "port_discards_transmitted",
            "Packets to send that were discarded",
        ),
        _counter(
            "counters/port_rcv_constraint_errors",
            "port_constraint_errors_received",
            "Received packets that were discarded because of a partition or filter",
        ),
        _counter(
            "counters/port_xmit_constraint_errors",
            "port_constraint_errors_transmitted",
            "Packets that were not sent because of a partition or filter",
        ),
        _counter(
            "counters/port_xmit_wait",
            "port_transmit_wait",
            "Ticks in which the port had data to send but sent none",
        ),
        _counter("counters/symbol_error", "symbol_error", "Minor link errors"),
        _counter(
            "counters/excessive_buffer_overrun_errors",
            "excessive_buffer_overrun_errors",
            "Overruns of receive buffers",
        ),
        _counter(
            "counters/local_link_integrity_errors",
            "local_link_integrity_errors",
            "Times that the local link integrity error threshold was exceeded",
        ),
        _counter("counters/VL15_dropped", "vl15_dropped", "Management packets dropped"),
        _counter("counters/link_downed", "link_downed", "Times that the link went down"),
        _counter(
            "counters/link_error_recovery",
            "link_error_recovery",
            "Times that the link recovered from errors",
        ),
        _counter(
            "counters_ext/port_rcv_data_64",
            "legacy_data_received_bytes",
            "Bytes received, older drivers",
            _WORD,
        ),
        _counter(
            "counters_ext/port_xmit_data_64",
            "legacy_data_transmitted_bytes",
            "Bytes sent, older drivers",
            _WORD,
        ),
        _counter(
            "counters_ext/port_rcv_packets_64",
            "legacy_packets_received",
            "Packets received, older drivers",
        ),
        _counter(
            "counters_ext/port_xmit_packets_64",
            "legacy_packets_transmitted",
            "Packets sent, older drivers",
        ),
        _counter(
            "counters_ext/port_unicast_rcv_packets",
            "legacy_unicast_packets_received",
            "Unicast packets received, older drivers",
        ),
        _counter(
            "counters_ext/port_unicast_xmit_packets",
            "legacy_unicast_packets_transmitted",
            "Unicast packets sent, older drivers",
        ),
        _counter(
            "counters_ext/port_multicast_rcv_packets",
            "legacy_multicast_packets_received",
            "Multicast packets received, older drivers",
        ),
        _counter(
            "counters_ext/port_multicast_xmit_packets",
            "legacy_multicast_packets_transmitted",
            "Multicast packets sent, older drivers",
        ),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/infiniband"

    def collect(self, scrape: Scrape) -> None:
        """Emit each adapter and its ports."""
        for device in devices(self._folder):
            folder = f"{self._folder}/{device}"
            texts = (text(read_value(f"{folder}/{f}") or b"") for f in ("board_id", "fw_ver"))
            hca_type = text(read_value(f"{folder}/hca_type") or b"")
            scrape.emit(self.info, 1, device, *texts, hca_type)
            try:
                ports = devices(f"{folder}/ports")
            except NotPresent:
                continue
            for port in ports:
                self._emit_port(scrape, f"{folder}/ports/{port}", device, port)

    def _emit_port(self, scrape: Scrape, folder: str, device: str, port: str) -> None:
        for metric, file in ((self.state, "state"), (self.physical_state, "phys_state")):
            value = read_value(f"{folder}/{file}") or b""
            number = parse_integer(value.partition(b":")[0])  # such as `4: ACTIVE`
            if number is not None:
                scrape.emit(metric, number, device, port)
        if speed := _RATE.match(read_value(f"{folder}/rate") or b""):
            scrape.emit(self.rate, float(speed[1]) * 1e9 / 8, device, port)
        for file, metric, scale in self.counters:
            count = parse_integer(read_value(f"{folder}/{file}"))
            if count is not None and count >= 0:
                scrape.emit(metric, count * scale, device, port)


COLLECTOR = Infiniband
