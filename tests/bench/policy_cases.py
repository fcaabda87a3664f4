"""What `tests.bench.catalogue` measures of each policy, and the servers that policies need."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.bench.load import upstream
from tests.policy_engine.attached import COMPANY, basic
from tests.policy_engine.tokens import bearer

KEYS = 1_000
MANY = 1_000_000_000
ORIGIN = "https://app.example.com"
PROMPT = "Tell me in plain words how the weather will be in the mountains tomorrow. " * 11
BODY = json.dumps({"model": "small", "messages": [{"role": "user", "content": PROMPT}]})
SUBSCRIPTION = "correct-horse-battery-staple-and-more"

Ref = dict[str, Any]


def ref(name: str, /, **params: Any) -> Ref:
    """A policy as an API's document attaches it."""
    return {"name": name, "params": params}


@dataclass(slots=True)
class Environment:
    """What surrounds the gateway while it is measured."""

    settings: dict[str, str]
    interceptor: str  # URL of a server that changes nothing
    key: str = ""  # a live key of the API, known once it exists

    def filled(self, policies: tuple[Ref, ...]) -> list[Ref]:
        """`policies` with the servers of this run."""
        text = json.dumps(policies).replace("{interceptor}", self.interceptor)
        return list(json.loads(text))

    async def prepare(self, api: httpx.AsyncClient, name: str) -> None:
        """Keys for the API, and a subscription to it."""
        asked = {"apiId": name, "subscriptionToken": SUBSCRIPTION}
        (await api.post("/subscriptions", json=asked)).raise_for_status()
        for number in range(KEYS):
            answer = await api.post(f"/rest-apis/{name}/api-keys", json={"name": f"key-{number}"})
            answer.raise_for_status()
            self.key = answer.json()["apiKey"]["apiKey"]


@asynccontextmanager
async def environment() -> AsyncIterator[Environment]:
    """Settings of the gateway, and the servers it calls."""
    known = json.dumps({"active": True, "sub": "ann", "exp": 4_000_000_000})
    with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder:
        async with upstream(known) as introspection, upstream("{}") as interceptor:
            config = Path(folder) / "signalbox.toml"
            jwks = json.dumps(COMPANY.pem)
            config.write_text(
                "[policies]\n"
                f'key_managers = [{{name = "company", issuer = "{COMPANY.issuer}",'
                f" jwks = {{local = {{inline = {jwks}}}}}}}]\n"
                'introspection_providers = [{name = "company", introspection = '
                f'{{uri = "{introspection}/", client_id = "gateway", client_secret = "s"}}}}]\n'
                "introspection_cache_ttl_s = 3600\n"
            )
            yield Environment(
                {
                    "SIGNALBOX_CONFIG": str(config),
                    "SIGNALBOX_ENVOY_CONCURRENCY": "1",
                    "SIGNALBOX_API_KEYS_PER_USER_PER_API": str(2 * KEYS),
                },
                interceptor,
            )


@dataclass(frozen=True, slots=True)
class Case:
    """One operation of the API that is measured."""

    policy: str  # whose row it is
    title: str
    policies: tuple[Ref, ...]
    presented: dict[str, str] = field(default_factory=dict)  # request headers
    body: str | None = None  # of a POST, instead of a GET
    where: str = "Envoy"
    query: str = ""
    refuses: bool = False  # answers other than 2xx and 3xx are what is measured

    def path(self, path: str, environment: Environment) -> str:
        """With the query."""
        return path + self.query.replace("{key}", environment.key)

    def headers(self, environment: Environment) -> tuple[str, ...]:
        """For wrk."""
        return tuple(
            f"{name}: {value.replace('{key}', environment.key)}"
            for name, value in self.presented.items()
        )


_CORS = ref("cors", allowedOrigins=[ORIGIN])
_KEY = ref("api-key-auth", **{"key": "API-Key", "in": "header"})
_LIMIT = ref("basic-ratelimit", limits=[{"requests": MANY, "duration": "1s"}])
_TEAM = ref("set-headers", request={"headers": [{"name": "X-Team", "value": "weather"}]})
_TOKEN = bearer(
    COMPANY.token(aud="orders", scope="orders:read", realm_access={"roles": ["clerk"]}, team="a")
)
_SIGNED = ref(
    "aws-authentication",
    region="eu-west-1",
    service="execute-api",
    accessKeyId="AKIAIOSFODNN7EXAMPLE",
    secretAccessKey="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)
_LOGIN = {
    "authorizationEndpoint": "http://127.0.0.1:9/authorize",
    "tokenEndpoint": "http://127.0.0.1:9/token",
    "clientId": "orders",
    "clientSecret": "correct horse battery staple",
}


_DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Chat", "version": "1.0"},
    "paths": {
        "/{path}": {
            "parameters": [
                {"name": "path", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["model", "messages"],
                                "properties": {
                                    "model": {"type": "string"},
                                    "messages": {"type": "array", "maxItems": 50},
                                },
                            }
                        }
                    }
                },
                "responses": {"200": {"description": "An answer."}},
            },
        }
    },
}


def _one(policy: Ref, title: str = "", **more: Any) -> Case:
    return Case(policy["name"], title or policy["name"], (policy,), **more)


CASES: tuple[Case, ...] = (
    _one(_KEY, f"api-key-auth, {KEYS} keys", presented={"API-Key": "{key}"}),
    _one(
        ref("api-key-auth", **{"key": "key", "in": "query"}),
        f"api-key-auth in the query, {KEYS} keys",
        query="?key={key}",
    ),
    _one(
        ref("basic-auth", username="shop", password="correct horse"),
        presented={"Authorization": basic("shop", "correct horse")},
    ),
    _one(ref("jwt-auth", issuers=["company"]), presented=_TOKEN),
    _one(
        ref(
            "jwt-auth",
            issuers=["company"],
            scopes={"anyOf": ["orders:read"]},
            claims={"allOf": [{"claim": "realm_access.roles", "values": ["clerk"]}]},
        ),
        "jwt-auth, scope and claim",
        presented=_TOKEN,
    ),
    _one(_CORS, presented={"Origin": ORIGIN}),
    _one(ref("cors", allowedOrigins=["*"]), "cors, any origin", presented={"Origin": ORIGIN}),
    _one(ref("csrf", additionalOrigins=["app.example.com"]), presented={"Origin": ORIGIN}),
    _one(ref("ip-filter", allow=["127.0.0.0/8"])),
    _one(ref("rbac", rules=[{"methods": ["GET"]}])),
    _one(ref("rbac", condition="request.method == 'GET'"), "rbac, CEL"),
    _one(_LIMIT),
    _one(
        ref(
            "basic-ratelimit",
            limits=[{"requests": MANY, "duration": f"{number}s"} for number in (1, 2, 3)],
        ),
        "basic-ratelimit, 3 limits",
    ),
    _one(_TEAM),
    _one(ref("remove-headers", response={"headers": [{"name": "X-Powered-By"}]})),
    _one(ref("host-rewrite", host="orders.internal.example.com")),
    _one(
        ref(
            "request-rewrite",
            pathRewrite={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"},
        )
    ),
    _one(ref("dynamic-endpoint", targetUpstream="other")),
    _one(ref("traffic-split", targets=[{"upstream": "other", "weight": 1}])),
    _one(ref("mirror", targetUpstream="other", percentage=10.0), "mirror, a tenth"),
    _one(ref("retry", attempts=2)),
    _one(ref("respond", body="x" * 100), "respond (no upstream)"),
    _one(ref("redirect", hostname="orders.example.com"), "redirect (no upstream)"),
    _one(ref("maintenance-mode"), "maintenance-mode (no upstream)", refuses=True),
    _one(ref("fault-injection", delay={"duration": "1ms", "percentage": 0.01})),
    _one(ref("bandwidth-limit", kibibytesPerSecond=100_000_000)),
    _one(
        ref("compression", algorithms=["gzip"], minBytes=30),
        presented={"Accept-Encoding": "gzip"},
    ),
    _one(ref("request-size-limit", maxBytes=1 << 20), body=BODY),
    _one(
        ref("circuit-breaker", maxConnections=1000, outlierDetection={"consecutive5xx": 5}),
    ),
    _one(_SIGNED),
    _one(_SIGNED, "aws-authentication, with a body", body=BODY),
    _one(ref("response-cache", ttl="1h"), "response-cache, from memory"),
    _one(ref("response-cache", ttl="1h", maxBodyBytes=1), "response-cache, not kept"),
    _one(ref("oidc-login", **_LOGIN), "oidc-login, sent away to log in"),
    *(
        _one(
            ref(
                "advanced-ratelimit",
                backend=backend,
                quotas=[
                    {
                        "limits": [{"limit": MANY, "duration": "1m"}],
                        "keyExtraction": [{"type": "header", "key": "X-User"}],
                    }
                ],
            ),
            f"advanced-ratelimit per user, {backend}",
            presented={"X-User": "ann"},
            where=where,
        )
        for backend, where in (
            ("memory", "Envoy"),
            ("redis-local-async", "Envoy"),
            ("redis", "rate limiter"),
        )
    ),
    _one(ref("subscription-validation"), presented={"Subscription-Key": SUBSCRIPTION}),
    _one(ref("analytics-header-filter", request={"mode": "deny", "headers": ["User-Agent"]})),
    _one(
        ref("opaque-token-auth"),
        presented={"Authorization": "Bearer an-opaque-token"},
        where="Python",
    ),
    Case(
        "backend-jwt",
        "backend-jwt behind api-key-auth",
        (_KEY, ref("backend-jwt")),
        presented={"API-Key": "{key}"},
        where="Python",
    ),
    _one(ref("log-message", request={"headers": True}), where="Python"),
    _one(
        ref("interceptor-service", endpoint="{interceptor}", request={"includeRequestBody": False}),
        "interceptor-service, headers of requests",
        where="Python",
    ),
    *(
        _one(policy, where="Python", body=BODY)
        for policy in (
            ref("regex-guardrail", request={"regex": "weather"}),
            ref("word-count-guardrail", request={"min": 1, "max": 500}),
            ref("sentence-count-guardrail", request={"min": 1, "max": 50}),
            ref("content-length-guardrail", request={"min": 1, "max": 16384}),
            ref(
                "json-schema-guardrail",
                request={"jsonPath": "", "schema": '{"type":"object","required":["model"]}'},
            ),
            ref("url-guardrail", request={"onlyDNS": True}),
            ref("pii-masking-regex", email=True, phone=True),
            ref("json-xml-mediator", downstreamPayloadFormat="json", upstreamPayloadFormat="xml"),
            ref("openapi-validation", document=_DOCUMENT, undescribed="pass"),
        )
    ),
    Case(
        "regex-guardrail",
        "three guardrails in one hop",
        (
            ref("regex-guardrail", request={"regex": "weather"}),
            ref("word-count-guardrail", request={"min": 1, "max": 500}),
            ref("content-length-guardrail", request={"min": 1, "max": 16384}),
        ),
        where="Python",
        body=BODY,
    ),
    _one(
        ref("log-message", request={"payload": True}),
        "log-message, bodies",
        where="Python",
        body=BODY,
    ),
    Case(
        "set-headers",
        "set-headers where a condition holds",
        (_TEAM | {"executionCondition": "request.Method == 'GET'"},),
    ),
    Case(
        "set-headers",
        "set-headers where a condition does not hold",
        (_TEAM | {"executionCondition": "request.Method == 'PUT'"},),
    ),
    Case(
        "set-headers",
        "cors + key + limit + header edit",
        (_CORS, _KEY, _LIMIT, _TEAM),
        presented={"Origin": ORIGIN, "API-Key": "{key}"},
    ),
)

NOT_MEASURED: dict[str, str] = {
    "mtls-client-identity": "the load is plain HTTP, and so has no certificates.",
}
"""Policies that have no case, and why."""
