"""Property values as `google.protobuf.Struct`, the form the SDK and providers exchange over gRPC.

Not the checkpoint's form (`checkpoint.py`). Source: pulumi `sdk/go/common/resource/plugin/rpc.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from engine.deploy.property import (
    ARCHIVE_SIGNATURE,
    ASSET_SIGNATURE,
    OUTPUT_SIGNATURE,
    RESOURCE_SIGNATURE,
    SECRET_SIGNATURE,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_VALUE,
    Archive,
    Asset,
    Output,
    PropertyMap,
    PropertyValue,
    ResourceReference,
    Secret,
)
from engine.deploy.urn import urn_name, urn_type

MAX_MESSAGE_BYTES = 400 * 1024 * 1024  # Pulumi's own limit: whole files travel as assets
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

# One per type of the value that will be; the Python SDK sends only the string one.
_UNKNOWNS = frozenset(
    {
        UNKNOWN_VALUE,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
_MAX_EXACT = 2**53  # beyond this a double does not hold every integer, so 1e300 stays a float


def decode_struct(struct: struct_pb2.Struct) -> PropertyMap:
    """The property map in a Struct. Output values become secrets, unknowns or plain values.

    Keys come sorted: protobuf keeps no order, and equal programs are to leave equal records.
    """
    return {key: decode_value(value) for key, value in sorted(struct.fields.items())}


def decode_value(value: struct_pb2.Value) -> PropertyValue:
    """The property value in a protobuf Value; whole numbers come back as `int`."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text: str = value.string_value
        return UNKNOWN if text in _UNKNOWNS else text
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE in fields:
            return _decode_marked(fields)
        return {k: decode_value(v) for k, v in sorted(fields.items())}
    if kind == "list_value":
        return [decode_value(v) for v in value.list_value.values]
    if kind == "bool_value":
        return value.bool_value
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() and abs(number) < _MAX_EXACT else number
    return None


def _decode_marked(fields: Any) -> PropertyValue:
    signature = fields[SIGNATURE].string_value
    if signature == SECRET_SIGNATURE:
        return make_secret(decode_value(fields["value"]))
    if signature == OUTPUT_SIGNATURE:
        value = decode_value(fields["value"]) if "value" in fields else UNKNOWN
        return make_secret(value) if "secret" in fields and fields["secret"].bool_value else value
    rest = {k: decode_value(v) for k, v in fields.items() if k != SIGNATURE}
    if signature == ASSET_SIGNATURE:
        return Asset(rest)
    if signature == ARCHIVE_SIGNATURE:
        return Archive(rest)
    if signature == RESOURCE_SIGNATURE:
        return ResourceReference(rest["urn"], rest.get("id"), rest.get("packageVersion", ""))
    raise ValueError(f"a property value carries the unknown signature {signature!r}: the SDK is newer than this engine")


def make_secret(value: PropertyValue) -> Secret:
    """The value as a secret; secrets are never nested directly."""
    return value if isinstance(value, Secret) else Secret(value)


def encode_struct(
    properties: Mapping[str, PropertyValue], *, keep_secrets: bool = True, keep_resources: bool = True
) -> struct_pb2.Struct:
    """A property map as a Struct. Readers that know no secrets or references get the bare values and ids."""
    struct = struct_pb2.Struct()
    fields = struct.fields
    for key, value in properties.items():
        _encode(value, fields[key], keep_secrets, keep_resources)
    return struct


def _encode(value: PropertyValue, into: struct_pb2.Value, secrets: bool, resources: bool) -> None:
    if value is None:
        into.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif isinstance(value, dict):
        fields = into.struct_value.fields
        if not value:
            into.struct_value.SetInParent()
        for key, item in value.items():
            _encode(item, fields[key], secrets, resources)
    elif isinstance(value, list | tuple):
        if not value:
            into.list_value.SetInParent()
        for item in value:
            _encode(item, into.list_value.values.add(), secrets, resources)
    elif value is UNKNOWN:
        into.string_value = UNKNOWN_VALUE
    else:
        _encode_marked(value, into, secrets, resources)


def _encode_marked(value: PropertyValue, into: struct_pb2.Value, secrets: bool, resources: bool) -> None:
    if isinstance(value, Secret):
        if secrets:
            marked: Any = {SIGNATURE: SECRET_SIGNATURE, "value": value.value}
        else:
            marked = value.value
    elif isinstance(value, Output):
        plain = value.value if value.known else UNKNOWN
        marked = Secret(plain) if value.secret else plain
    elif isinstance(value, ResourceReference):
        marked = _reference(value) if resources else (value.id if value.id is not None else value.urn)
    elif isinstance(value, Asset):
        marked = {SIGNATURE: ASSET_SIGNATURE, **value.fields}
    elif isinstance(value, Archive):
        marked = {SIGNATURE: ARCHIVE_SIGNATURE, **value.fields}
    else:
        raise TypeError(f"a {type(value).__name__} is not a property value")
    _encode(marked, into, secrets, resources)


def _reference(reference: ResourceReference) -> dict[str, PropertyValue]:
    urn = reference.urn
    marked: dict[str, PropertyValue] = {
        SIGNATURE: RESOURCE_SIGNATURE, "urn": urn, "name": urn_name(urn), "type": urn_type(urn)
    }  # fmt: skip
    if reference.id is not None:
        marked["id"] = reference.id
    if reference.package_version:
        marked["packageVersion"] = reference.package_version
    return marked
