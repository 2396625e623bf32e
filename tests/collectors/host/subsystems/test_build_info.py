from __future__ import annotations

from bts_collectors.host import Host
from bts_collectors.host.subsystems.build_info import BuildInfo
from bts_exporter import __version__
from bts_exporter.testing import collect


def test_version_under_the_name_of_node_exporter() -> None:
    """node_exporter_build_info has this exporter's version."""
    samples = collect(BuildInfo(BuildInfo.Config()))

    assert samples == {"node_exporter_build_info": {(__version__, "bts-exporter"): 1}}


def test_it_is_served_by_default() -> None:
    """The subsystem is on by default."""
    assert "build_info" in {collector.name for collector in Host.build(Host.Config())}
