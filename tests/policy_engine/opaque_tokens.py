"""Opaque tokens, who has issued them, and a gateway that asks."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from policy_engine.hooks import Answer, BodyVerdict, Exchange, Outside, PythonPolicy
from policy_engine.policies.opaque_token_auth import OpaqueTokenAuth
from policy_engine.policy import Scope
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import exchange, result
from tests.servers.http_backend import Answer as Said
from tests.servers.http_backend import HttpBackend, Received

LIVE: dict[str, Any] = {
    "active": True,
    "sub": "ann",
    "client_id": "shop",
    "username": "Ann Ä",
    "scope": "orders:read orders:write",
    "aud": ["orders", "billing"],
    "tenant": "acme",
    "realm": {"roles": ["clerk"], "level": 3},
}
TOKENS = {"good": LIVE, "dead": {"active": False}, "other": LIVE | {"sub": "bob"}}


def provider(said: dict[str, dict[str, Any]] = TOKENS) -> Callable[[Received], Said]:
    """An introspection server that knows these tokens."""

    def answer(request: Received) -> Said:
        assert (request.method, request.path) == ("POST", "/introspect")
        (token,) = parse_qs(request.body.decode())["token"]
        return Said(body=json.dumps(said.get(token, {"active": False})).encode())

    return answer


def asking(*backends: HttpBackend, **fields: Any) -> SystemParameters:
    """A gateway that trusts them, as `company`, `company-2`, ..."""
    providers = [
        {
            "name": "company" if not number else f"company-{number + 1}",
            "issuer": f"https://idp-{number + 1}.example",
            "introspection": {
                "uri": f"{one.url}/introspect",
                "client_id": "gateway",
                "client_secret": "s:ecret",
            },
        }
        for number, one in enumerate(backends)
    ]
    quick = {"introspection_retry_interval_s": 0.01}
    return SystemParameters.model_validate(quick | {"introspection_providers": providers} | fields)


def made(**params: Any) -> OpaqueTokenAuth:
    found = policy("opaque-token-auth", **params)
    assert isinstance(found, OpaqueTokenAuth)
    return found


async def seen(
    by: PythonPolicy, outside: Outside, system: SystemParameters, *tokens: str, **headers: str
) -> tuple[Exchange, BodyVerdict]:
    """The request with this token after the policy, and what the policy said."""
    given = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
    request = exchange(given | headers, outside=outside, system=system)
    return request, await result(by.on_request_headers(request))


def status(verdict: BodyVerdict) -> int:
    return verdict.status if isinstance(verdict, Answer) else 200


def challenge(verdict: BodyVerdict) -> str:
    assert isinstance(verdict, Answer)
    assert json.loads(verdict.body) == {
        "error": "Unauthorized",
        "message": "Authentication failed",
    }
    return dict(verdict.headers)["www-authenticate"]


def scope(system: SystemParameters) -> Scope:
    return Scope("api", "orders", "Orders", "v1", "/orders", system=system)
