"""Makes the server's certificate.

Kept apart from `certificate.py`: cryptography takes 9 MB of memory, which the service itself can do without.
"""

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guestwire.errors import ConfigurationError
from guestwire.server.certificate import Certificate

VALID_DAYS: Final = 825
RENEW_DAYS: Final = 30


def ensure_certificate(state_dir: Path, node: str, host: str) -> None:
    """Makes the certificate in `state_dir` when there is none, or when it ends within a month.

    Raises:
        ConfigurationError: the files can't be read or written.
    """
    found = Certificate.in_folder(state_dir)
    try:
        if not found.path.exists() or not found.key.exists() or _ends_soon(found.path):
            _make(found, node, host)
    except PermissionError as error:
        raise ConfigurationError(
            f"{state_dir}: it belongs to another user; start the server as that one, or name a state_dir of your own under"
            " [server]"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{found.path}: {error}; remove it to get a new certificate") from error


def _ends_soon(path: Path) -> bool:
    end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return end - dt.datetime.now(dt.UTC) < dt.timedelta(days=RENEW_DAYS)


def _make(files: Certificate, node: str, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node)])
    now = dt.datetime.now(dt.UTC)
    addresses = {"127.0.0.1", "::1", host} - {"0.0.0.0", "::"}  # noqa: S104  # these mean any address
    names: list[x509.GeneralName] = [x509.DNSName(node), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(
            x509.SubjectAlternativeName(names + [_general_name(address) for address in sorted(addresses)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(files.key, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), 0o600)
    _write(files.path, made.public_bytes(pem), 0o644)


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _write(path: Path, data: bytes, mode: int) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    unfinished.replace(path)
