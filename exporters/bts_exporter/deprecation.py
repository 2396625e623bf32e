"""Warns authors and operators, once for each file, that a plug-in uses a name that will be removed."""

from __future__ import annotations

import logging
import sys
import warnings

log = logging.getLogger("bts_exporter.deprecation")

_warned: set[tuple[str, str]] = set()


def warn_once(name: str, instead: str, removed_with: str) -> None:
    """Log that the caller's file uses the deprecated `name`, and warn as Python does; once for each file."""
    frame = sys._getframe(2)  # noqa: SLF001  # the documented way to the caller
    while frame.f_code.co_filename.startswith("<frozen ") and frame.f_back is not None:
        frame = frame.f_back  # the import system
    file = frame.f_code.co_filename
    if (name, file) in _warned:
        return
    _warned.add((name, file))
    message = f"{name} is deprecated, and will be removed with API {removed_with}: use {instead}"
    log.warning("%s:%d: %s", file, frame.f_lineno, message)
    warnings.warn_explicit(message, DeprecationWarning, file, frame.f_lineno)
