"""Settings become a set of collectors; what did not change is taken over from the set before."""

from __future__ import annotations

from bts_exporter.config import Block, Common, Settings
from bts_exporter.errors import PluginError, Problem
from bts_exporter.plugin import Collector, CollectorConfig, Metric, Scrape
from bts_exporter.runner import Runner
from bts_exporter.scrape import CollectorSet
from bts_exporter.selfmetrics import DECLARED


class UnusableConfig(CollectorConfig, frozen=True):
    """Why a collector could not be made."""

    message: str


class Unusable(Collector):
    """Stands in for a collector that could not be made, so that everybody sees that it is missing."""

    def collect(self, scrape: Scrape) -> None:  # noqa: ARG002  # the contract
        """Fail with the reason."""
        raise PluginError(self.config.message)


class Assembly:
    """The new set, which collectors in it are new, and what could not be made."""

    def __init__(self, settings: Settings, before: CollectorSet | None = None) -> None:
        """Build everything; nothing is started or stopped, and nothing raises."""
        self.set = CollectorSet()
        self.new: list[Runner] = []
        self.problems: list[Problem] = []
        self._before = list(before.runners) if before else []
        self._declared: dict[str, tuple[str, Metric]] = {
            metric.name: ("the exporter itself", metric) for metric in DECLARED
        }
        for block in settings.blocks:
            self._add_block(block)
        for kind, problem in settings.broken:
            self._add_unusable(kind, Common(), problem)

    def adopt(self) -> list[Runner]:
        """Make the new set the one in force; returns the collectors that it has no use for."""
        for runner in self.set.runners:
            if runner not in self.new:
                self.set.settle(runner)
        return [runner for runner in self._before if runner not in self.set.runners]

    def _add_block(self, block: Block) -> None:
        try:
            self._check_names(block)
            collectors = list(block.type.build(block.config))
        except Exception as error:  # noqa: BLE001  # a plug-in's own code
            known = isinstance(error, PluginError | ValueError)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            self._add_unusable(block.kind, block.common, block.place._replace(message=message))
            return
        for collector in collectors:
            kept = self._kept(collector, block)
            if kept is None:
                self.new.append(self.set.add(collector, block.kind, block.common))
            else:
                self.set.runners.append(kept)

    def _add_unusable(self, kind: str, common: Common, problem: Problem) -> None:
        self.problems.append(problem)
        stand_in = Unusable(UnusableConfig(message=problem.message))
        self.new.append(self.set.add(stand_in, kind, common))

    def _kept(self, collector: Collector, block: Block) -> Runner | None:
        for runner in self._before:
            if (
                type(runner.collector) is type(collector)
                and (runner.kind, runner.name) == (block.kind, collector.name or block.kind)
                and runner.common == block.common
                and runner.collector.config == collector.config
            ):
                return runner
        return None

    def _check_names(self, block: Block) -> None:
        """PluginError where a metric of this type is another type's under the same name."""
        for declared in block.type.declared():
            if isinstance(declared, Metric):
                owner, metric = self._declared.setdefault(declared.name, (block.kind, declared))
                if metric is not declared and owner != block.kind:
                    msg = f"type {block.kind}: metric {declared.name} is one of {owner} already"
                    raise PluginError(msg)
