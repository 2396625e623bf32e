"""The subsystem `cpufreq`: CPU frequencies, their limits, and scaling governors."""

from __future__ import annotations

from bts_collectors.host.kernel.devices import devices, read_integer
from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_CPU = ("cpu",)
_HERTZ_PER_KILOHERTZ = 1000


class Cpufreq(Subsystem):
    """CPU frequencies from /sys/devices/system/cpu/cpu<n>/cpufreq.

    `cpu` has node_cpu_frequency_hertz: only root may read cpuinfo_cur_freq.
    """

    name = "cpufreq"

    frequencies = (
        (
            "scaling_cur_freq",
            gauge(
                "node_cpu_scaling_frequency_hertz",
                "Current frequency (/sys/.../scaling_cur_freq).",
                _CPU,
            ),
        ),
        (
            "scaling_min_freq",
            gauge(
                "node_cpu_scaling_frequency_min_hertz",
                "Minimum frequency of the policy (/sys/.../scaling_min_freq).",
                _CPU,
            ),
        ),
        (
            "scaling_max_freq",
            gauge(
                "node_cpu_scaling_frequency_max_hertz",
                "Maximum frequency of the policy (/sys/.../scaling_max_freq).",
                _CPU,
            ),
        ),
        (
            "cpuinfo_min_freq",
            gauge(
                "node_cpu_frequency_min_hertz",
                "Minimum frequency of the CPU (/sys/.../cpuinfo_min_freq).",
                _CPU,
            ),
        ),
        (
            "cpuinfo_max_freq",
            gauge(
                "node_cpu_frequency_max_hertz",
                "Maximum frequency of the CPU (/sys/.../cpuinfo_max_freq).",
                _CPU,
            ),
        ),
        (
            "cpuinfo_avg_freq",
            gauge(
                "node_cpu_frequency_avg_hertz",
                "Average frequency, as measured by the CPU (/sys/.../cpuinfo_avg_freq).",
                _CPU,
            ),
        ),
    )
    governor = gauge(
        "node_cpu_scaling_governor",
        "1 for the current governor, 0 for the other available ones"
        " (/sys/.../scaling_governor, scaling_available_governors).",
        ("cpu", "governor"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/devices/system/cpu"

    def collect(self, scrape: Scrape) -> None:
        """Emit frequencies and governors of each CPU; NotPresent if none has a driver for them."""
        emitted = [self._emit(scrape, cpu) for cpu in devices(self._folder, "cpu")]
        if not any(emitted):
            msg = f"{self._folder}/cpu*/cpufreq is absent"
            raise NotPresent(msg)

    def _emit(self, scrape: Scrape, cpu: str) -> bool:
        folder = f"{self._folder}/{cpu}/cpufreq/"
        label = cpu.removeprefix("cpu")
        governor = read_value(f"{folder}scaling_governor")
        if governor:
            available = read_value(f"{folder}scaling_available_governors") or b""
            for name in dict.fromkeys([*available.split(), governor]):
                scrape.emit(self.governor, int(name == governor), label, text(name))
        found = bool(governor)
        for file, metric in self.frequencies:
            kilohertz = read_integer(folder + file)
            if kilohertz is not None and kilohertz > 0:  # 0: unknown to the driver
                scrape.emit(metric, kilohertz * _HERTZ_PER_KILOHERTZ, label)
                found = True
        return found


COLLECTOR = Cpufreq
