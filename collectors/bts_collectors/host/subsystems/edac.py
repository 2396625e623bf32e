"""The subsystem `edac`: correctable and uncorrectable memory errors."""

from __future__ import annotations

from bts_collectors.host.kernel.devices import devices, entries
from bts_collectors.host.kernel.files import read_number, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, counter

_CSROW = ("controller", "csrow")
_CHANNEL = ("controller", "csrow", "channel", "dimm_label")


class Edac(Subsystem):
    """Memory errors from /sys/devices/system/edac/mc; `ce` is correctable, `ue` is uncorrectable."""

    name = "edac"

    controllers = {  # noqa: RUF012  # a constant table of metrics
        "ce": counter(
            "node_edac_correctable_errors_total",
            "Correctable memory errors of the controller (/sys/.../mc<n>/ce_count).",
            ("controller",),
        ),
        "ue": counter(
            "node_edac_uncorrectable_errors_total",
            "Uncorrectable memory errors of the controller (/sys/.../mc<n>/ue_count).",
            ("controller",),
        ),
    }
    csrows = {  # noqa: RUF012  # as above
        "ce": counter(
            "node_edac_csrow_correctable_errors_total",
            "Correctable memory errors by csrow, `unknown` if the controller cannot tell"
            " (/sys/.../mc<n>/csrow<n>/ce_count, ce_noinfo_count).",
            _CSROW,
        ),
        "ue": counter(
            "node_edac_csrow_uncorrectable_errors_total",
            "Uncorrectable memory errors by csrow, `unknown` if the controller cannot tell"
            " (/sys/.../mc<n>/csrow<n>/ue_count, ue_noinfo_count).",
            _CSROW,
        ),
    }
    channels = {  # noqa: RUF012  # as above
        "ce": counter(
            "node_edac_channel_correctable_errors_total",
            "Correctable memory errors by channel (/sys/.../mc<n>/csrow<n>/ch<n>_ce_count).",
            _CHANNEL,
        ),
        "ue": counter(
            "node_edac_channel_uncorrectable_errors_total",
            "Uncorrectable memory errors by channel (/sys/.../mc<n>/csrow<n>/ch<n>_ue_count).",
            _CHANNEL,
        ),
    }

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/devices/system/edac/mc"

    def collect(self, scrape: Scrape) -> None:
        """Emit the errors of each controller, csrow and channel."""
        for name in devices(self._folder, "mc"):
            folder = f"{self._folder}/{name}"
            controller = name.removeprefix("mc")
            for kind in ("ce", "ue"):
                for metric, file, labels in (
                    (self.controllers[kind], f"{kind}_count", (controller,)),
                    (self.csrows[kind], f"{kind}_noinfo_count", (controller, "unknown")),
                ):
                    errors = read_number(f"{folder}/{file}")
                    if errors is not None:
                        scrape.emit(metric, errors, *labels)
            self._emit_rows(scrape, folder, controller)

    def _emit_rows(self, scrape: Scrape, folder: str, controller: str) -> None:
        try:
            rows = devices(folder, "csrow")
        except NotPresent:
            return  # some drivers count per controller only
        for row in rows:
            csrow = row.removeprefix("csrow")
            files = entries(f"{folder}/{row}")
            for kind in ("ce", "ue"):
                errors = read_number(f"{folder}/{row}/{kind}_count")
                if errors is not None:
                    scrape.emit(self.csrows[kind], errors, controller, csrow)
                suffix = f"_{kind}_count"
                for file in files:
                    if file.startswith("ch") and file.endswith(suffix):
                        channel = file.removeprefix("ch").removesuffix(suffix)
                        self._emit_channel(
                            scrape, f"{folder}/{row}", kind, controller, csrow, channel
                        )

    def _emit_channel(  # noqa: PLR0913, PLR0917  # the metric's labels
        self, scrape: Scrape, folder: str, kind: str, controller: str, csrow: str, channel: str
    ) -> None:
        errors = read_number(f"{folder}/ch{channel}_{kind}_count")
        if errors is not None:
            label = dimm_label(read_value(f"{folder}/ch{channel}_dimm_label"))
            scrape.emit(self.channels[kind], errors, controller, csrow, channel, label)


def dimm_label(raw: bytes | None) -> str:
    """Return the name of a memory module as node_exporter writes it: `mc0_csrow1_channel0`."""
    if not raw:
        return "unknown"
    label = text(raw).replace("#", "")
    return label.replace("csrow", "_csrow").replace("channel", "_channel")


COLLECTOR = Edac
