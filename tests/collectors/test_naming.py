"""The names of our metrics, checked as authors of collectors check theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter import Collector, backlog
from bts_exporter.collection.registry import Registry
from bts_exporter.testing import naming_problems

#: Names that break a convention, because the exporters and programs that they are taken from do.
COMPATIBLE = {
    "host": {"node_entropy_available_bits", "node_entropy_pool_size_bits", "node_power_supply_charge_counter"},
    "ml_service": set[str](),
    "relay": set[str](),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPATIBLE)
def test_names_keep_the_conventions(kind: str, tmp_path: Path) -> None:
    """A collector of ours breaks a convention only with a name that others use already."""
    problems = naming_problems(Registry(tmp_path).load(kind))

    assert {problem.partition(":")[0] for problem in problems} == COMPATIBLE[kind]


@pytest.mark.parametrize(("kind", "prefix"), [("mqtt", "broker_"), ("redis", "redis_")])
def test_names_of_others_have_a_prefix_of_theirs(kind: str, prefix: str, tmp_path: Path) -> None:
    """Names that break a convention are names of another exporter, with its prefix."""
    problems = naming_problems(Registry(tmp_path).load(kind))

    assert {problem for problem in problems if not problem.startswith(prefix)} == set()


def test_names_of_rabbitmq(tmp_path: Path) -> None:
    """The only repetitions are metrics that have the labels of another exporter if the settings ask for it."""
    problems = naming_problems(Registry(tmp_path).load("rabbitmq"))

    assert {problem for problem in problems if not problem.endswith(" is declared twice")} == set()


def test_names_of_the_vocabulary() -> None:
    """The metrics of queue depth and lag, which plug-ins share, break no convention."""
    collector = type("Any", (Collector,), {"vocabulary": backlog.VOCABULARY})

    assert naming_problems(collector) == []
