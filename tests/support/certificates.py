"""Certificates for tests, each its own authority."""

import secrets
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

LOOPBACK = ip_address("127.0.0.1")


class Certificate(NamedTuple):
    """One for 127.0.0.1, or for another host, and its key.

    Attributes:
        certificate: As PEM.
        key: As PEM.
        locked_key: The same, with a password.
    """

    certificate: bytes
    key: bytes
    locked_key: bytes

    @property
    def der(self) -> bytes:
        """The certificate, as `ssl.SSLObject.getpeercert` gives it."""
        return ssl.PEM_cert_to_DER_cert(self.certificate.decode())

    def write(self, folder: Path) -> None:
        """Write ``cert.pem`` and ``key.pem``."""
        for name, text in (("cert.pem", self.certificate), ("key.pem", self.key)):
            new = folder / f"{name}.new"
            new.write_bytes(text)
            new.replace(folder / name)


def certificate(
    kind: Literal["ec", "rsa", "weak-rsa"] = "ec", *, host: str | None = None
) -> Certificate:
    """A new one, with a key of this kind; OpenSSL holds a weak one for too short.

    Args:
        kind: Of the key.
        host: Whose it is in place of 127.0.0.1.
    """
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ec"
        else rsa.generate_private_key(65_537, 2048 if kind == "rsa" else 1024)
    )
    # A client finds an authority by its name.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
    subject = x509.IPAddress(LOOPBACK) if host is None else x509.DNSName(host)
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    return Certificate(
        built.public_bytes(pem),
        key.private_bytes(pem, pkcs8, NoEncryption()),
        key.private_bytes(pem, pkcs8, BestAvailableEncryption(b"password")),
    )


def trusting(*trusted: Certificate) -> ssl.SSLContext:
    """A client's context that takes these certificates and no others."""
    text = b"".join(each.certificate for each in trusted).decode()
    return ssl.create_default_context(cadata=text)
