"""Objects of Kubernetes against their schemas. Keys that a schema does not have are refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import jsonschema

from chartlint.helm import Manifest

#: The modules with the models of custom resources, by the group and version of the resource.
_CUSTOM = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "monitoring.coreos.com/v1alpha1": "cloudcoil.models.prometheus_operator.v1alpha1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
}


def problems_of(manifest: Manifest) -> list[str]:
    """Return what is wrong with an object."""
    version, kind = manifest.get("apiVersion"), manifest.get("kind")
    name = manifest.get("metadata", {}).get("name")
    check = _custom_problems if version in _CUSTOM else _built_in_problems
    return [f"{kind} {name}: {problem}" for problem in check(manifest)]


def problems_with(value: Any, schema: dict[str, Any]) -> list[str]:
    """Return what is wrong with a value, with the path of each mistake in it."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in map(_deepest, errors)]


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Return the mistake itself, where an error says only that no alternative fits."""
    while error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return error


def _custom_problems(manifest: Manifest) -> Iterator[str]:
    try:
        schema = schema_of(manifest["apiVersion"], manifest["kind"])
    except AttributeError:
        yield f"{manifest['apiVersion']} has no such kind"
    else:
        yield from problems_with(manifest, schema)


def _built_in_problems(manifest: Manifest) -> Iterator[str]:
    validator = import_module("kubernetes_validate")
    try:
        validator.validate(manifest, validator.latest_version(), strict=True)
    except validator.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except validator.SchemaNotFoundError:
        yield f"Kubernetes has no such kind in {manifest['apiVersion']}"


@cache
def schema_of(version: str, kind: str) -> dict[str, Any]:
    """Return the schema of a custom resource, which allows no other keys; AttributeError if there is none."""
    model = getattr(import_module(_CUSTOM[version]), kind)
    schema: dict[str, Any] = model.model_json_schema(by_alias=True)
    for part in (schema, *schema["$defs"].values()):
        if part.get("properties"):
            part["additionalProperties"] = False
    return schema
