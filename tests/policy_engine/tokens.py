"""JSON Web Tokens, signed by hand with real keys."""

import json
import time
from base64 import urlsafe_b64encode
from typing import Any, Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from policy_engine.identity.keys import key_set
from policy_engine.identity.token_issuers import KeyManager, KeySource, LocalKeys

Algorithm = Literal["RS256", "PS256", "ES256", "RS512", "none"]


def encoded(content: bytes | dict[str, Any]) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """Somebody who signs tokens."""

    def __init__(self, kid: str, algorithm: Algorithm = "ES256") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.issuer = f"https://{kid}.example"
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    @property
    def pem(self) -> str:
        """The public key."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    @property
    def jwks(self) -> str:
        """The public key as a server publishes it: with an id, without an algorithm."""
        (key, *_) = key_set(self.pem)["keys"]
        del key["alg"]
        return json.dumps({"keys": [key | {"kid": self.kid}]})

    def token(self, algorithm: Algorithm | None = None, **claims: Any) -> str:
        """A token that is good for a minute, unless `claims` say otherwise (None: left out)."""
        now = int(time.time())
        whole = {"iss": self.issuer, "sub": "ann", "exp": now + 86_400} | claims
        header = {"alg": algorithm or self.algorithm, "typ": "JWT", "kid": self.kid}
        payload = {name: value for name, value in whole.items() if value is not None}
        signed = f"{encoded(header)}.{encoded(payload)}"
        return f"{signed}.{encoded(self._signature(signed.encode(), header['alg']))}"

    def _signature(self, data: bytes, algorithm: str) -> bytes:
        if algorithm == "none":
            return b""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if algorithm == "PS256":
            return self._key.sign(
                data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
            )
        digest = hashes.SHA512() if algorithm == "RS512" else hashes.SHA256()
        return self._key.sign(data, padding.PKCS1v15(), digest)


def key_manager(name: str, signer: Signer, **fields: Any) -> KeyManager:
    """Whoever `signer` signs for, by a local key."""
    source = KeySource(local=LocalKeys(inline=signer.pem))
    return KeyManager(**{"name": name, "issuer": signer.issuer, "jwks": source} | fields)


def bearer(token: str) -> dict[str, str]:
    """The header that presents `token`."""
    return {"Authorization": f"Bearer {token}"}
