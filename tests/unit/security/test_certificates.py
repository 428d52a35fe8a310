"""The gateway's own certificate: what connections are shown, and what is wrong with the files."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.security.certificates import Certificate, CertificateError
from tests.support.certificates import certificate, trusting

EC, OTHER = certificate(), certificate()
RSA, WEAK = certificate("rsa"), certificate("weak-rsa")
NO_CERTIFICATE = "no certificate as PEM, or a broken one"
NO_KEY = "no private key as PEM, or a broken one, or one with a password"
BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def served(tmp_path: Path) -> Certificate:
    EC.write(tmp_path)
    return Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")


class Connection:
    """A client and a server that are joined by memory."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(up, down, server_side=True)
        self.client = client.wrap_bio(down, up, server_hostname=name)

    def shake_hands(self) -> None:
        """Twice, which is how often each of TLS 1.3 and 1.2 goes to and fro."""
        for end in (self.client, self.server) * 2:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()


def connect(served: Certificate, name: str = "127.0.0.1") -> ssl.SSLObject:
    """A client that is connected."""
    client = trusting(EC, OTHER, RSA)
    client.check_hostname = name == "127.0.0.1"
    client.set_alpn_protocols(["h2", "http/1.1"])
    connection = Connection(served.context, client, name)
    connection.shake_hands()
    return connection.client


@pytest.mark.parametrize("name", ["127.0.0.1", "chat.example.com"])
def test_connections_are_shown_the_newest(served: Certificate, name: str) -> None:
    """A client tells the name that it looks for, unless that is an address."""
    folder = served.files[0].parent
    assert served.files == (folder / "cert.pem", folder / "key.pem")
    for newest in (EC, OTHER, RSA, EC):
        newest.write(folder)
        served.reload()
        client = connect(served, name)
        assert client.getpeercert(binary_form=True) == newest.der
        assert (client.version(), client.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


def test_one_that_can_not_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="No such file"):
        Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("cert", "key", "wrong", "why"),
    [
        (None, EC.key, "cert.pem", "No such file or directory"),
        (EC.certificate, None, "key.pem", "No such file or directory"),
        (b"", EC.key, "cert.pem", NO_CERTIFICATE),
        (b"x", EC.key, "cert.pem", NO_CERTIFICATE),
        (BROKEN, EC.key, "cert.pem", NO_CERTIFICATE),
        (EC.key, EC.key, "cert.pem", NO_CERTIFICATE),
        (EC.certificate, b"", "key.pem", NO_KEY),
        (EC.certificate, b"x", "key.pem", NO_KEY),
        (EC.certificate, EC.certificate, "key.pem", NO_KEY),
        (EC.certificate, EC.locked_key, "key.pem", NO_KEY),
        (EC.certificate, OTHER.key, "key.pem", "not the key of {}/cert.pem"),
        (EC.certificate, RSA.key, "key.pem", "not the key of {}/cert.pem"),
        (RSA.certificate, EC.key, "key.pem", "not the key of {}/cert.pem"),
        (WEAK.certificate, WEAK.key, "cert.pem", "ee key too small"),
    ],
    ids=[
        "no-certificate",
        "no-key",
        "empty-certificate",
        "text",
        "broken-certificate",
        "key-as-certificate",
        "empty-key",
        "text-as-key",
        "certificate-as-key",
        "password",
        "another-key",
        "key-of-another-kind",
        "key-of-another-kind-again",
        "weak",
    ],
)
def test_what_can_not_be_used_is_told_and_changes_nothing(
    served: Certificate, cert: bytes | None, key: bytes | None, wrong: str, why: str
) -> None:
    folder = served.files[0].parent
    for file, text in zip(served.files, (cert, key), strict=True):
        if text is None:
            file.unlink()
        else:
            file.write_bytes(text)
    with pytest.raises(CertificateError) as error:
        served.reload()
    assert str(error.value) == f"{folder}/{wrong}: {why.format(folder)}"
    assert error.value.file == folder / wrong
    assert connect(served).getpeercert(binary_form=True) == EC.der
