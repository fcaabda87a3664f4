"""The key with which the gateway signs what it says about callers, and how upstreams verify it.

Source: RFC 7515 (signatures), RFC 7517 and RFC 7638 (public keys and their names), RFC 7518
(algorithms).
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from policy_engine.system import SigningAlgorithm, SystemParameters

Document = dict[str, Any]

_RSA_BITS_MIN = 2048
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_CURVES: dict[SigningAlgorithm, tuple[type[ec.EllipticCurve], str]] = {
    "ES256": (ec.SECP256R1, "P-256"),
    "ES384": (ec.SECP384R1, "P-384"),
    "ES512": (ec.SECP521R1, "P-521"),
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and how it signs."""

    algorithm: SigningAlgorithm
    public: Document  # a JWK, with its name in `kid`
    _sign: Callable[[bytes], bytes]

    def token(self, claims: Document) -> str:
        """A JWT that says `claims`."""
        header = {"alg": self.algorithm, "kid": self.public["kid"], "typ": "JWT"}
        said = f"{_encoded(orjson.dumps(header))}.{_encoded(orjson.dumps(claims))}"
        return f"{said}.{_encoded(self._sign(said.encode()))}"

    def __repr__(self) -> str:
        return f"SigningKey({self.public['kid']})"


def has_signing_key(system: SystemParameters) -> bool:
    """Whether the gateway has been given a key."""
    return bool(system.backend_jwt_key.get_secret_value() or system.backend_jwt_key_path)


def signing_key(system: SystemParameters) -> SigningKey:
    """The gateway's key. Raises ValueError, saying what is wrong with it."""
    text = system.backend_jwt_key.get_secret_value()
    path = system.backend_jwt_key_path
    if path is not None:
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"backend_jwt_key_path: {path} cannot be read: {error}") from None
    name = "backend_jwt_key" if path is None else "backend_jwt_key_path"
    try:
        return _key(text, system.backend_jwt_algorithm)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def jwks(system: SystemParameters) -> Document:
    """What upstreams verify with; no keys while the gateway has none. Raises ValueError."""
    return {"keys": [signing_key(system).public] if has_signing_key(system) else []}


def new_key(algorithm: SigningAlgorithm) -> str:
    """The PEM of a private key that nobody else has."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm in _CURVES:
        key = ec.generate_private_key(_CURVES[algorithm][0]())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS_MIN)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@lru_cache(maxsize=16)
def _key(text: str, algorithm: SigningAlgorithm) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"is not the PEM of a private key: {error}") from None
    digest = _HASHES[algorithm[2:]]()
    if algorithm in _CURVES:
        curve, name = _CURVES[algorithm]
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curve):
            raise ValueError(f"{algorithm} needs an EC key on curve {name}")
        return _elliptic(key, algorithm, name, digest)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _RSA_BITS_MIN:
        raise ValueError(f"{algorithm} needs an RSA key of at least {_RSA_BITS_MIN} bits")
    return _rsa(key, algorithm, digest)


def _elliptic(
    key: ec.EllipticCurvePrivateKey,
    algorithm: SigningAlgorithm,
    curve: str,
    digest: hashes.HashAlgorithm,
) -> SigningKey:
    size = (key.curve.key_size + 7) // 8
    point = key.public_key().public_numbers()

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    required = {"crv": curve, "kty": "EC", "x": _number(point.x, size), "y": _number(point.y, size)}
    return SigningKey(algorithm, _named(required, algorithm), sign)


def _rsa(
    key: rsa.RSAPrivateKey, algorithm: SigningAlgorithm, digest: hashes.HashAlgorithm
) -> SigningKey:
    numbers = key.public_key().public_numbers()
    exponent = (numbers.e.bit_length() + 7) // 8

    def sign(data: bytes) -> bytes:
        return key.sign(data, padding.PKCS1v15(), digest)

    required = {
        "e": _number(numbers.e, exponent),
        "kty": "RSA",
        "n": _number(numbers.n, (key.key_size + 7) // 8),
    }
    return SigningKey(algorithm, _named(required, algorithm), sign)


def _named(required: Document, algorithm: SigningAlgorithm) -> Document:
    """`required` with its thumbprint as its name: the same key has the same name everywhere."""
    thumbprint = sha256(orjson.dumps(required, option=orjson.OPT_SORT_KEYS)).digest()
    return {**required, "alg": algorithm, "kid": _encoded(thumbprint), "use": "sig"}


def _number(value: int, size: int) -> str:
    return _encoded(value.to_bytes(size, "big"))


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
