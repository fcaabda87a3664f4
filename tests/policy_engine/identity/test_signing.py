import json

import jwt
import pytest
from pydantic import ValidationError

from policy_engine.identity.signing import jwks, new_key, signing_key
from policy_engine.system import SigningAlgorithm, SystemParameters

ALGORITHMS: tuple[SigningAlgorithm, ...] = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_is_verified_with_the_published_key(algorithm: SigningAlgorithm) -> None:
    system = SystemParameters(backend_jwt_key=new_key(algorithm), backend_jwt_algorithm=algorithm)
    token = signing_key(system).token({"sub": "ann", "n": 1})
    (published,) = jwt.PyJWKSet.from_json(json.dumps(jwks(system))).keys
    assert jwt.get_unverified_header(token) == {
        "alg": algorithm,
        "kid": published.key_id,
        "typ": "JWT",
    }
    assert jwt.decode(token, published, algorithms=[algorithm]) == {"sub": "ann", "n": 1}


def test_the_private_key_is_neither_published_nor_shown() -> None:
    system = SystemParameters(backend_jwt_key=new_key("RS256"))
    assert set(jwks(system)["keys"][0]) == {"kty", "n", "e", "alg", "kid", "use"}
    assert repr(signing_key(system)) == f"SigningKey({jwks(system)['keys'][0]['kid']})"
    assert "PRIVATE" not in repr(system)


def test_without_a_key_nothing_is_published() -> None:
    assert jwks(SystemParameters()) == {"keys": []}


@pytest.mark.parametrize(
    ("key", "algorithm", "reason"),
    [
        ("nonsense", "RS256", "backend_jwt_key: is not the PEM of a private key"),
        (new_key("ES256"), "RS256", "RS256 needs an RSA key of at least 2048 bits"),
        (new_key("ES256"), "ES384", "ES384 needs an EC key on curve P-384"),
        (new_key("RS256"), "ES256", "ES256 needs an EC key on curve P-256"),
    ],
)
def test_a_key_that_cannot_be_used_is_a_wrong_setting(
    key: str, algorithm: SigningAlgorithm, reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        SystemParameters(backend_jwt_key=key, backend_jwt_algorithm=algorithm)


def test_a_key_comes_from_a_file_or_a_setting_but_not_both() -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        SystemParameters(backend_jwt_key_path="/nowhere/key.pem")
    with pytest.raises(ValidationError, match="only one of"):
        SystemParameters(backend_jwt_key=new_key("ES256"), backend_jwt_key_path="/nowhere/key.pem")
