"""Lua scripts, each in a file next to the module that runs it."""

from __future__ import annotations

from pathlib import Path


def load_script(name: str) -> str:
    """Return the script NAME.lua without comment lines: the server gets its text with every EVAL_RO."""
    lines = Path(__file__).with_name(f"{name}.lua").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))
