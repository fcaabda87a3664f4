"""CEL of rate limits as text that Envoy evaluates, and the names that such text may use.

Envoy's rate limit actions and its `%CEL()%` command take text, unlike its matchers.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache

from cel_expr_python import cel

from policy_engine.conditions.cel import reason
from policy_engine.policy import Scope

_ATTRIBUTES = {
    "request.Headers": "request.headers",
    "request.Method": "request.method",
    "request.Path": "request.path",
    "request.Host": "request.host",
    "request.RequestID": "request.id",
    "response.Status": "response.code",
    "response.Headers": "response.headers",
    "response.Size": "response.size",
    "source.Address": "source.address",
}
"""What the expression may say -> Envoy's attribute. Envoy's own names may be said, too."""

_ENVOY = {
    "request": "headers host id method path query size scheme time url_path useragent",
    "response": "code headers size",
    "source": "address port",
}
_RESPONSE = re.compile(r"\bresponse\.")
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<name>\b[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"""
    r"""|(?P<first>(?<=\])\s*\[\s*0\s*\])"""
)


def text(value: str) -> str:
    """`value` as a CEL text, without what ends or begins Envoy's commands."""
    return json.dumps(value, ensure_ascii=True).replace("%", "\\u0025")


def translated(expression: str, scope: Scope) -> str:
    """`expression` in Envoy's names; those of the API become what they stand for."""
    constants = {
        "api.Name": scope.api_name,
        "api.Version": scope.api_version,
        "api.Context": scope.context,
        "api.Id": scope.api_id,
        "route.Path": scope.operation_path or "",
        "route.Method": scope.operation_method or "",
    }
    return _translated(expression, constants)


@lru_cache(maxsize=512)
def checked(expression: str, *, response: bool) -> str:
    """`expression` if Envoy will take it, and it speaks of what is there. Raises ValueError."""
    if "%" in expression:
        raise ValueError("must not hold '%': the router would take it for a command")
    probe = _translated(expression, dict.fromkeys(_API_NAMES, ""))
    try:
        _environment().compile(probe)
    except RuntimeError as error:
        raise ValueError(f"is no CEL: {reason(str(error))}") from None
    bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", '""', probe)
    for operand, known in _ENVOY.items():
        for name in re.findall(rf"\b{operand}\.([A-Za-z_]+)", bare):
            if name not in known.split():
                raise ValueError(f"there is no {operand}.{name}; {operand} has {known}")
    if not response and _RESPONSE.search(bare):
        raise ValueError("speaks of the response, which is not there yet")
    return expression


_API_NAMES = (
    "api.Name",
    "api.Version",
    "api.Context",
    "api.Id",
    "route.Path",
    "route.Method",
)


def _translated(expression: str, constants: Mapping[str, str]) -> str:
    def envoys(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "" if match["first"] else match[0]
        name = match["name"]
        if name in constants:
            return text(constants[name])
        for ours, theirs in _ATTRIBUTES.items():
            if name == ours or name.startswith(f"{ours}."):
                return theirs + name[len(ours) :]
        return name

    return _TOKEN.sub(envoys, expression)


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    anything = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables=dict.fromkeys((*_ENVOY, "metadata"), anything))
