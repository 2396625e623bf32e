"""Whether a class keeps the contract of collectors, found out without creating one."""

from __future__ import annotations

import inspect
import re

from bts_exporter.errors import PluginError
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import API_VERSION, Collector, CollectorConfig, Command
from bts_exporter.settings.defaults import line_of, wrong_defaults
from bts_exporter.settings.field_types import blocks_in
from bts_exporter.settings.loader import COMMON_KEYS


def checked(cls: type[Collector]) -> type[Collector]:
    """Return `cls`; PluginError with its line if it violates the contract."""
    problem = _problem_of_api(cls) or _problem_of_settings(cls) or _problem_of_class(cls)
    if problem:
        raise PluginError(problem if problem.endswith(")") else f"{problem}{line_of(cls)}")
    return cls


def _problem_of_api(cls: type[Collector]) -> str:
    needed = cls.requires_api
    if needed == "":
        return ""
    if not isinstance(needed, str) or not re.fullmatch(r"\d+\.\d+", needed):
        return f'{cls.__name__}.requires_api must be a text such as "{API_VERSION}", got {needed!r}'
    major, minor = _numbers(needed)
    ours = _numbers(API_VERSION)
    if major == ours[0] and minor <= ours[1]:
        return ""
    cure = (
        "install a newer bts-exporter"
        if (major, minor) > ours
        else "parts of the older API are gone: install a newer version of the plug-in"
    )
    return f"{cls.__name__} needs plug-in API {needed}, and this bts-exporter has {API_VERSION}: {cure}"


def _problem_of_settings(cls: type[Collector]) -> str:
    if not inspect.isclass(cls.Config) or not issubclass(cls.Config, CollectorConfig):
        return f"{cls.__name__}.Config must derive from CollectorConfig"
    try:
        blocks = blocks_in(cls.Config)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        return f"{cls.__name__}.Config: the type of a key is not known: {type(error).__name__}: {error}{line_of(cls.Config)}"
    taken = sorted(COMMON_KEYS & set(cls.Config.__struct_fields__))
    if taken:
        return f"{cls.__name__}.Config: {', '.join(taken)} is reserved by the engine; choose another name{line_of(cls.Config, taken[0])}"
    return "; ".join(wrong_defaults(blocks))


def _problem_of_class(cls: type[Collector]) -> str:
    odd = [metric for metric in cls.declared() if not isinstance(metric, Metric | Template)]
    if odd or not all(isinstance(command, Command) for command in cls.commands.values()):
        return f"{cls.__name__}: declared must yield metrics, and commands hold a Command for each name"
    if cls.collect is Collector.collect and cls.build.__func__ is Collector.build.__func__:  # type: ignore[attr-defined]
        return f"{cls.__name__} has no collect method"
    if inspect.isgeneratorfunction(cls.collect) or inspect.iscoroutinefunction(cls.collect):
        return f"{cls.__name__}.collect is a generator or coroutine and would never run: call scrape.emit instead"
    if type(cls.default_max_series) is not int or cls.default_max_series < 1:
        return f"{cls.__name__}.default_max_series must be a whole number above 0"
    return ""


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)
