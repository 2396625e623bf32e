"""Builds the collectors of the settings; unchanged ones are kept from the set before."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Runner
from bts_exporter.errors import PluginError, Problem, TargetError, line_in, listed, text_of
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import Collector, CollectorConfig
from bts_exporter.scrape import Scrape
from bts_exporter.self_metrics import DECLARED
from bts_exporter.settings.loader import CollectorBlock, Common, Settings
from bts_exporter.settings.metric_filters import denied_by_the_way, without_effect

log = logging.getLogger("bts_exporter.collection.builder")


class PlaceholderConfig(CollectorConfig, frozen=True):
    """The reason why a collector could not be built."""

    message: str


class PlaceholderCollector(Collector):
    """Stands in for a collector that could not be built, so that its failure is visible."""

    def collect(self, scrape: Scrape) -> None:  # noqa: ARG002  # the contract
        """Fail with the reason."""
        raise TargetError(reason="unusable", message=self.config.message)


class Assembly:
    """A new set, its new collectors, and the problems."""

    def __init__(self, settings: Settings, before: CollectorSet | None = None) -> None:
        """Build everything; nothing is started or stopped, and nothing raises."""
        self.set = CollectorSet(before)
        self.new: list[Runner] = []
        self.problems: list[Problem] = []
        #: Settings without effect, which are most likely mistakes.
        self.warnings: list[Problem] = list(settings.warnings)
        self._before = list(before.runners) if before else []
        self._declared: dict[str, tuple[str, Metric]] = {
            metric.name: ("the exporter itself", metric) for metric in DECLARED
        }
        for block in settings.blocks:
            self._add_block(block)
        for kind, problem in settings.broken:
            self._add_unusable(kind, Common(), problem)

    def adopt(self) -> list[Runner]:
        """Return the collectors that are in the set before and not in the new one."""
        for line in listed(self.warnings):
            log.warning("settings: %s", line)
        return [runner for runner in self._before if runner not in self.set.runners]

    def _add_block(self, block: CollectorBlock) -> None:
        try:
            self._check_names(block)
            built = self._built(block)
            self._check_filters(block, built)
            found = [(made, self._kept(made, block)) for made in built]
        except BaseException as error:
            # A plug-in's own code may do anything; SystemExit among it.
            if isinstance(error, KeyboardInterrupt):
                raise
            known = isinstance(error, PluginError | ValueError)
            message = text_of(error) if known else f"{type(error).__name__}: {text_of(error)}"
            message += line_in(block.type.__module__.partition(".")[0], error)
            self._add_unusable(
                block.type_name, block.common, block.location._replace(message=message)
            )
            return
        for collector, kept in found:
            if kept is None:
                runner = self.set.add(collector, block.type_name, block.common)
                runner.seen = self._has_answered(runner)
                self.new.append(runner)
            else:
                self.set.runners.append(kept)

    def _built(self, block: CollectorBlock) -> list[Collector]:
        """Return the block's collectors; PluginError if two have the same name and target."""
        collectors = list(block.type.build(block.config))
        taken = {(runner.name, runner.target) for runner in self.set.runners}
        for collector in collectors:
            if not isinstance(collector, Collector):
                msg = f"type {block.type_name}: build returned {type(collector).__name__}, expected a Collector"
                raise PluginError(msg)
            if not hasattr(collector, "config"):
                msg = f"type {block.type_name}: __init__ must call super().__init__(config)"
                raise PluginError(msg)
            _check_attributes(block.type_name, collector)
            place = (collector.name or block.type_name, block.common.name)
            if place in taken:
                msg = f"type {block.type_name}: there is a collector {place[0]} already"
                raise PluginError(msg)
            taken.add(place)
        return collectors

    def _add_unusable(self, kind: str, common: Common, problem: Problem) -> None:
        self.problems.append(problem)
        stand_in = PlaceholderCollector(PlaceholderConfig(message=problem.message))
        self.new.append(self.set.add(stand_in, kind, common))

    def _has_answered(self, runner: Runner) -> bool:
        """Return whether the target has answered under its earlier settings.

        Otherwise a reload that changes another key of an optional target would hide its outage.
        """
        url = getattr(runner.collector.config, "url", None)
        return any(
            before.seen
            for before in self._before
            if (before.kind, before.name, before.target)
            == (runner.kind, runner.name, runner.target)
            and getattr(before.collector.config, "url", None) == url
        )

    def _kept(self, collector: Collector, block: CollectorBlock) -> Runner | None:
        for runner in self._before:
            if (
                type(runner.collector) is type(collector)
                and (runner.kind, runner.name)
                == (block.type_name, collector.name or block.type_name)
                and runner.common == block.common
                and runner.collector.config == collector.config
            ):
                return runner
        return None

    def _check_filters(self, block: CollectorBlock, built: Sequence[Collector]) -> None:
        """Warn about metric filters that match nothing."""
        if block.metrics_location is None:
            return
        declared = [*block.type.declared(), *block.type.declared_by(block.config)]
        for glob, names in denied_by_the_way(block.common.metrics, declared):
            message = f"deny: {glob!r} removes {', '.join(names)}, which alerts need"
            self.warnings.append(block.metrics_location._replace(message=message))
        if any(made.open_ended for made in built):
            return
        for key, glob in without_effect(block.common.metrics, declared):
            effect = "lets nothing through" if key == "allow" else "removes nothing"
            message = f"{key}: {glob!r} {effect}: {block.type_name} declares no such metric (`bts-exporter metrics` lists all)"
            self.warnings.append(block.metrics_location._replace(message=message))

    def _check_names(self, block: CollectorBlock) -> None:
        """PluginError if a metric or a label of this type has a name that is in use."""
        given = {*block.common.labels, *(["target"] if block.common.name else [])}
        found: list[tuple[str, Metric | Template]] = [
            *((block.type_name, metric) for metric in block.type.declared()),
            *(
                (f"the settings of {block.type_name}", m)
                for m in block.type.declared_by(block.config)
            ),
        ]
        for owner, declared in found:
            for label in sorted(given.intersection(declared.labels)):
                key = "name" if label == "target" else "labels"
                msg = f"{key}: metric {declared.name} has a label {label!r} of its own"
                raise PluginError(msg)
            if isinstance(declared, Metric):
                first, metric = self._declared.setdefault(declared.name, (owner, declared))
                if metric is not declared and first != owner:
                    msg = (
                        f"type {block.type_name}: metric {declared.name} is one of {first} already"
                    )
                    raise PluginError(msg)


def _check_attributes(kind: str, collector: Collector) -> None:
    """Check the attributes that the engine reads at every scrape; PluginError for a wrong type."""
    outcome = collector.outcome_metrics
    if not isinstance(collector.name, str) or not isinstance(collector.local, bool):
        msg = f"type {kind}: name must be a string and local a bool"
        raise PluginError(msg)
    if outcome is not None and [type(metric) for metric in outcome] != [Metric, Metric]:
        msg = f"type {kind}: outcome_metrics must be two metrics"
        raise PluginError(msg)
