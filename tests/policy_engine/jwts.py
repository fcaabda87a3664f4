"""A gateway that trusts JWTs, and what becomes of them there."""

from collections.abc import Mapping
from typing import Any

from policy_engine.policy import Policy
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import COMPANY, policy
from tests.policy_engine.gateway import Gateway
from tests.policy_engine.tokens import Signer, bearer, key_manager

REFUSED = {"error": "Unauthorized", "message": "Authentication failed"}
FORWARDED = "x-forwarded-authorization"


def jwt(**params: Any) -> Policy:
    return policy("jwt-auth", **params)


def trusting(*signers: Signer, **fields: Any) -> SystemParameters:
    managers = tuple(key_manager(one.kid, one) for one in signers)
    return SystemParameters(key_managers=managers, **fields)


async def status(running: Gateway, headers: Mapping[str, str], path: str = "/") -> int:
    answer = await running.client.get(path, headers=headers)
    if answer.status_code == 401:
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
        (challenge,) = answer.headers.get_list("www-authenticate")
        assert challenge.startswith("Bearer")
    return answer.status_code


async def opened(running: Gateway, path: str = "/", **claims: Any) -> int:
    return await status(running, bearer(COMPANY.token(**claims)), path)
