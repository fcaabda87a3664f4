"""Public keys that verify tokens, as JSON Web Key Sets.

Source: RFC 7517, RFC 7518 section 6.
"""

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

Document = dict[str, Any]

ALGORITHMS = ("RS256", "PS256", "ES256")
"""Of the signatures that are accepted."""

_OF_RSA = ("RS256", "PS256")
_P256_BYTES = 32


def key_set(text: str) -> Document:
    """The key set that `text` is: a JWKS, or the PEM of public keys or certificates.

    Each key says its algorithm, so that no other is accepted; keys for other uses and algorithms
    are left out. Raises ValueError when nothing is left.
    """
    found = _jwks(text) if text.lstrip().startswith("{") else _pem(text)
    keys = [{**key, "alg": algorithm} for key in found for algorithm in _algorithms(key)]
    if not keys:
        raise ValueError(f"holds no key for {', '.join(ALGORITHMS)}")
    return {"keys": keys}


def _algorithms(key: Document) -> tuple[str, ...]:
    if key.get("use", "sig") != "sig" or "verify" not in key.get("key_ops", ["verify"]):
        return ()
    fit: tuple[str, ...] = ()
    if key.get("kty") == "RSA":
        fit = _OF_RSA
    elif key.get("kty") == "EC" and key.get("crv") == "P-256":
        fit = ("ES256",)
    return fit if "alg" not in key else tuple(one for one in fit if one == key["alg"])


def _jwks(text: str) -> list[Document]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is neither a JWKS nor PEM: {error}") from None
    keys = document.get("keys")
    if not isinstance(keys, list) or not all(isinstance(one, dict) for one in keys):
        raise ValueError("is no JWKS: it has no list 'keys'")
    if any("d" in one or "k" in one for one in keys):
        raise ValueError("holds a private or a symmetric key; only public keys belong here")
    return keys


def _pem(text: str) -> list[Document]:
    data = text.encode()
    keys: list[object]
    try:
        if b"BEGIN CERTIFICATE" in data:
            keys = [one.public_key() for one in x509.load_pem_x509_certificates(data)]
        else:
            keys = [load_pem_public_key(data)]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"is neither a JWKS nor the PEM of a public key: {error}") from None
    return [_jwk(key) for key in keys]


def _jwk(key: object) -> Document:
    match key:
        case RSAPublicKey():
            numbers = key.public_numbers()
            size = (key.key_size + 7) // 8
            return {"kty": "RSA", "n": _number(numbers.n, size), "e": _number(numbers.e, 3)}
        case EllipticCurvePublicKey(curve=SECP256R1()):
            point = key.public_numbers()
            x, y = (_number(one, _P256_BYTES) for one in (point.x, point.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    return {}


def _number(value: int, size: int) -> str:
    return urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()
