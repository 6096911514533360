"""States as the official providers write them: previews, what an update leads to, partial failures. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from engine.deploy.property import UNKNOWN, PropertyMap, PropertyValue, Secret, contains_secret
from engine.deploy.provider import DiffResult, PartialFailure
from engine.deploy.providers.bridge import schema as tables
from engine.deploy.providers.bridge.schema import Kind, Property, Schema


def settled_outputs(
    schema: Schema, id: str, values: Mapping[str, PropertyValue], inputs: PropertyMap, meta: str
) -> PropertyMap:
    """Outputs after a create or update: an empty list that the program did not mention stays null."""
    settled = {
        name: None if value == [] and inputs.get(name) is None and _is_plain_set(schema.properties[name]) else value
        for name, value in values.items()
    }
    return tables.complete_outputs(schema, id, settled, inputs, meta)


def planned_lists(schema: Schema, new: PropertyMap) -> PropertyMap:
    """Lists after an update are those that were planned: what became of others shows in the next refresh.

    Terraform's SDK does so (`normalizeNullValues`), so the official state has `dropletIds: []` after a resize.
    """
    return {
        name: new.get(name)
        for name, prop in schema.properties.items()
        if prop.element is not None and not prop.element.fields
    }


def _is_plain_set(prop: Property) -> bool:
    if prop.kind is not Kind.SET or prop.computed or not prop.is_input:
        return False
    return prop.element is not None and prop.element.kind is not Kind.OBJECT


def preview(schema: Schema, inputs: PropertyMap) -> PropertyMap:
    """What a create will lead to, as far as it can be known."""
    stored = tables.stored_inputs(schema, inputs)
    planned: PropertyMap = {}
    for name, prop in schema.properties.items():
        value = UNKNOWN if stored[name] is None and prop.computed else stored[name]
        planned[name] = _as_secret_as(inputs.get(name), value)
    return planned


def preview_update(schema: Schema, old_outputs: PropertyMap, new_inputs: PropertyMap, found: DiffResult) -> PropertyMap:
    """What an update will lead to, as far as it can be known."""
    stored = tables.stored_inputs(schema, new_inputs)
    planned = dict(old_outputs)
    for name in found.changed_keys:
        recomputed = new_inputs.get(name) is None and schema.properties[name].computed
        planned[name] = UNKNOWN if recomputed else _as_secret_as(new_inputs.get(name), stored[name])
    return planned


def _as_secret_as(given: PropertyValue, value: PropertyValue) -> PropertyValue:
    return Secret(value) if contains_secret(given) and value is not None else value


def stored_after(schema: Schema, old: PropertyMap, new_inputs: PropertyMap) -> PropertyMap:
    """The stored form an update in place leads to: what it cannot change and what the cloud chose stay as they are."""
    new = dict(old)
    for name, value in tables.stored_inputs(schema, new_inputs).items():
        prop = schema.properties[name]
        if prop.is_input and not prop.replace and not (value is None and prop.computed):
            new[name] = value
    return new


def secret_properties(inputs: PropertyMap, outputs: PropertyMap) -> PropertyMap:
    """What has to be secret in refreshed outputs: what is secret now, here or there."""
    return {k: v for k, v in (*inputs.items(), *outputs.items()) if contains_secret(v)}


def meta_after(schema: Schema, old_outputs: PropertyMap, timeout_seconds: float) -> str:
    """The `__meta` of an update: as it was, with this update's own timeout."""
    old = old_outputs.get("__meta")
    if not old:
        return tables.state_meta(schema, update=timeout_seconds)
    if not timeout_seconds:
        return str(old)
    meta = json.loads(old)
    meta.setdefault(tables.TIMEOUTS_KEY, {})["update"] = int(timeout_seconds * 1_000_000_000)
    return json.dumps(meta, separators=(",", ":"), sort_keys=True)


def partial_failure(
    operation: str, message: str, *, id: str, outputs: PropertyMap, inputs: PropertyMap
) -> PartialFailure:
    """The resource exists but is not usable; `reasons` as `initErrors` are recorded."""
    failure = PartialFailure(one_error(message), id=id, outputs=outputs, inputs=inputs)
    failure.reasons = [f"{operation}: {one_error(message)}"]
    return failure


def one_error(message: str) -> str:
    """In the form of the official providers' errors."""
    return f"1 error occurred:\n\t* {message}\n\n"
