"""Envoy's `lua` filter, for what no other filter can say."""

from hashlib import sha256

from policy_engine.policy import Document, typed

_LUA = "envoy.extensions.filters.http.lua.v3.Lua"


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
