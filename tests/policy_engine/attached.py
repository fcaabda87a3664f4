"""Short words for tests that attach policies."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import load
from policy_engine.identity.signing import new_key
from policy_engine.identity.token_issuers import Introspection, IntrospectionProvider
from policy_engine.policy import Credential, Document, Policy
from policy_engine.refusals import local_reply_config
from policy_engine.system import SystemParameters
from tests.policy_engine.tokens import Signer, key_manager

COMPANY = Signer("company-1")
AUTHORITIES = Path(__file__).parent / "policies" / "golden" / "authorities.pem"
SYSTEM = SystemParameters(
    key_managers=(key_manager("company", COMPANY),),
    client_authorities_file=AUTHORITIES,
    introspection_providers=(
        IntrospectionProvider(
            name="company", introspection=Introspection(uri="http://idp.example")
        ),
    ),
    backend_jwt_key=SecretStr(new_key("ES256")),
    backend_jwt_algorithm="ES256",
)
CATALOGUE = load((), system=SYSTEM)
LOCAL_REPLY: Document = local_reply_config(CATALOGUE.refusals())

UNAUTHORIZED = {"error": "Unauthorized", "message": "Valid API key required"}
TOO_MANY = {
    "error": "Too Many Requests",
    "message": "Rate limit exceeded. Please try again later.",
}


def policy(name: str, /, **params: Any) -> Policy:
    """The policy of that name with these parameters."""
    return CATALOGUE.parse(PolicyRef(name=name, params=params))


def key_policy(key: str = "API-Key", where: str = "header", **params: Any) -> Policy:
    """api-key-auth."""
    return policy("api-key-auth", **{"key": key, "in": where, **params})


def limit(requests: int, duration: str = "1h") -> Policy:
    """basic-ratelimit with one limit."""
    return policy("basic-ratelimit", limits=[{"requests": requests, "duration": duration}])


def credential(
    key: str | bytes, application: str = "Shop", issuer: str | None = None
) -> Credential:
    """What the gateway knows of a key."""
    content = key.encode() if isinstance(key, str) else key
    return Credential(sha256(content).hexdigest(), application, issuer)


def basic(username: str, password: str) -> str:
    """The Authorization header of HTTP basic authentication (RFC 7617)."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()
