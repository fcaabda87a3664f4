"""Certificates for one test: an authority, and a pair for each side of a connection."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([local]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def development_authority() -> str:
    """A self-signed certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _certificate("authority", key, "authority", key).public_bytes(_PEM).decode()


@dataclass(frozen=True, slots=True)
class Keys:
    """PEM files."""

    authority: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path

    def client_socket(self) -> dict[str, Any]:
        """Envoy's transport socket with the client's certificate."""
        tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        pair = {
            "certificate_chain": {"filename": str(self.client_certificate)},
            "private_key": {"filename": str(self.client_key)},
        }
        return {
            "name": "tls",
            "typed_config": {
                "@type": tls,
                "common_tls_context": {
                    "tls_certificates": [pair],
                    "validation_context": {"trusted_ca": {"filename": str(self.authority)}},
                    "alpn_protocols": ["h2"],
                },
            },
        }


def authority_and_pairs(folder: Path) -> Keys:
    """An authority, and a certificate of it for the server and for the client."""
    root = ec.generate_private_key(ec.SECP256R1())
    names = ("authority", "server_certificate", "server_key", "client_certificate", "client_key")
    files = {name: folder / f"{name}.pem" for name in names}
    files["authority"].write_bytes(
        _certificate("authority", root, "authority", root).public_bytes(_PEM)
    )
    for side in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(side, key, "authority", root)
        files[f"{side}_certificate"].write_bytes(certificate.public_bytes(_PEM))
        files[f"{side}_key"].write_bytes(_key_pem(key))
    return Keys(**files)
