"""redis-py without its clients, until something asks for them.

Only its connections, exceptions and hash slots are used here. `redis/__init__.py` imports the asyncio, cluster and
pub/sub clients too, which take 4 MB of memory.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

_USED = ("backoff", "connection", "crc", "credentials", "exceptions", "retry")


class _LazyPackage(ModuleType):
    """The package `redis` with some of its modules; `__init__.py` runs when anything else of it is used."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that the package does not have yet; Python asks for `__path__` to import a module."""
        with _LOCK:  # another thread waits until all names are there
            spec = self.__spec__
            if spec is not None and spec.loader is not None and "__path__" not in vars(self):
                self.__path__ = spec.submodule_search_locations or []
                spec.loader.exec_module(self)
        return self.__getattribute__(name)


_LOCK = RLock()


def install() -> None:
    """Import what is used of the package, and make the rest lazy, unless a plug-in has imported it."""
    spec = None if "redis" in sys.modules else find_spec("redis")
    if spec is not None:
        package = sys.modules["redis"] = module_from_spec(spec)
        for name in _USED:
            import_module(f"redis.{name}")
        package.__class__ = _LazyPackage
        del package.__path__
