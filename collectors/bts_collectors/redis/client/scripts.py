"""Lua scripts, each in a file next to the module that runs it."""

from __future__ import annotations

from pathlib import Path

#: The command that runs a script. EVAL would wait during CLIENT PAUSE WRITE, since it may write.
EVALUATE = "EVAL_RO"
_FIRST_WITH_EVAL_RO = (7,)


def load_script(module: str, name: str) -> str:
    """Return the script NAME.lua next to the file `module`, without comment lines.

    The server gets its text with every EVAL_RO.
    """
    lines = Path(module).with_name(f"{name}.lua").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


def runs_scripts(version: tuple[int, ...]) -> bool:
    """Return whether a server of `version` has a command for read-only scripts."""
    return not version or version >= _FIRST_WITH_EVAL_RO
