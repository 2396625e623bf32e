"""What the code says of settings: docstrings of blocks, and comments `#:` above keys."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any


def summary_of(kind: Any) -> str:
    """Return the first paragraph of the docstring of a type."""
    return str(kind.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


@lru_cache(maxsize=256)
def comments_of(struct: type[Any]) -> dict[str, str]:
    """Return the comments `#:` above the keys of `struct` and of its bases, by name."""
    return {
        name: comment for cls in reversed(struct.__mro__) for name, comment in _comments_in(cls)
    }


def source_of(cls: type[Any]) -> tuple[list[str], int, ast.Module]:
    """Return the lines of a class, the number of the first one in its file, and its syntax tree.

    In the tree they are numbered from 2 on. OSError, TypeError or SyntaxError for a class without a source.
    """
    lines, first = inspect.getsourcelines(cls)
    # The lines are not dedented: one that a docstring goes on in may begin at the margin.
    block = "if True:" if lines[0][:1].isspace() else ""
    return lines, first, ast.parse(f"{block}\n{''.join(lines)}")


def _comments_in(cls: type[Any]) -> Iterator[tuple[str, str]]:
    try:
        lines, _, tree = source_of(cls)
    except (OSError, SyntaxError, TypeError):  # made without a source file
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 2]):
                if not line.strip().startswith("#:"):
                    break
                above.insert(0, line.strip().removeprefix("#:").strip())
            yield node.target.id, " ".join(above)
