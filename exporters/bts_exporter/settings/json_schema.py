"""The JSON Schema of a settings file, for editors: what it accepts, `check` accepts."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec
import yaml

from bts_exporter.errors import PluginError, one_line
from bts_exporter.plugin import Collector
from bts_exporter.settings.descriptions import comments_of, summary_of
from bts_exporter.settings.field_types import (
    DECIMAL,
    NUMBER_KEYS,
    Key,
    arms_of,
    bare,
    columns_of,
    items_of,
    keys_of,
    list_type,
    map_types,
    tag_of,
)
from bts_exporter.settings.literals import REFUSED_TEXT
from bts_exporter.settings.loader import Common, TopLevel, Types
from bts_exporter.settings.value_types import Duration, Secret

Schema = dict[str, Any]

#: Draft 7 is the newest that every editor's YAML server understands.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_TEXT: Schema = {"type": "string", "not": {"type": "string", "pattern": REFUSED_TEXT}}
_ANY = "any"
_BUILT_IN: dict[str, Schema] = {
    "text": _TEXT,
    "regex": {**_TEXT, "format": "regex", "description": "Regular expression, as in Python."},
    _ANY: {
        "anyOf": [
            {"type": ["null", "boolean", "number"]},
            {"$ref": "#/definitions/text"},
            {"type": "array", "items": {"$ref": "#/definitions/any"}},
            {
                "type": "object",
                "propertyNames": {"$ref": "#/definitions/text"},
                "additionalProperties": {"$ref": "#/definitions/any"},
            },
        ]
    },
}
#: A duration of a second and more, written as text; sums of shorter parts are left out.
_A_SECOND = r"(?:^|[dhms])0*[1-9][0-9]*(?:[dhm](?!s)|(?:\.[0-9]+)?s)|(?:^|[dhms])0*[1-9][0-9]{3,}ms"
_DAY = r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])?"
_PART = r"[0-9]+(\.[0-9]+)?"
#: Types that msgspec makes of texts.
_OF_TEXTS = {
    dt.date: _DAY,
    dt.time: _CLOCK,
    dt.datetime: f"{_DAY}[Tt ]{_CLOCK}",
    dt.timedelta: (
        rf"[+-]?[Pp](?=[0-9]|[Tt][0-9])({_PART}[Dd])?"
        rf"([Tt](?=[0-9])({_PART}[Hh])?({_PART}[Mm])?({_PART}[Ss])?)?"
    ),
    UUID: r"([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})",
    bytes: r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
}
_SIMPLE: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": ["number", "string"], "pattern": DECIMAL},
    type(None): {"type": "null"},
    None: {"type": "null"},
}


def schema_of(types_: Types) -> Schema:
    """Return the schema of settings with these collector types; one that is broken is refused."""
    definitions = _Definitions()
    properties = {
        key.key: definitions.of_key(TopLevel, key)
        for key in keys_of(TopLevel) or ()
        if key.key != "collectors"
    }
    collectors = {name: _of_type(definitions, name, types_) for name in types_.names()}
    properties["collectors"] = {
        "description": comments_of(TopLevel)["collectors"],
        **_block(collectors),
    }
    return {
        "$schema": _DRAFT,
        "title": "Settings of bts-exporter",
        **_block(properties),
        "minProperties": 1,
        "definitions": dict(sorted(definitions.found.items())),
    }


def _of_type(definitions: _Definitions, name: str, types_: Types) -> Schema:
    """Return the schema of a collector type: a block of settings, or a list of blocks."""
    try:
        cls = types_.load(name)
    except PluginError as error:
        return {"not": {}, "description": f"BROKEN: {one_line(str(error))}"}
    block = definitions.of_collector(name, cls)
    several = {"required": ["name"], "properties": {"name": {"minLength": 1}}, "type": "object"}
    blocks = {
        "type": "array",
        "items": block,
        "minItems": 1,
        "if": {"minItems": 2},
        "then": {"items": several},
    }
    return {"description": summary_of(cls), "anyOf": [block, blocks]}


def _block(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    required = list(required)
    more = {"required": required} if required else {}
    return {
        "type": "object",
        "properties": dict(properties),
        **more,
        "additionalProperties": False,
    }


class _Definitions:
    """The schemas of types, each of which is in the document once."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = dict(_BUILT_IN)
        self._names: dict[Any, str] = {}

    def of_collector(self, name: str, cls: type[Collector]) -> Schema:
        """Return a reference to the schema of one block of a collector type."""
        labels = {label for metric in cls.declared() for label in metric.labels}
        shared = {key.key: self.of_key(Common, key) for key in keys_of(Common) or ()}
        shared["max_series"]["default"] = cls.default_max_series
        if labels:
            shared["labels"] = {
                "allOf": [shared["labels"], {"propertyNames": {"not": {"enum": sorted(labels)}}}],
                "description": shared["labels"].get("description", ""),
            }
        if "target" in labels:
            shared["name"] = {**shared["name"], "maxLength": 0}
        own = self._block_of(cls.Config)
        made = {**own, "properties": {**own["properties"], **shared}}
        self.found[f"collector.{_as_name(name)}"] = made
        return {"$ref": f"#/definitions/collector.{_as_name(name)}"}

    def of_key(self, owner: Any, key: Key) -> Schema:
        """Return the schema of a key, with its description and default."""
        made = dict(self.of(key.kind))
        if text := comments_of(owner).get(key.name, ""):
            made["description"] = text
        default = _as_json(key.default)
        return made if default is None else {**made, "default": default}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type, or a reference to it."""
        kind, limits = bare(kind)
        made, more = self._of_bare(kind), limits.as_schema(_json_type(kind))
        if kind is Duration:
            more |= _least_text(more)
        if more and "$ref" in made:  # draft 7 ignores what is next to a reference
            return {"allOf": [made], **more}
        return {**made, **more}

    def _of_bare(self, kind: Any) -> Schema:
        if keys_of(kind) is not None:
            return self._reference(kind)
        if arms := arms_of(kind):
            return self._of_union(arms)
        if get_origin(kind) is Literal:
            return {"enum": list(get_args(kind))}
        if list_type(kind) is not None:
            return self._of_list(items_of(kind))
        if (types_ := map_types(kind)) is not None:
            return self._of_map(*types_)
        if (columns := columns_of(kind)) is not None:
            made = self._of_list(tuple(column.kind for column in columns))
            return {**made, "minItems": sum(column.required for column in columns)}
        if kind in {Any, object}:
            return {"$ref": f"#/definitions/{_ANY}"}
        if inspect.isclass(kind) and issubclass(kind, PurePath):
            return {"$ref": "#/definitions/text"}
        if kind is str or (get_origin(kind) or kind) is re.Pattern:
            return {"$ref": f"#/definitions/{'text' if kind is str else 'regex'}"}
        return dict(_SIMPLE[kind]) if kind in _SIMPLE else self._of_class(kind)

    def _of_union(self, arms: tuple[Any, ...]) -> Schema:
        inner = [arm for arm in arms if arm is not types.NoneType]
        made = [self.of(arm) for arm in inner]
        # A password without a value is a mistake, see settings.schema.
        if len(inner) < len(arms) and Secret not in [bare(arm)[0] for arm in inner]:
            made.append({"type": "null"})
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _of_list(self, items: Any) -> Schema:
        if not isinstance(items, tuple):
            return {"type": "array", "items": self.of(items)}
        fixed = {"items": [self.of(item) for item in items], "additionalItems": False}
        return {"type": "array", **(fixed if items else {"maxItems": 0}), "minItems": len(items)}

    def _of_map(self, keys: Any, values: Any) -> Schema:
        inner = bare(keys)[0]
        names = {"pattern": NUMBER_KEYS[inner]} if inner in NUMBER_KEYS else self.of(keys)
        if keys is str:  # no type: loaders of YAML make truth values and numbers of some keys
            names = {"not": _TEXT["not"]}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.of(values)}

    def _of_class(self, kind: Any) -> Schema:
        if hasattr(kind, "from_setting"):
            return self._reference(kind)
        if inspect.isclass(kind) and issubclass(kind, Enum):
            return {"enum": [member.value for member in kind], "description": summary_of(kind)}
        if kind in _OF_TEXTS:
            return {"type": "string", "pattern": rf"^{_OF_TEXTS[kind]}$(?!\n)"}
        return {"not": {}, "description": "No value in YAML is of this type."}

    def _reference(self, kind: Any) -> Schema:
        """Return a reference to the schema of a block, or of a class that reads its own values."""
        name = self._names.get(kind)
        if name is None:
            name = _as_name(f"{kind.__module__}.{kind.__qualname__}")
            while name in self.found:  # another class of the same name
                name += "_"
            self._names[kind] = name
            self.found[name] = {}  # a block can contain itself
            self.found[name] = self._block_of(kind) if keys_of(kind) else _of_own_class(kind)
        return {"$ref": f"#/definitions/{name}"}

    def _block_of(self, kind: Any) -> Schema:
        keys = keys_of(kind) or ()
        properties = {key.key: self.of_key(kind, key) for key in keys}
        required = [key.key for key in keys if key.required]
        if (tag := tag_of(kind)) is not None:
            properties[tag[0]] = {"const": tag[1]}
            required.append(tag[0])
        made = {"description": summary_of(kind), **_block(properties, required)}
        return made if required else {**made, "type": ["object", "null"]}


def _of_own_class(kind: Any) -> Schema:
    """Return the schema that a class with `from_setting` gives itself; anything, if it gives none."""
    try:
        made = kind.setting_schema() if hasattr(kind, "setting_schema") else {}
        json.dumps(made)
    except Exception:  # noqa: BLE001  # a plug-in's own code
        made = {}
    described: Schema = {"description": summary_of(kind), **_without_variables(made)}
    return described


def _without_variables(made: Any) -> Any:
    """Return a schema in which texts must not be those that every setting refuses, such as ${NAME}."""
    if isinstance(made, list):
        return [_without_variables(item) for item in made]
    if not isinstance(made, dict):
        return made
    inner = {k: v if k == "not" else _without_variables(v) for k, v in made.items()}
    return _TEXT | inner if "string" in str(made.get("type")) else inner


def _least_text(limits: Mapping[str, Any]) -> Schema:
    """Return what the least duration means for those written as text: `0s` and `500ms` are too short."""
    least = limits.get("minimum", limits.get("exclusiveMinimum"))
    if least is None:
        return {}
    words = "at least" if "minimum" in limits else "more than"
    pattern = _A_SECOND if least == 1 else "[1-9]"
    return {"pattern": pattern, "patternErrorMessage": f"Expected {words} {least:g} s."}


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _json_type(kind: Any) -> str:
    """Return which lengths a value of this type has."""
    if list_type(kind) is not None:
        return "array"
    return "object" if map_types(kind) is not None else "string"


def _as_json(value: Any) -> Any:
    """Return a default as JSON; None if it has no such form, or is null."""
    match value:
        case _ if hasattr(value, "as_setting"):
            return yaml.safe_load(value.as_setting())
        case Enum() | dt.date() | dt.time() | dt.timedelta() | Decimal() | UUID() | bytes():
            return msgspec.to_builtins(value)
        case float() if not math.isfinite(value):
            return None
        case bool() | int() | float() | str():
            return value
        case re.Pattern():
            return value.pattern
        case PurePath():
            return str(value)
        case tuple() | list():
            items = [_as_json(item) for item in value]
            return None if None in items else items
        case _:
            return None
