"""What callers are told of limits, and who is believed.

Each of Envoy's limiters adds headers of its own; responses meet the last filter of a chain first,
and `%RESP()%` is the first value of a header. So of several policies the innermost is believed, and
an upstream is not. Of several limiters of one policy, the one with the fewest left is.
"""

from collections.abc import Sequence

from policy_engine.lua import constants, lua, program
from policy_engine.parameters.headers import header_mutation
from policy_engine.policy import Document, HttpFilter, Scope, literal

X_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
TOLD = frozenset((*X_HEADERS, "x-ratelimit-quota", "ratelimit-policy", "ratelimit"))
"""Response headers that limits speak in; what an upstream says in them is taken off."""


def one_voice(
    filters: Sequence[HttpFilter], name: str, scope: Scope, telling: Sequence[Document] = ()
) -> tuple[HttpFilter, ...]:
    """`filters` of limiters of policy `name`, with what makes one voice of them.

    `telling`: further edits of the response, behind those of the limiters.
    """
    edits = [*telling]
    if len(filters) > 1 or _more_behind(name, scope):
        edits = [_first_only(one) for one in X_HEADERS] + edits
    if not edits:
        return tuple(filters)
    return (HttpFilter(scope.unique(f"{name}.told"), header_mutation(response=edits)), *filters)


def strictest(
    filters: Sequence[HttpFilter],
    name: str,
    scope: Scope,
    *,
    policy: str | None,
    names: Sequence[str] | None,
    keep_x: bool,
) -> tuple[HttpFilter, ...]:
    """`filters`, limiters of policy `name` with one limit each, and what tells of the strictest.

    `policy` is the value of `RateLimit-Policy`, None for neither header of the draft; `names` are
    those of the filters for `RateLimit`, None where a request may pass one of them unseen.
    """
    given = constants(POLICY=policy, NAMES=None if names is None else list(names), KEEP=keep_x)
    program_ = lua(f"{given}{program('strictest_limit.lua')}")
    return (HttpFilter(scope.unique(f"{name}.told"), program_), *filters)


def within_quotes(name: str) -> str:
    """A name as it stands between the quotes of a structured field (RFC 9651, section 3.3.3)."""
    return name.replace("\\", "\\\\").replace('"', '\\"')


def refused_by(quota: str, scope: Scope) -> list[Document]:
    """What a limiter of Envoy's adds to its refusals."""
    if not scope.system.ratelimit_x_headers:
        return []
    return [{"header": {"key": "x-ratelimit-quota", "value": literal(quota)}}]


def _more_behind(name: str, scope: Scope) -> bool:
    """Whether another limiter may stand between this one and the upstream."""
    if scope.repeats(name):
        return True
    own = scope.attached.index(name) if name in scope.attached else -1
    behind = {*scope.attached[own + 1 :], *scope.below}
    return any("ratelimit" in one or one == "subscription-validation" for one in behind)


def ietf(policy: str, only: str | None, *, keep_x: bool) -> list[Document]:
    """Edits that tell what Envoy's limiter says in `RateLimit` and `RateLimit-Policy`.

    `policy` is the value of `RateLimit-Policy`, a format string; `only` the name of the limit if
    there is one only: of several, Envoy does not say whose numbers it tells.
    Source: draft-ietf-httpapi-ratelimit-headers-10.
    """
    made = _if_limited("ratelimit-policy", policy)
    if only is not None:
        state = "%RESP(x-ratelimit-remaining)%;t=%RESP(x-ratelimit-reset)%"
        made += _if_limited("ratelimit", f'"{literal(only)}";r={state}')
    return made if keep_x else [*made, *({"remove": one} for one in X_HEADERS)]


def _if_limited(name: str, value: str) -> list[Document]:
    """Edits that say so where the limiter has looked at the request.

    Answers of other policies pass here too. What is empty is not put: only where the limiter has
    left a number there is something to overwrite.
    """
    return [
        _put(name, "%RESP(x-ratelimit-remaining)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        _put(name, value, "OVERWRITE_IF_EXISTS"),
    ]


def _first_only(name: str) -> Document:
    return _put(name, f"%RESP({name})%", "OVERWRITE_IF_EXISTS")


def _put(name: str, value: str, action: str) -> Document:
    return {"append": {"header": {"key": name, "value": value}, "append_action": action}}
