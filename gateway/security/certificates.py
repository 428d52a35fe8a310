"""The gateway's own certificate and private key, which are reloaded while it runs."""

import ssl
from pathlib import Path


class CertificateError(Exception):
    """A certificate or its key can't be used; the message names the file and the reason.

    Attributes:
        file: The file at fault.
    """

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = file


class Certificate:
    """The certificate and key that TLS connections are served with.

    Args:
        cert_file: The certificate and its intermediates, as PEM.
        key_file: Its private key, as PEM, without a password.

    Attributes:
        context: Serves the newest certificate; open connections keep theirs.
        files: Both files.

    Raises:
        CertificateError: They can't be used.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self.files = (cert_file, key_file)
        self._cert_file = cert_file
        self._key_file = key_file
        self.reload()
        # Each certificate gets a context of its own: a context keeps its old certificate beside a
        # new one whose key is of another type. The callback runs without SNI, too.
        self.context = self._newest
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _outer: object) -> None:
        connection.context = self._newest

    def reload(self) -> None:
        """Read both files again; on an error, the previous certificate stays in use.

        Raises:
            CertificateError: They can't be used.
        """
        for file in self.files:
            try:
                file.read_bytes()
            except OSError as error:
                raise CertificateError(file, error.strerror or str(error)) from None
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            trial.load_verify_locations(self._cert_file)  # fails because of this file only
        except ssl.SSLError:
            raise CertificateError(
                self._cert_file, "no certificate as PEM, or a broken one"
            ) from None
        newest = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        newest.set_alpn_protocols(["http/1.1"])
        try:
            newest.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except ssl.SSLError as error:
            raise self._wrong(error) from None
        self._newest = newest

    def _wrong(self, error: ssl.SSLError) -> CertificateError:
        """Map an OpenSSL error, which names no file, to the file at fault."""
        if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:  # or other type
            return CertificateError(self._key_file, f"not the key of {self._cert_file}")
        if error.reason:  # such as a certificate that OpenSSL considers too weak
            text = error.reason.replace("_", " ").lower()
            return CertificateError(self._cert_file, text)
        text = "no private key as PEM, or a broken one, or one with a password"
        return CertificateError(self._key_file, text)


def _no_password() -> bytes:
    """Return no password, instead of prompting for one."""
    return b""
