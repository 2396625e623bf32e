"""How the last load of the configuration file went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ReloadState:
    """The result of the last load or reload; the service sets it, pages show it."""

    successful: bool = False
    #: Why the last reload failed; empty if it did not.
    problem: str = ""
    #: When settings were loaded last, as Unix time.
    loaded_at: float = 0.0

    def succeed(self, now: float) -> None:
        """Note that settings were loaded at `now`, Unix time."""
        self.successful, self.problem, self.loaded_at = True, "", now

    def fail(self, problem: str) -> None:
        """Note that the settings could not be loaded; those from before remain."""
        self.successful, self.problem = False, problem
