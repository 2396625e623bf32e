"""The subsystem `fibrechannel`: link state, traffic and errors of Fibre Channel ports."""

from __future__ import annotations

from bts_collectors.host.kernel.devices import devices
from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Metric, Scrape, counter, gauge

_TEXTS = (
    "speed",
    "port_state",
    "port_type",
    "port_id",
    "port_name",
    "fabric_name",
    "symbolic_name",
    "supported_classes",
    "supported_speeds",
    "dev_loss_tmo",
)
#: Files with hexadecimal numbers, whose label values have no 0x.
_HEXADECIMAL = {"port_id", "port_name", "fabric_name"}
#: Drivers print all bits set for a statistic that they do not count.
_NOT_COUNTED = 0xFFFF_FFFF_FFFF_FFFF


def _statistic(file: str, what: str, name: str = "") -> tuple[str, Metric]:
    return file, counter(
        f"node_fibrechannel_{name or file}_total",
        f"{what} (/sys/class/fc_host/HOST/statistics/{file}).",
        ("fc_host",),
    )


class Fibrechannel(Subsystem):
    """Fibre Channel ports from /sys/class/fc_host."""

    name = "fibrechannel"

    info = gauge(
        "node_fibrechannel_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/fc_host/HOST.",
        ("fc_host", *_TEXTS),
    )
    statistics = (
        _statistic("dumped_frames", "Dropped frames"),
        _statistic("error_frames", "Frames with errors"),
        _statistic("invalid_crc_count", "Frames with an invalid CRC", "invalid_crc"),
        _statistic("rx_frames", "Frames received"),
        _statistic("rx_words", "Words of 4 bytes received"),
        _statistic("tx_frames", "Frames sent"),
        _statistic("tx_words", "Words of 4 bytes sent"),
        _statistic("seconds_since_last_reset", "Seconds since the counters were reset"),
        _statistic("invalid_tx_word_count", "Invalid words sent", "invalid_tx_words"),
        _statistic("link_failure_count", "Link failures", "link_failure"),
        _statistic("loss_of_sync_count", "Losses of synchronization", "loss_of_sync"),
        _statistic("loss_of_signal_count", "Losses of signal", "loss_of_signal"),
        _statistic("nos_count", "Not-operational sequences", "nos"),
        _statistic("fcp_packet_aborts", "Aborted FCP packets"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/fc_host"

    def collect(self, scrape: Scrape) -> None:
        """Emit information and statistics of each port."""
        for host in devices(self._folder, "host"):
            folder = f"{self._folder}/{host}"
            scrape.emit(self.info, 1, host, *(_text_of(folder, file) for file in _TEXTS))
            for file, metric in self.statistics:
                value = parse_statistic(read_value(f"{folder}/statistics/{file}"))
                if value is not None:
                    scrape.emit(metric, value, host)


def _text_of(folder: str, file: str) -> str:
    value = text(read_value(f"{folder}/{file}") or b"")
    return value.removeprefix("0x") if file in _HEXADECIMAL else value


def parse_statistic(value: bytes | None) -> int | None:
    """Return a hexadecimal number such as `0x1a`; None for anything else, and for "not counted"."""
    try:
        number = int(value or b"", 16)
    except ValueError:
        return None
    return number if 0 <= number < _NOT_COUNTED else None


COLLECTOR = Fibrechannel
