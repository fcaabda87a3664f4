"""Certificates of callers and servers, made for one test."""

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_PARTS = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME}


def name(**parts: str) -> x509.Name:
    """A subject, in the order in which a certificate holds it."""
    return x509.Name([x509.NameAttribute(_PARTS[key], value) for key, value in parts.items()])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(_PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256, lower-case hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass
class Authority:
    """Somebody who signs certificates."""

    subject: x509.Name = field(default_factory=lambda: name(CN="authority"))
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._signed(self.subject, self.key, (), authority=True).pem

    def issue(
        self, subject: x509.Name, *names: x509.GeneralName, expired: bool = False
    ) -> Identity:
        """A certificate for `subject` with these alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._signed(subject, key, names, expired=expired)

    def revocations(self, *revoked: Identity) -> str:
        """Its list of what is revoked, PEM."""
        day = datetime.timedelta(days=1)
        made = x509.CertificateRevocationListBuilder().issuer_name(self.subject)
        made = made.last_update(_now() - day).next_update(_now() + day)
        for one in revoked:
            number = one.certificate.serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number)
            made = made.add_revoked_certificate(entry.revocation_date(_now() - day).build())
        return made.sign(self.key, hashes.SHA256()).public_bytes(_PEM).decode()

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        authority: bool = False,
        expired: bool = False,
    ) -> Identity:
        end = _now() + datetime.timedelta(days=-1 if expired else 1)
        usage = dict.fromkeys(("digital_signature", "content_commitment"), False)
        usage |= dict.fromkeys(("key_encipherment", "data_encipherment"), False)
        usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
        usage |= {"key_cert_sign": authority, "crl_sign": authority}
        usage["digital_signature"] = not authority
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - datetime.timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Identity(made.sign(self.key, hashes.SHA256()), key)


def server_identity() -> Identity:
    """For 127.0.0.1."""
    local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return Authority().issue(name(CN="gateway"), local)


def presenting(identity: Identity | None) -> ssl.SSLContext:
    """How a caller connects who shows `identity` and trusts any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "identity.pem"
            file.write_text(identity.pem + identity.key_pem)
            context.load_cert_chain(file)
    return context
