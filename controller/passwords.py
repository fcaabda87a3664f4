"""Password hashes as text, by the standard library's scrypt and PBKDF2.

`scrypt$<n>$<r>$<p>$<salt>$<digest>` and `pbkdf2_sha256$<iterations>$<salt>$<digest>`; salt and
digest in base64. What begins otherwise is a plain password.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Protocol

from controller.errors import InvalidPasswordHash

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1  # 16 MiB, some 40 ms
_SALT_BYTES = 16
_MAX_SCRYPT_MEMORY_BYTES = 1 << 28


class Secret(Protocol):
    """What a presented password is compared with."""

    @property
    def slow(self) -> bool:
        """Whether a comparison takes long enough to be kept off the event loop."""
        ...

    def matches(self, password: bytes) -> bool:
        """Whether `password` is the one; the time does not depend on where it differs."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A password as it is."""

    password: bytes
    slow: bool = False

    def matches(self, password: bytes) -> bool:
        """See Secret; digests are compared, so that the length is not told either."""
        return hmac.compare_digest(
            hashlib.sha256(password).digest(), hashlib.sha256(self.password).digest()
        )


@dataclass(frozen=True, slots=True)
class Scrypt:
    """RFC 7914."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes
    slow: bool = True

    def matches(self, password: bytes) -> bool:
        """See Secret."""
        return hmac.compare_digest(self.digest, self.of(password))

    def of(self, password: bytes) -> bytes:
        """The digest of `password` with these parameters."""
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=_MAX_SCRYPT_MEMORY_BYTES,
            dklen=len(self.digest),
        )


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """RFC 8018 with HMAC-SHA-256."""

    iterations: int
    salt: bytes
    digest: bytes
    slow: bool = True

    def matches(self, password: bytes) -> bool:
        """See Secret."""
        presented = hashlib.pbkdf2_hmac("sha256", password, self.salt, self.iterations)
        return hmac.compare_digest(self.digest, presented)


def hash_password(password: str) -> str:
    """`password` as a scrypt hash for the configuration."""
    salt = secrets.token_bytes(_SALT_BYTES)
    parameters = Scrypt(_SCRYPT_N, _SCRYPT_R, _SCRYPT_P, salt, bytes(32))
    digest = parameters.of(password.encode())
    encoded = "$".join(base64.b64encode(part).decode() for part in (salt, digest))
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${encoded}"


def secret(user: str, text: str) -> Secret:
    """What `text` in the configuration stands for. Raises InvalidPasswordHash."""
    try:
        match text.split("$"):
            case ["scrypt", n, r, p, salt, digest]:
                found: Secret = Scrypt(int(n), int(r), int(p), _bytes(salt), _bytes(digest))
                found.matches(b"")  # refuses parameters that scrypt does not take
                return found
            case ["pbkdf2_sha256", iterations, salt, digest]:
                if int(iterations) < 1 or len(_bytes(digest)) != hashlib.sha256().digest_size:
                    raise InvalidPasswordHash(user, "no iterations, or a digest of a wrong length")
                return Pbkdf2(int(iterations), _bytes(salt), _bytes(digest))
            case ["scrypt" | "pbkdf2_sha256", *_]:
                raise InvalidPasswordHash(user, "it does not have the parts of its kind")
            case _:
                return Plain(text.encode())
    except (ValueError, OverflowError) as error:
        raise InvalidPasswordHash(user, str(error)) from error


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
