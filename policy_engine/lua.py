"""Envoy's `lua` filter, for what no other filter can say."""

import string
from functools import cache
from hashlib import sha256
from importlib.resources import files

from policy_engine.policy import Document, typed

_LUA = "envoy.extensions.filters.http.lua.v3.Lua"
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_. ")

Value = str | bool | int | None | list["Value"] | dict[str, "Value"]


def lua(source: str) -> Document:
    """A `lua` filter's configuration; the same `source` shares its Lua states."""
    return typed(
        _LUA,
        {
            "default_source_code": {"inline_string": source},
            "clear_route_cache": False,
            "shared_vm_id": f"signalbox-{sha256(source.encode()).hexdigest()[:16]}",
        },
    )


@cache
def program(name: str) -> str:
    """The Lua program `name` of the package without comments and indentation: it is sent often."""
    text = files("policy_engine.policies").joinpath(name).read_text()
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


def constants(**values: Value) -> str:
    """Lua's `local` definitions of `values`."""
    return "".join(f"local {name}={_literal(value)}\n" for name, value in values.items())


def _literal(value: Value) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            escaped = (chr(one) if chr(one) in _PLAIN else f"\\{one:03d}" for one in value.encode())
            return '"' + "".join(escaped) + '"'
        case list():
            return "{" + ",".join(_literal(one) for one in value) + "}"
        case dict():
            pairs = (
                f"{key if key.isidentifier() else f'[{_literal(key)}]'}={_literal(one)}"
                for key, one in value.items()
                if one is not None
            )
            return "{" + ",".join(pairs) + "}"
