"""The key with which a gateway signs, seen from an upstream that wants to verify."""

import httpx
import jwt

from tests.servers.gateway import gateway


async def test_a_gateway_that_was_given_no_key_publishes_its_own() -> None:
    async with gateway(tier="basic") as running, httpx.AsyncClient() as client:
        answer = await client.get(f"{running.url}/_gateway-health/jwks")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        (key,) = jwt.PyJWKSet.from_json(answer.text).keys
        assert (key.algorithm_name, key.key_type) == ("RS256", "RSA")
        assert (running.folder / "backend-jwt-RS256.pem").exists()
