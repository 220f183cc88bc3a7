"""The server's certificate: for whom it is, how long it is kept, and that TLS takes it."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guestwire.errors import ConfigurationError
from guestwire.server import Certificate
from guestwire.server.certificate_maker import ensure_certificate


def made(folder: Path, node: str = "pve1", host: str = "127.0.0.1") -> x509.Certificate:
    ensure_certificate(folder, node, host)
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())


def names(certificate: x509.Certificate) -> tuple[set[str], set[str]]:
    """The host names and addresses that it is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = found.get_values_for_type(x509.IPAddress)
    return set(found.get_values_for_type(x509.DNSName)), {str(address) for address in addresses}


LOCAL = {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("host", "more_names", "more_addresses"),
    [
        ("127.0.0.1", set(), set()),
        ("0.0.0.0", set(), set()),
        ("::", set(), set()),
        ("192.0.2.7", set(), {"192.0.2.7"}),
        ("2001:db8::7", set(), {"2001:db8::7"}),
        ("host.example", {"host.example"}, set()),
    ],
)
def test_it_is_for_the_node_this_host_and_the_address_it_listens_on(
    folder: Path, host: str, more_names: set[str], more_addresses: set[str]
) -> None:
    certificate = made(folder, "pve1", host)

    assert names(certificate) == ({"pve1", "localhost"} | more_names, LOCAL | more_addresses)
    assert certificate.subject.rfc4514_string() == "CN=pve1"


@pytest.mark.parametrize("node", ["a", "x" * 63, "n-1"])
def test_any_name_of_a_node_will_do(folder: Path, node: str) -> None:
    assert node in names(made(folder, node))[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tls_takes_certificate_and_key(folder: Path, host: str) -> None:
    made(folder, host=host)

    context = Certificate.in_folder(folder).context()
    client = ssl.create_default_context(cafile=str(folder / "server.pem"))

    assert shake_hands(context, client, host) in ("TLSv1.2", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, client, "192.0.2.1")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """The version that both agree on, without a network between them."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.version()


def test_old_versions_of_tls_are_refused(folder: Path) -> None:
    made(folder)

    assert Certificate.in_folder(folder).context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_fingerprint_is_shown_as_proxmox_ve_shows_it(folder: Path) -> None:
    certificate = made(folder)

    digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    assert Certificate.in_folder(folder).fingerprint == digest
    assert len(digest) == 95


def test_it_is_kept_when_it_still_holds(folder: Path) -> None:
    made(folder)
    before = contents(folder)
    made(folder, "another", "192.0.2.1")

    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("lost", ["server.pem", "server.key"])
def test_it_is_made_anew_when_half_of_it_is_lost(folder: Path, lost: str) -> None:
    made(folder)
    (folder / lost).unlink()
    made(folder)

    assert Certificate.in_folder(folder).context().cert_store_stats()["x509"] == 0  # certificate and key fit each other


def ending_in(folder: Path, days: float) -> None:
    """A certificate and its key, as somebody else might have made them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    builder = builder.not_valid_before(now - dt.timedelta(days=400)).not_valid_after(now + dt.timedelta(days=days))
    pem = serialization.Encoding.PEM
    (folder / "server.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.mark.parametrize(
    ("days", "subject"), [(-1, "CN=pve1"), (0, "CN=pve1"), (29, "CN=pve1"), (31, "CN=old"), (400, "CN=old")]
)
def test_it_is_made_anew_a_month_before_it_ends(folder: Path, days: float, subject: str) -> None:
    ending_in(folder, days)

    assert made(folder).subject.rfc4514_string() == subject


def test_a_new_one_holds_for_two_years_and_begins_in_the_past(folder: Path) -> None:
    certificate, now = made(folder), dt.datetime.now(dt.UTC)

    assert certificate.not_valid_before_utc < now
    assert dt.timedelta(days=700) < certificate.not_valid_after_utc - now < dt.timedelta(days=826)


def test_the_key_belongs_to_its_owner_alone(folder: Path) -> None:
    made(folder)

    assert (folder / "server.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "server.pem").stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_no_certificate_is_refused_and_kept(folder: Path) -> None:
    (folder / "server.pem").write_text("my own")
    (folder / "server.key").write_text("my own")

    with pytest.raises(ConfigurationError, match=r"server\.pem: .*remove it to get a new certificate"):
        ensure_certificate(folder, "pve1", "127.0.0.1")
    assert contents(folder) == {"server.pem": b"my own", "server.key": b"my own"}


def _another() -> bytes:
    return private_bytes(serialization.NoEncryption())


def _locked() -> bytes:
    return private_bytes(serialization.BestAvailableEncryption(b"secret"))


def private_bytes(lock: serialization.KeySerializationEncryption) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize("key", [b"no key", b"", _another(), _locked()], ids=["no key", "empty", "another", "locked"])
def test_a_key_that_tls_does_not_take_is_refused_by_name(folder: Path, key: bytes) -> None:
    made(folder)
    (folder / "server.key").write_bytes(key)

    with pytest.raises(ConfigurationError, match=r"server\.pem, .*server\.key: not a certificate and its key"):
        Certificate.in_folder(folder).context()


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="none"):
        ensure_certificate(folder / "none", "pve1", "127.0.0.1")


def test_two_servers_have_two_keys(folder: Path) -> None:
    certificates = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        certificates.append(made(folder / name))

    assert certificates[0].serial_number != certificates[1].serial_number
