"""What the annotation of a setting means: a type and its limits, a list, a map, or the keys of a block."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import (
    Callable,
    Collection,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from bts_exporter.settings.limits import Limits

#: What a list in YAML becomes, by the type that a setting asks for.
_LISTS: dict[Any, type[Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
    MutableSequence: list,
    Collection: list,
    AbstractSet: set,
    MutableSet: set,
}
_MAPS = frozenset({dict, Mapping, MutableMapping})
#: How the keys of a map are written whose keys are numbers: in JSON they are texts.
NUMBER_KEYS = {
    int: r"^-?(0|[1-9][0-9]*)$(?!\n)",
    float: r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$(?!\n)",
}
#: A number as a text, of which a Decimal is made.
DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$(?!\n)"


class Key(NamedTuple):
    """A key of a block."""

    #: As it is written in YAML.
    key: str
    #: As it is called in Python.
    name: str
    kind: Any
    #: Makes its default, by code of a plug-in maybe; None if the block is wrong without the key.
    make_default: Callable[[], Any] | None

    @property
    def required(self) -> bool:
        """Whether the block is wrong without it."""
        return self.make_default is None

    @property
    def default(self) -> Any:
        """Return its default; None if it has none."""
        return None if self.make_default is None else self.make_default()


def bare(kind: Any) -> tuple[Any, Limits]:
    """Return a type without its annotations and aliases, and the limits that they set."""
    metas: list[msgspec.Meta] = []
    while True:
        if get_origin(kind) in {NotRequired, Required}:
            (kind,) = get_args(kind)
        elif get_origin(kind) is Annotated:
            kind, *others = get_args(kind)
            metas += [other for other in others if isinstance(other, msgspec.Meta)]
        elif hasattr(kind, "__supertype__"):  # NewType
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":  # type X = ..., since Python 3.12
            kind = kind.__value__
        else:
            return kind, Limits(tuple(metas))


def arms_of(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union; nothing for other types."""
    return get_args(kind) if get_origin(kind) in {Union, types.UnionType} else ()


def list_type(kind: Any) -> type[Any] | None:
    """Return the type that a list becomes for a setting of type `kind`; None if it is not for lists."""
    return _LISTS.get(get_origin(kind) or kind)


def items_of(kind: Any) -> tuple[Any, ...] | Any:
    """Return the type of each item of a list, or a tuple of types if their number is fixed."""
    arguments = get_args(kind)
    if (get_origin(kind) or kind) is not tuple or arguments[1:] == (...,):
        return arguments[0] if arguments else Any
    return arguments if arguments or kind is not tuple else Any


def map_types(kind: Any) -> tuple[Any, Any] | None:
    """Return the types of the keys and values of a map; None if `kind` is not one."""
    if (get_origin(kind) or kind) not in _MAPS:
        return None
    arguments = get_args(kind)
    return arguments if len(arguments) == 2 else (str, Any)  # noqa: PLR2004  # keys and values


@lru_cache(maxsize=512)
def keys_of(kind: Any) -> tuple[Key, ...] | None:
    """Return the keys of a block: a struct, a dataclass or a TypedDict; None for other types."""
    if hasattr(kind, "from_setting") or not inspect.isclass(kind):
        return None
    if issubclass(kind, msgspec.Struct):
        return tuple(
            Key(field.encode_name, field.name, field.type, _maker_of(field))
            for field in msgspec.structs.fields(kind)
        )
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return tuple(
            Key(field.name, field.name, hints[field.name], _maker_of(field))
            for field in dataclasses.fields(kind)
            if field.init
        )
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        required: frozenset[str] = vars(kind)["__required_keys__"]
        return tuple(
            Key(name, name, hint, None if name in required else _giver(msgspec.UNSET))
            for name, hint in hints.items()
        )
    return None


@lru_cache(maxsize=64)
def columns_of(kind: Any) -> tuple[Key, ...] | None:
    """Return the values of a NamedTuple, which is written as a list; None for other types."""
    if not inspect.isclass(kind) or not issubclass(kind, tuple) or not hasattr(kind, "_fields"):
        return None
    hints = get_type_hints(kind, include_extras=True)
    defaults: dict[str, Any] = vars(kind)["_field_defaults"]
    return tuple(
        Key(name, name, hint, _giver(defaults[name]) if name in defaults else None)
        for name, hint in hints.items()
    )


def blocks_in(kind: Any, found: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """Return `found`, and the types of all blocks and rows that `kind` consists of.

    NameError and the like for an annotation that is wrong.
    """
    kind, _ = bare(kind)
    keys = () if kind in found else keys_of(kind) or columns_of(kind) or ()
    found += (kind,) if keys else ()
    for each in (*(key.kind for key in keys), *get_args(kind)):
        found = blocks_in(each, found)
    return found


def tag_of(kind: Any) -> tuple[str, str | int] | None:
    """Return the key and value that distinguish this block from the others of a union."""
    config = getattr(kind, "__struct_config__", None)
    return None if config is None or config.tag is None else (config.tag_field, config.tag)


def _maker_of(field: Any) -> Callable[[], Any] | None:
    """Return what makes the default of a field of a struct or a dataclass; None if it has none."""
    nothing = {id(msgspec.NODEFAULT), id(dataclasses.MISSING)}
    if id(field.default) not in nothing:
        return _giver(field.default)
    factory: Callable[[], Any] = field.default_factory
    return None if id(factory) in nothing else factory


def _giver(value: Any) -> Callable[[], Any]:
    return lambda: value
