"""Property values to protobuf and back."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.property import (
    OUTPUT_SIGNATURE,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_VALUE,
    Archive,
    Asset,
    Output,
    ResourceReference,
    Secret,
)
from engine.deploy.wire import decode_struct, encode_struct

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**52), 2**52) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), PLAIN | PLAIN.map(Secret) | st.just(UNKNOWN), max_size=4))
def test_what_goes_in_comes_out(properties: dict[str, Any]) -> None:
    assert decode_struct(encode_struct(properties)) == properties


def test_marked_values() -> None:
    values = {
        "asset": Asset({"text": "hello", "hash": "abc"}),
        "archive": Archive({"path": "x.zip"}),
        "reference": ResourceReference("urn:pulumi:a::b::c::d", "id-1", "1.0.0"),
        "list": [Secret({"a": 1})],
    }
    assert decode_struct(encode_struct(values)) == values


def test_whole_numbers_are_integers() -> None:
    decoded = decode_struct(encode_struct({"n": 720, "f": 0.5, "huge": 1e300}))
    assert repr(decoded) == "{'f': 0.5, 'huge': 1e+300, 'n': 720}"


def test_outputs_become_what_they_hold() -> None:
    struct = struct_pb2.Struct()
    json_format.ParseDict(
        {
            "known": {SIGNATURE: OUTPUT_SIGNATURE, "value": 1, "secret": True, "dependencies": ["urn"]},
            "unknown": {SIGNATURE: OUTPUT_SIGNATURE},
        },
        struct,
    )
    assert decode_struct(struct) == {"known": Secret(1), "unknown": UNKNOWN}
    assert decode_struct(encode_struct({"o": Output(1, secret=True), "u": Output(None, known=False)})) == {
        "o": Secret(1),
        "u": UNKNOWN,
    }


def test_readers_that_know_less_get_plain_values() -> None:
    values = {"s": Secret({"t": "x"}), "r": ResourceReference("urn:x", "id-1"), "c": ResourceReference("urn:y")}
    struct = encode_struct(values, keep_secrets=False, keep_resources=False)
    assert json_format.MessageToDict(struct) == {"s": {"t": "x"}, "r": "id-1", "c": "urn:y"}
    assert encode_struct({"u": UNKNOWN})["u"] == UNKNOWN_VALUE


def test_unknown_signature_is_refused() -> None:
    struct = struct_pb2.Struct()
    json_format.ParseDict({"x": {SIGNATURE: "new-thing"}}, struct)
    with pytest.raises(ValueError, match="unknown signature 'new-thing'"):
        decode_struct(struct)
