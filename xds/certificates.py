"""The certificate of the HTTPS listener: the user's, or one made for development."""

import datetime
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xds.errors import BadCertificate, InsecureAddress
from xds.settings import XdsSettings

_VALID_DAYS = 365


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM texts of a certificate chain and its private key."""

    chain: str
    key: str

    def __repr__(self) -> str:
        return "Certificate(...)"


def load(certificate_file: Path, key_file: Path) -> Certificate:
    """The user's certificate, checked. Raises BadCertificate."""
    try:
        chain, key = certificate_file.read_text(), key_file.read_text()
    except OSError as error:
        raise BadCertificate(f"{error.filename}: {error.strerror}") from error
    try:
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    except (ValueError, IndexError) as error:
        raise BadCertificate(f"{certificate_file} holds no PEM certificate") from error
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"{key_file} holds no unencrypted PEM private key") from error
    if private.public_key() != leaf.public_key():
        raise BadCertificate(f"{key_file} is not the key of {certificate_file}")
    return Certificate(chain, key)


def check_service(settings: XdsSettings) -> None:
    """Whether the configuration service's TCP port may be opened as it is configured.

    Raises BadCertificate and InsecureAddress.
    """
    if not settings.xds_port:
        return
    certificate, key = settings.xds_tls_certificate_file, settings.xds_tls_key_file
    authority = settings.xds_client_ca_file
    if (certificate is None) != (key is None):
        raise BadCertificate("xds_tls_certificate_file and xds_tls_key_file are given together")
    needed = {"xds_tls_certificate_file": certificate, "xds_client_ca_file": authority}
    missing = [name for name, file in needed.items() if file is None]
    if missing and not is_loopback(settings.xds_address):
        raise InsecureAddress(settings.xds_address, missing)
    if certificate is not None and key is not None:
        load(certificate, key)
    elif authority is not None:
        raise BadCertificate("xds_client_ca_file is of no use without xds_tls_certificate_file")
    if authority is not None:
        try:
            x509.load_pem_x509_certificates(authority.read_bytes())
        except OSError as error:
            raise BadCertificate(f"{error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise BadCertificate(f"{authority} holds no PEM certificate") from error


def is_loopback(host: str) -> bool:
    """Whether `host` (a name, or an IP address) is this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def development(folder: Path) -> Certificate:
    """A self-signed certificate for this machine's names, kept in `folder` until it expires."""
    certificate_file, key_file = folder / "development.crt", folder / "development.key"
    if certificate_file.exists() and key_file.exists():
        kept = load(certificate_file, key_file)
        leaf = x509.load_pem_x509_certificate(kept.chain.encode())
        if leaf.not_valid_after_utc > _now() + datetime.timedelta(days=7):
            return kept
    made = _self_signed()
    folder.mkdir(parents=True, exist_ok=True)
    certificate_file.write_text(made.chain)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(made.key)
    return made


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _self_signed() -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Signalbox development")])
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("*.localhost"),
        x509.DNSName(socket.gethostname()[:63] or "localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(hours=1))
        .not_valid_after(_now() + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


_SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


def upstream_authorities(given: Path | None) -> str:
    """The PEM bundle that HTTPS upstreams are verified with. Raises BadCertificate."""
    if given is not None:
        try:
            return given.read_text()
        except OSError as error:
            raise BadCertificate(f"{error.filename}: {error.strerror}") from error
    for bundle in _SYSTEM_BUNDLES:
        if bundle.exists():
            return bundle.read_text()
    import certifi  # noqa: PLC0415  (only machines without a system bundle pay for it)

    return Path(certifi.where()).read_text()
