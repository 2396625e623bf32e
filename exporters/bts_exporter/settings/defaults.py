"""Whether the defaults of settings have the types that are declared for them.

Defaults are not converted as values from a file are: a text as the default of a Duration would stay a text.
"""

from __future__ import annotations

import ast
import enum
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

import msgspec

from bts_exporter.errors import text_of
from bts_exporter.settings.descriptions import source_of
from bts_exporter.settings.field_types import Key, columns_of, keys_of
from bts_exporter.settings.value_types import Duration, Secret, Url

_SEQUENCES = (list, tuple, set, frozenset)


def wrong_defaults(blocks: Iterable[Any]) -> Iterator[str]:
    """Yield what is wrong with a default of a key of these types, with file and line."""
    for block in blocks:
        for key in keys_of(block) or columns_of(block) or ():
            if problem := _problem_of(key):
                yield f"{block.__qualname__}.{key.name}: {problem}{line_of(block, key.name)}"


def line_of(cls: type, name: str = "") -> str:
    """Return where a class, or a name in its body, is in the source, as ` (path:line)`; empty if unknown."""
    try:
        file = inspect.getsourcefile(cls)
        _, first, tree = source_of(cls)
    except (OSError, SyntaxError, TypeError):  # made without a source file
        return ""
    for node in ast.walk(tree):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == name:
            first += node.lineno - 2  # type: ignore[attr-defined]  # of an AnnAssign
            break
    return f" ({file}:{first})"


def _problem_of(key: Key) -> str:
    try:
        default = msgspec.UNSET if key.make_default is None else key.make_default()
    except Exception as error:  # noqa: BLE001  # a plug-in's own code
        return f"its default cannot be made: {type(error).__name__}: {text_of(error)}"
    if default is msgspec.UNSET or _fits(default, key.kind):
        return ""
    # The value is not quoted: it may be a secret.
    return f"its default is of type {type(default).__name__} (expected {_named(key.kind)}{_cure(default, key.kind)})"


def _fits(value: Any, kind: Any) -> bool:  # noqa: C901, PLR0912  # a case for each kind of type
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if kind is None or kind is types.NoneType:
        return value is None
    if origin is Annotated:
        return _fits(value, arguments[0]) and _converts(value, kind)
    if origin in {Union, types.UnionType}:
        return any(_fits(value, arm) for arm in arguments)
    if origin is Literal:
        return any(type(value) is type(item) and value == item for item in arguments)
    if inspect.isclass(origin) and not isinstance(value, origin):
        return False
    if origin in _SEQUENCES:
        return _items_fit(value, arguments, fixed=origin is tuple)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items())
    if inspect.isclass(origin):
        return True
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        return isinstance(value, kind)
    if kind is Duration:
        return isinstance(value, Duration) or _is_number(value, float)
    if kind in {int, float}:
        return _is_number(value, kind)
    if is_typeddict(kind):
        return isinstance(value, dict)
    if inspect.isclass(kind):
        return isinstance(value, kind)
    return _converts(value, kind)


def _items_fit(value: Iterable[Any], arguments: tuple[Any, ...], *, fixed: bool) -> bool:
    items = list(value)
    if fixed and arguments[-1:] != (Ellipsis,):
        return len(items) == len(arguments) and all(map(_fits, items, arguments))
    return all(_fits(item, arguments[0]) for item in items)


def _is_number(value: Any, kind: type) -> bool:
    """Return whether `value` is a number that `kind` stands for; True and False are none."""
    return isinstance(value, int | kind) and not isinstance(value, bool)


def _converts(value: Any, kind: Any) -> bool:
    """Return whether a value is right for what is no class, such as a number with bounds."""
    try:
        return bool(msgspec.convert(value, kind) == value)
    except msgspec.ValidationError:
        return False
    except TypeError:  # not a type of settings files
        return True


def _named(kind: Any) -> str:
    return kind.__name__ if inspect.isclass(kind) and not get_args(kind) else str(kind)


def _cure(default: Any, kind: Any) -> str:
    """Return how to write a default of this type; empty if that is clear."""
    arms = [arm for arm in get_args(kind) if arm is not types.NoneType]
    arm = arms[0] if get_origin(kind) in {Union, types.UnionType} and len(arms) == 1 else kind
    if not isinstance(default, str) or not (inspect.isclass(arm) or get_origin(arm)):
        return ""
    name = getattr(arm, "__name__", "")
    if arm in {Duration, Secret, Url} or hasattr(arm, "from_setting"):
        return f", such as {name}.from_setting(...)"
    if name == "Pattern":
        return ", such as re.compile(...)"
    if inspect.isclass(arm) and not get_args(arm) and not issubclass(arm, enum.Enum | bool):
        return f", such as {name}(...)"
    return ""
