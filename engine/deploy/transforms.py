"""Transforms: functions of the program that change registrations and invokes before the engine sees them.

It rewrites requests and knows no resources' states. Source: pulumi `source_eval.go`, RegisterResource and
wrapTransformCallback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import struct_pb2
from pulumi.runtime.proto import resource_pb2

from engine.deploy.callbacks import Callbacks
from engine.deploy.property import OUTPUT_SIGNATURE, SECRET_SIGNATURE, SIGNATURE, UNKNOWN_VALUE
from engine.deploy.wire import decode_value

# Option of a transform → field of a registration, where the names differ.
_LISTS = {
    "depends_on": "dependencies",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "aliases": "aliases",
    "additional_secret_outputs": "additionalSecretOutputs",
    "hide_diff": "hideDiffs",
    "replace_with": "replace_with",
}
_PLAIN = {
    "protect": "protect",
    "version": "version",
    "provider": "provider",
    "plugin_download_url": "pluginDownloadURL",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "import": "importId",
}
_MESSAGES = {"custom_timeouts": "customTimeouts", "hooks": "hooks", "replacement_trigger": "replacement_trigger"}
_MAPS = {"providers": "providers", "plugin_checksums": "pluginChecksums"}


class Transforms:
    """The transforms of one program: of resources, which reach their children too, and of the whole stack."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._stack: list[Any] = []
        self._invokes: list[Any] = []
        self._own: dict[str, list[Any]] = {}
        self._parents: dict[str, str] = {}
        self._promised: dict[tuple[str, str, str], list[Any]] = {}  # remote component → its transforms

    def add_for_stack(self, callback: Any) -> None:
        """From now on for every resource."""
        self._stack.append(callback)

    def add_for_invokes(self, callback: Any) -> None:
        """From now on for every invoke."""
        self._invokes.append(callback)

    def remember(self, urn: str, request: Any) -> None:
        """Keep a registered resource's transforms for its children."""
        self._parents[urn] = request.parent
        if request.transforms:
            self._own[urn] = list(request.transforms)

    def promise(self, request: Any) -> None:
        """Keep a remote component's transforms for the registration its provider will make of it."""
        if request.transforms:
            self._promised[request.parent, request.type, request.name] = list(request.transforms)

    def claimed(self, request: Any) -> Any:
        """The registration with the transforms that were promised to it."""
        promised = self._promised.pop((request.parent, request.type, request.name), None)
        if promised is None:
            return request
        claimed: Any = resource_pb2.RegisterResourceRequest()
        claimed.CopyFrom(request)
        claimed.ClearField("transforms")
        claimed.transforms.extend(promised)
        return claimed

    async def resource(self, request: Any) -> Any:
        """The registration as the transforms want it: its own first, then its parents', then the stack's.

        Raises:
            CallbackFailed: a transform raised.
        """
        transforms = list(self._for(request))
        if not transforms:
            return request
        properties, options = _with_dependencies(request), _options(request)
        for callback in transforms:
            question = resource_pb2.TransformRequest(
                type=request.type,
                name=request.name,
                custom=request.custom,
                parent=request.parent,
                properties=properties,
                options=options,
            )
            answer = resource_pb2.TransformResponse.FromString(await self._callbacks.call(callback, question))
            properties = answer.properties if answer.HasField("properties") else properties
            options = answer.options if answer.HasField("options") else options
        return _rewritten(request, properties, options)

    def _for(self, request: Any) -> Iterator[Any]:
        yield from request.transforms
        parent = request.parent
        while parent:
            yield from self._own.get(parent, ())
            parent = self._parents.get(parent, "")
        yield from self._stack

    async def invoke(self, request: Any) -> Any:
        """The invoke as the transforms want it."""
        for callback in self._invokes:
            options = resource_pb2.TransformInvokeOptions(
                provider=request.provider, version=request.version, plugin_download_url=request.pluginDownloadURL
            )
            question = resource_pb2.TransformInvokeRequest(token=request.tok, args=request.args, options=options)
            answer = resource_pb2.TransformInvokeResponse.FromString(await self._callbacks.call(callback, question))
            changed = resource_pb2.ResourceInvokeRequest()
            changed.CopyFrom(request)
            if answer.HasField("args"):
                changed.args.CopyFrom(answer.args)
            if answer.HasField("options"):
                changed.provider, changed.version = answer.options.provider, answer.options.version
                changed.pluginDownloadURL = answer.options.plugin_download_url
            request = changed
        return request


def _options(request: Any) -> Any:
    options = resource_pb2.TransformResourceOptions()
    for name, field in _LISTS.items():
        getattr(options, name).extend(getattr(request, field))
    for name, field in _PLAIN.items():
        if value := getattr(request, field):
            setattr(options, name, value)
    for name, field in _MESSAGES.items():
        if request.HasField(field):
            getattr(options, name).CopyFrom(getattr(request, field))
    for name, field in _MAPS.items():
        getattr(options, name).update(getattr(request, field))
    if request.deleteBeforeReplaceDefined:
        options.delete_before_replace = request.deleteBeforeReplace
    return options


def _rewritten(request: Any, properties: struct_pb2.Struct, options: Any) -> Any:
    changed: Any = resource_pb2.RegisterResourceRequest()
    changed.CopyFrom(request)
    changed.object.CopyFrom(properties)
    for name, field in {**_LISTS, **_PLAIN, **_MESSAGES, **_MAPS}.items():
        changed.ClearField(field)
        if name in _LISTS:
            getattr(changed, field).extend(getattr(options, name))
        elif name in _MAPS:
            getattr(changed, field).update(getattr(options, name))
        elif name in _MESSAGES:
            if options.HasField(name):
                getattr(changed, field).CopyFrom(getattr(options, name))
        else:
            setattr(changed, field, getattr(options, name))
    changed.deleteBeforeReplaceDefined = options.HasField("delete_before_replace")
    changed.deleteBeforeReplace = options.delete_before_replace
    _set_dependencies(changed, request)
    return changed


def _set_dependencies(request: Any, asked: Any) -> None:
    """Take the dependencies from the output values the properties now consist of.

    The Python SDK answers with plain values; a property that is as it was keeps its dependencies all the same.
    """
    needed = set(request.dependencies)
    request.ClearField("propertyDependencies")
    for key, value in request.object.fields.items():
        urns = set(output_dependencies(value))
        is_old = key in asked.object.fields and key in asked.propertyDependencies
        if is_old and decode_value(asked.object.fields[key]) == decode_value(value):
            urns.update(asked.propertyDependencies[key].urns)
        request.propertyDependencies[key].urns.extend(sorted(urns))
        needed |= urns
    del request.dependencies[:]
    request.dependencies.extend(sorted(needed))


def output_dependencies(value: struct_pb2.Value) -> Iterator[str]:
    """What the output values in a value depend on, by URN."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        for item in value.list_value.values:
            yield from output_dependencies(item)
    elif kind == "struct_value":
        fields = value.struct_value.fields
        if _signature(fields) == OUTPUT_SIGNATURE and "dependencies" in fields:
            yield from (d.string_value for d in fields["dependencies"].list_value.values)
        for key, item in fields.items():
            if key != "dependencies" or _signature(fields) != OUTPUT_SIGNATURE:
                yield from output_dependencies(item)


def _with_dependencies(request: Any) -> struct_pb2.Struct:
    """The properties with what each depends on noted in it, so that it survives the transforms."""
    properties = struct_pb2.Struct()
    for key, value in request.object.fields.items():
        known = set(output_dependencies(value))
        wanted = set(request.propertyDependencies[key].urns) if key in request.propertyDependencies else set()
        if wanted <= known:
            properties.fields[key].CopyFrom(value)
        else:
            _as_output(value, sorted(known | wanted), properties.fields[key])
    return properties


def _as_output(value: struct_pb2.Value, urns: list[str], into: struct_pb2.Value) -> None:
    fields = into.struct_value.fields
    if value.WhichOneof("kind") == "struct_value" and _signature(value.struct_value.fields) == OUTPUT_SIGNATURE:
        into.CopyFrom(value)
        del fields["dependencies"]
    else:
        fields[SIGNATURE].string_value = OUTPUT_SIGNATURE
        _fill_output(value, fields)
    for urn in urns:
        fields["dependencies"].list_value.values.add().string_value = urn


def _fill_output(value: struct_pb2.Value, fields: Mapping[str, Any]) -> None:
    kind = value.WhichOneof("kind")
    if kind == "struct_value" and _signature(value.struct_value.fields) == SECRET_SIGNATURE:
        fields["secret"].bool_value = True
        value = value.struct_value.fields["value"]
        kind = value.WhichOneof("kind")
    if kind != "string_value" or value.string_value != UNKNOWN_VALUE:
        fields["value"].CopyFrom(value)


def _signature(fields: Mapping[str, Any]) -> str:
    return str(fields[SIGNATURE].string_value) if SIGNATURE in fields else ""
