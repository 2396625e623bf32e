"""What the code says of settings: docstrings of blocks, and comments `#:` above keys."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import lru_cache
from typing import Any


def summary_of(kind: Any) -> str:
    """Return the first paragraph of the docstring of a type."""
    return str(kind.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


@lru_cache(maxsize=256)
def comments_of(struct: type[Any]) -> dict[str, str]:
    """Return the comments `#:` above the keys of `struct` and of its bases, by name."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):  # made without a source file
            continue
        found |= _comments_in(source)
    return found


def _comments_in(source: str) -> dict[str, str]:
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#:"):
                    break
                above.insert(0, line.strip().removeprefix("#:").strip())
            found[node.target.id] = " ".join(above)
    return found
