"""Files of certificates as whoever runs the gateway names them, read and checked once."""

from pathlib import Path

from cryptography import x509

_BEGIN_LIST, _END_LIST = "-----BEGIN X509 CRL-----", "-----END X509 CRL-----"


def authorities(file: Path) -> str:
    """The certificates of authorities in PEM file `file`. Raises ValueError."""
    text = _read(file)
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ValueError(f"{file} holds no PEM certificate") from None
    for one in found:
        if not _signs(one):
            raise ValueError(f"{file}: {one.subject.rfc4514_string()} is not an authority")
    return text


def revocations(file: Path) -> str:
    """The certificate revocation lists in PEM file `file`. Raises ValueError."""
    text = _read(file)
    lists = [part for part in text.split(_BEGIN_LIST)[1:] if _END_LIST in part]
    if not lists:
        raise ValueError(f"{file} holds no PEM certificate revocation list")
    for part in lists:
        whole = f"{_BEGIN_LIST}{part.partition(_END_LIST)[0]}{_END_LIST}\n"
        try:
            x509.load_pem_x509_crl(whole.encode())
        except ValueError:
            raise ValueError(f"{file} holds a broken certificate revocation list") from None
    return text


def _signs(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _read(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
