"""How documents become messages: one plan per message type, compiled once, run many times.

A plan maps each field name (snake_case and lowerCamelCase) to the Python type that may go to upb
as it is, and to what converts anything else. The result is what the constructor of a upb message
takes, nested dicts and lists, which are filled in C. Paths are put together only when something
is refused.

Source: https://protobuf.dev/programming-guides/json/
"""
# ruff: noqa: ANN401 - JSON values and upb messages have no static type

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from xds.wire.descriptors import Descriptors
from xds.wire.errors import BadDocument, UnknownMessage
from xds.wire.scalars import SCALARS, Convert, duration, enum, shown, text

_WELL_KNOWN = "google.protobuf."
_WRAPPERS = frozenset(
    f"{_WELL_KNOWN}{kind}Value"
    for kind in ("Bool", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "Bytes")
)
_SPECIAL_IN_ANY = _WRAPPERS | {
    f"{_WELL_KNOWN}{kind}"
    for kind in ("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value")
}
"""Messages whose JSON form is not an object of their fields; in an Any it is under `value`."""


class _Field(NamedTuple):
    name: str
    plain: type | None  # values of exactly this type go to upb as they are
    convert: Convert
    takes_null: bool
    oneof: int  # a bit for the group of which only one may be set; 0 for none


class Plan:
    """What one message type makes of a document."""

    __slots__ = ("_descriptor", "_fields", "_plans")

    def __init__(self, descriptor: Descriptor, plans: "Plans") -> None:
        self._descriptor = descriptor
        self._plans = plans
        self._fields: dict[str, _Field] = {}

    def _compile(self) -> dict[str, _Field]:
        """On first use: most of what a message can hold is never seen."""
        for field in self._descriptor.fields:
            plain, convert = self._plans.field(field)
            group = field.containing_oneof
            # a proto3 `optional` is a oneof of one field: it cannot be set twice
            oneof = 1 << group.index if group is not None and len(group.fields) > 1 else 0
            kind = field.message_type
            takes_null = kind is not None and kind.full_name == f"{_WELL_KNOWN}Value"
            entry = _Field(field.name, plain, convert, takes_null and not field.is_repeated, oneof)
            self._fields[field.name] = self._fields[field.camelcase_name] = entry
        return self._fields

    def arguments(self, document: Any) -> dict[str, Any]:
        """What the constructor of the message takes. Raises BadDocument."""
        if type(document) is not dict and not isinstance(document, Mapping):
            raise BadDocument(f"expected an object, not {shown(document)}")
        fields = self._fields or self._compile()
        out: dict[str, Any] = {}
        seen = 0
        for key, value in document.items():
            if key not in fields:
                self._unknown(key)
            name, plain, convert, takes_null, oneof = fields[key]
            if type(value) is plain:
                out[name] = value
            elif value is not None or takes_null:
                try:
                    out[name] = convert(value)
                except BadDocument as error:
                    error.under(key)
                    raise
            else:
                continue
            if oneof:
                if seen & oneof:
                    self._refuse_both_of_oneof(out, oneof)
                seen |= oneof
        if len(out) != len(document):
            self._refuse_synonyms(document)
        return out

    def _unknown(self, key: object) -> None:
        near = get_close_matches(str(key), self._fields, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadDocument(f"no field {key!r} in {self._descriptor.full_name}{hint}")

    def _refuse_synonyms(self, document: Mapping[str, Any]) -> None:
        seen: dict[str, str] = {}
        for key in document:
            first = seen.setdefault(self._fields[key].name, key)
            if first != key:
                raise BadDocument(f"{first!r} and {key!r} are the same field")

    def _refuse_both_of_oneof(self, out: dict[str, Any], oneof: int) -> None:
        both = [name for name in out if self._fields[name].oneof == oneof]
        raise BadDocument(f"only one of {', '.join(map(repr, both))} may be set")


class _Type(NamedTuple):
    """A message as the content of an Any."""

    name: str
    message: type[Any]
    convert: Convert


def _made(message: type[Any], made: Any) -> Any:
    return made if type(made) is message else message(**made)


class Plans:
    """The plans for one set of descriptors, and the special forms of the well-known types."""

    def __init__(self, descriptors: Descriptors, *, careful: bool = False) -> None:
        """`careful` plans leave no check to upb: slower, but every refusal has its path."""
        self._descriptors = descriptors
        self._careful = careful
        self._converters: dict[str, Convert] = {}
        self._classes: dict[str, type[Any]] = {}
        self._types: dict[str, _Type] = {}  # by type URL

    def message_class(self, full_name: str) -> type[Any]:
        """The class of a message. Raises UnknownMessage."""
        if full_name not in self._classes:
            self._classes[full_name] = self._descriptors.message_class(full_name)
        return self._classes[full_name]

    def build(self, full_name: str, document: Any) -> Any:
        """The message that `document` describes. Raises UnknownMessage, BadDocument."""
        message = self.message_class(full_name)
        convert = self._converter(message.DESCRIPTOR)
        try:
            return _made(message, convert(document))
        except RecursionError:
            raise BadDocument("nested too deeply") from None
        except (TypeError, ValueError):
            if not self._careful:  # upb refused a number or a text, and does not say which
                Plans(self._descriptors, careful=True).build(full_name, document)
            raise

    def field(self, field: FieldDescriptor) -> tuple[type | None, Convert]:
        """The Python type that upb takes as it is for `field`, and what converts all else."""
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            return None, self._map(kind)
        plain, convert = self._element(field)
        return (None, _list(plain, convert)) if field.is_repeated else (plain, convert)

    def _element(self, field: FieldDescriptor) -> tuple[type | None, Convert]:
        if field.message_type is not None:
            return None, self._converter(field.message_type)
        if field.enum_type is not None:
            return None, enum(field.enum_type)
        plain, convert = SCALARS[field.type]
        return (None if self._careful else plain), convert

    def _map(self, entry: Descriptor) -> Convert:
        key_of = _map_key(entry.fields_by_name["key"])
        plain, convert = self._element(entry.fields_by_name["value"])

        def convert_map(value: Any) -> dict[Any, Any]:
            if type(value) is not dict and not isinstance(value, Mapping):
                raise BadDocument(f"expected an object, not {shown(value)}")
            out = {}
            for key, item in value.items():
                try:
                    out[key_of(key)] = item if type(item) is plain else convert(item)
                except BadDocument as error:
                    error.under(f'["{key}"]')
                    raise
            return out

        return convert_map

    def _converter(self, descriptor: Descriptor) -> Convert:
        name = descriptor.full_name
        if name not in self._converters:
            self._converters[name] = self._special(descriptor) or Plan(descriptor, self).arguments
        return self._converters[name]

    def _special(self, descriptor: Descriptor) -> Convert | None:
        name = descriptor.full_name
        special: dict[str, Convert] = {
            f"{_WELL_KNOWN}Any": self._any,
            f"{_WELL_KNOWN}Duration": duration,
            f"{_WELL_KNOWN}Struct": self._struct,
            f"{_WELL_KNOWN}Value": self._value,
            f"{_WELL_KNOWN}ListValue": self._list_value,
        }
        if name in special:
            return special[name]
        if name in _WRAPPERS:
            _, convert = SCALARS[descriptor.fields_by_name["value"].type]
            return lambda value: {"value": convert(value)}
        if name in (f"{_WELL_KNOWN}Timestamp", f"{_WELL_KNOWN}FieldMask"):
            return lambda value: self._from_text(name, value)
        return None

    def _from_text(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise BadDocument(f"expected a string, not {shown(value)}")
        message = self.message_class(name)()
        try:
            message.FromJsonString(value)
        except ValueError as error:
            raise BadDocument(f"{shown(value)} is not a {name}: {error}") from None
        return message

    def _any(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise BadDocument(f"expected an object with @type, not {shown(value)}")
        if not value:
            return {}
        url, body = self._pack(value)
        return {"type_url": url, "value": body}

    def _pack(self, document: Mapping[str, Any]) -> tuple[str, bytes]:
        """The type URL and the serialized message of a document with `@type`."""
        fields = dict(document)
        url = fields.pop("@type", None)
        type_ = (self._types.get(url) if type(url) is str else None) or self._type(url)
        if type_.name in _SPECIAL_IN_ANY:
            if fields.keys() != {"value"}:
                raise BadDocument(f"{type_.name} in an Any is written under 'value' alone")
            try:
                made = type_.convert(fields["value"])
            except BadDocument as error:
                error.under("value")
                raise
        else:
            made = type_.convert(fields)
        body: bytes = _made(type_.message, made).SerializeToString(deterministic=True)
        return url, body

    def _type(self, url: object) -> _Type:
        if not isinstance(url, str):
            raise BadDocument(f"'@type' must be a type URL, not {shown(url)}")
        prefix, _, name = url.rpartition("/")
        if not prefix:
            raise BadDocument(f"'@type' must be a type URL: type.googleapis.com/{name}?")
        try:
            message = self.message_class(name)
        except UnknownMessage as error:
            raise BadDocument(f"'@type': {error}") from None
        self._types[url] = _Type(name, message, self._converter(message.DESCRIPTOR))
        return self._types[url]

    def _struct(self, value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise BadDocument(f"expected an object, not {shown(value)}")
        fields = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadDocument(f"expected a string as key, not {shown(key)}")
            try:
                fields[key] = self._value(item)
            except BadDocument as error:
                error.under(f'["{key}"]')
                raise
        return self.message_class(f"{_WELL_KNOWN}Struct")(fields=fields)

    def _value(self, value: Any) -> Any:
        message = self.message_class(f"{_WELL_KNOWN}Value")
        kind = type(value)
        if kind is str:
            return message(string_value=text(value) if self._careful else value)
        if kind is bool:
            return message(bool_value=value)
        if kind is int or kind is float:
            return message(number_value=value)
        if value is None:
            return message(null_value=0)
        if isinstance(value, Mapping):
            return message(struct_value=self._struct(value))
        if isinstance(value, list | tuple):
            return message(list_value=self._list_value(value))
        raise BadDocument(f"{shown(value)} is not JSON")

    def _list_value(self, value: Any) -> Any:
        return self.message_class(f"{_WELL_KNOWN}ListValue")(values=_list(None, self._value)(value))


def _list(plain: type | None, convert: Convert) -> Convert:
    def convert_list(value: Any) -> list[Any]:
        if type(value) is not list and not isinstance(value, list | tuple):
            raise BadDocument(f"expected a list, not {shown(value)}")
        try:
            return [item if type(item) is plain else convert(item) for item in value]
        except BadDocument:
            _find_in_list(value, plain, convert)
            raise

    return convert_list


def _find_in_list(value: Any, plain: type | None, convert: Convert) -> None:
    """Convert once more, slowly, to raise BadDocument with the place of the culprit."""
    for place, item in enumerate(value):
        try:
            if type(item) is not plain:
                convert(item)
        except BadDocument as error:
            error.under(f"[{place}]")
            raise


def _map_key(field: FieldDescriptor) -> Convert:
    if field.type == FieldDescriptor.TYPE_BOOL:
        texts = {"true": True, "false": False}

        def boolean(key: Any) -> bool:
            if key not in texts:
                raise BadDocument(f"expected 'true' or 'false' as key, not {shown(key)}")
            return texts[key]

        return boolean
    return SCALARS[field.type][1]
