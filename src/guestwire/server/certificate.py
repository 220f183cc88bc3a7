"""The server's certificate: made at first start (`certificate_maker.py`), read here."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guestwire.errors import ConfigurationError

CERTIFICATE: Final = "server.pem"
KEY: Final = "server.key"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key in PEM files."""

    path: Path
    key: Path

    @classmethod
    def in_folder(cls, state_dir: Path) -> "Certificate":
        """Where the server keeps its own."""
        return cls(state_dir / CERTIFICATE, state_dir / KEY)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, `AA:BB:…`."""
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.path.read_text())).hexdigest().upper()
        return ":".join(digest[start : start + 2] for start in range(0, len(digest), 2))

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and 1.3 with it.

        Raises:
            ConfigurationError: the files can't be read, or don't belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.path, self.key, password="")  # without one, OpenSSL would ask on the terminal
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"{self.path}, {self.key}: not a certificate and its key, without a password ({why}); remove both to get new ones"
            ) from error
        return context
