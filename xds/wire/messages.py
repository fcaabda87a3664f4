"""Envoy's messages: classes, and documents turned into bytes.

A document is JSON-shaped, as in Envoy's own configuration files: field names in snake_case (or
lowerCamelCase), `@type` in every Any, durations as "1.5s", wrappers as plain values, enums by
name. Everything here is process-wide and cached; it is for one thread, the event loop's.
"""
# ruff: noqa: ANN401 - JSON values and upb messages have no static type

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import json_format

from xds.wire.descriptors import envoy_descriptors
from xds.wire.errors import BadDocument
from xds.wire.plan import Plans

TYPE_PREFIX = "type.googleapis.com/"
_DIGEST_BYTES = 16


class Packed(NamedTuple):
    """The content of a google.protobuf.Any."""

    type_url: str
    body: bytes


@lru_cache(maxsize=1)
def _plans() -> Plans:
    return Plans(envoy_descriptors())


def type_url(full_name: str) -> str:
    """The type URL of message `full_name`, as xDS names types."""
    return TYPE_PREFIX + full_name


def message_class(full_name: str) -> type[Any]:
    """The upb class of a message of Envoy's API. Raises UnknownMessage."""
    return _plans().message_class(full_name)


def build(full_name: str, document: Any) -> Any:
    """The message that `document` describes. Raises UnknownMessage, BadDocument."""
    return _plans().build(full_name, document)


def encode(full_name: str, document: Any) -> bytes:
    """`build`, serialized: equal documents give equal bytes. Raises the same."""
    body: bytes = build(full_name, document).SerializeToString(deterministic=True)
    return body


def pack(document: dict[str, Any]) -> Packed:
    """A document with `@type`, encoded. Raises BadDocument."""
    packed = build("google.protobuf.Any", document)
    if not packed.type_url:
        raise BadDocument("'@type' is missing")
    return Packed(packed.type_url, packed.value)


def decode(full_name: str, body: bytes) -> dict[str, Any]:
    """The document of a serialized message, for people: slow. Raises UnknownMessage, DecodeError.

    Fields are in snake_case; an Any of unknown type raises TypeError.
    """
    message = message_class(full_name).FromString(body)
    _load_types_within(message)
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=envoy_descriptors().pool
    )
    return document


def _load_types_within(message: Any) -> None:
    """Bring the types of all nested Anys into the pool, where json_format looks for them."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Any" and message.type_url:
        inner = message_class(message.type_url.rpartition("/")[2])
        _load_types_within(inner.FromString(message.value))
        return
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.GetOptions().map_entry:
            if kind.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    _load_types_within(item)
        elif field.is_repeated:
            for item in value:
                _load_types_within(item)
        else:
            _load_types_within(value)


def digest(body: bytes) -> str:
    """The version of a resource: 32 hex digits of BLAKE2b over its bytes."""
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
