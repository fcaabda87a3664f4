"""The keys that `jwt-auth` verifies tokens with: where they are, and what they may be."""

import asyncio

import pytest

from policy_engine.identity.token_issuers import KeySource, LocalKeys, RemoteKeys
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import COMPANY
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.jwts import jwt, opened, status, trusting
from tests.policy_engine.tokens import Signer, bearer, key_manager
from tests.servers.http_backend import Answer, http_backend


async def test_keys_are_fetched_and_fetched_again() -> None:
    first, second = Signer("first", "RS256"), Signer("second", "RS256")
    second.issuer = first.issuer
    async with http_backend() as keys:
        published = [first.jwks]
        keys.answer = lambda _: Answer(200, (), published[-1].encode())
        remote = KeySource(remote=RemoteKeys(uri=f"http://127.0.0.1:{keys.port}/jwks?x=1"))
        manager = key_manager("remote", first, jwks=remote)
        system = SystemParameters(key_managers=(manager,), jwks_cache_ttl_s=1)
        async with gateway(Api((jwt(),), system=system)) as running:
            assert await eventually(running, first) == 200
            assert await status(running, bearer(first.token("PS256"))) == 200
            assert await status(running, bearer(first.token("RS512"))) == 401
            assert await status(running, bearer(second.token())) == 401
            assert keys.last.path == "/jwks?x=1"
            published.append(second.jwks)
            assert await eventually(running, second) == 200


async def test_while_keys_cannot_be_fetched_every_token_is_refused() -> None:
    async with http_backend() as keys:
        keys.answer = lambda _: Answer(503)
        remote = KeySource(remote=RemoteKeys(uri=f"http://127.0.0.1:{keys.port}/"))
        manager = key_manager("remote", COMPANY, jwks=remote)
        system = SystemParameters(
            key_managers=(manager,), jwks_fetch_retries=0, jwks_fetch_retry_interval_s=0.1
        )
        async with gateway(Api((jwt(),), system=system)) as running:
            assert await opened(running) == 401
            keys.answer = lambda _: Answer(200, (), COMPANY.jwks.encode())
            assert await eventually(running, COMPANY) == 200


async def eventually(running: Gateway, signer: Signer) -> int:
    async with asyncio.timeout(30):
        while await status(running, bearer(signer.token())) != 200:
            await asyncio.sleep(0.05)
    return 200


def test_keys_may_be_a_jwks_or_pem_and_say_their_algorithm() -> None:
    rsa, curve = Signer("rsa", "RS256"), Signer("ec")
    for text in (rsa.pem, rsa.jwks):
        assert [one["alg"] for one in LocalKeys(inline=text).keys["keys"]] == ["RS256", "PS256"]
    for text in (curve.pem, curve.jwks):
        assert [one["alg"] for one in LocalKeys(inline=text).keys["keys"]] == ["ES256"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "neither a JWKS nor the PEM"),
        ("{", "neither a JWKS nor PEM"),
        ("{}", "no list 'keys'"),
        ('{"keys": []}', "holds no key for RS256, PS256, ES256"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "private or a symmetric key"),
        ('{"keys": [{"kty": "RSA", "alg": "RS512"}]}', "holds no key"),
        ('{"keys": [{"kty": "RSA", "use": "enc"}]}', "holds no key"),
    ],
)
def test_keys_that_cannot_verify_tokens_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LocalKeys(inline=text)


def test_key_managers_must_make_sense() -> None:
    with pytest.raises(ValueError, match="several key managers are called 'one'"):
        trusting(Signer("one"), Signer("one"))
    with pytest.raises(ValueError, match="exactly one of remote and local"):
        KeySource()
    with pytest.raises(ValueError, match="cannot be read"):
        LocalKeys.model_validate({"certificate_path": "/nowhere/key.pem"})
    with pytest.raises(ValueError, match="http or https URL"):
        RemoteKeys(uri="ftp://keys.example/")
