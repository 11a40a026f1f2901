"""Which certificates and keys are accepted, and the errors for others."""

import datetime as dt
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from inferd.security.files import BadFileError
from inferd.security.tls.certificates import read_authorities, read_server_pair
from tests import certificates
from tests.certificates import DAY, HOUR, LOCAL_NAMES, Authority, Pair, key_pem

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
STRONG_RSA = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module", autouse=True)
def _clock():
    """Issue all certificates at ``NOW``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "now", lambda: NOW)
        yield


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a pair to files and reads it back."""

    def _read(pair: Pair, now=NOW):
        files = pair.save(tmp_path)
        return read_server_pair(files.certificate, files.key, now)

    return _read


def rejection(read, pair, now=NOW):
    """Return the error for a rejected pair, without the folder."""
    with pytest.raises(BadFileError) as error:
        read(pair, now)
    return re.sub(r"\S+/", "", str(error.value))


@pytest.mark.parametrize(
    "key",
    [
        STRONG_RSA,
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RSA 2048", "P-256", "P-384"],
)
def test_accepts_supported_keys(read, authority, key):
    """And returns the content of the files."""
    pair = authority.issue(*LOCAL_NAMES, key=key)
    taken = read(pair)
    assert (taken.certificate_pem, taken.key_pem) == (pair.certificate, pair.key)


@pytest.mark.parametrize("name", ["inferd.internal", "*.inferd.internal", "10.0.0.1", "spiffe://example/inferd"])
def test_accepts_any_kind_of_name(read, authority, name):
    """SPIRE's certificates have only a URI."""
    read(authority.issue(name))


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (SMALL_RSA, "expected an RSA key of at least 2048 bits, got 1024 (CN=test)"),
        (ec.generate_private_key(ec.SECP192R1()), "expected a key on P-256, P-384 or P-521, got secp192r1 (CN=test)"),
        (dsa.generate_private_key(1024), "expected an RSA, EC or Ed25519 key, got another kind (CN=test)"),
    ],
    ids=["RSA 1024", "P-192", "DSA"],
)
def test_rejects_weak_keys(read, authority, key, found):
    """The error says what is expected."""
    assert rejection(read, authority.issue(*LOCAL_NAMES, key=key)) == f"server.pem: {found}"


@pytest.mark.parametrize(
    ("key", "found"),
    [(ec.generate_private_key(ec.SECP521R1()), "P-521"), (ed25519.Ed25519PrivateKey.generate(), "Ed25519")],
    ids=["P-521", "Ed25519"],
)
def test_rejects_keys_that_clients_do_not_support(read, authority, key, found):
    """They are strong, but clients on gRPC's C core fail the handshake."""
    assert rejection(read, authority.issue(*LOCAL_NAMES, key=key)) == (
        "server.pem: expected an RSA key or one on P-256 or P-384, which every gRPC client supports, "
        f"got {found} (CN=test)"
    )


@pytest.mark.parametrize(("number", "digest"), [(b"\x05", "SHA1"), (b"\x04", "MD5")])
def test_rejects_weak_signatures(read, number, digest):
    """But not those of self-signed roots, which nobody verifies."""
    authority = Authority(key=STRONG_RSA)
    pair = authority.issue(*LOCAL_NAMES)
    text = f"server.pem: expected a signature with SHA-256 or better, got {digest} (CN=test)"
    assert rejection(read, Pair(_renumbered(pair.certificate, number), pair.key)) == text
    root = Pair(_renumbered(authority.pem, number), key_pem(STRONG_RSA))
    assert "subject alternative name" in rejection(read, root), "it was rejected for something other than its signature"


def _renumbered(pem, number):
    """Replace the signature algorithm of a certificate: current libraries refuse to sign with weak ones."""
    certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    rsa_with = bytes.fromhex("2a864886f70d0101")
    changed = certificate.replace(rsa_with + b"\x0b", rsa_with + number)
    return x509.load_der_x509_certificate(changed).public_bytes(serialization.Encoding.PEM)


def test_rejects_certificates_outside_their_dates(read, authority):
    """The error gives the date."""
    pair = authority.issue(*LOCAL_NAMES, not_before=-HOUR, not_after=HOUR)
    assert read(pair).not_after == pytest.approx(NOW + HOUR, abs=DAY / 24)
    late, early = NOW + 2 * HOUR, NOW - 2 * HOUR
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    expected = rf"server\.pem: expected a certificate that is valid now, {when}, got one that"
    assert re.fullmatch(rf"{expected} expired {when} \(CN=test\)", rejection(read, pair, late))
    assert re.fullmatch(rf"{expected} is not valid before {when} \(CN=test\)", rejection(read, pair, early))


def test_rejects_the_key_of_another_certificate(read, authority):
    """The error names both files."""
    pair, other = authority.issue(*LOCAL_NAMES), authority.issue(*LOCAL_NAMES)
    assert rejection(read, Pair(pair.certificate, other.key)) == (
        "server.key: expected the key of the certificate in server.pem, got another key"
    )


def test_rejects_an_encrypted_key(read, authority):
    """Nothing could supply the passphrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Pair(authority.issue(*LOCAL_NAMES, key=key).certificate, key_pem(key, b"secret"))
    assert rejection(read, pair) == "server.key: expected a private key without a passphrase, got an encrypted one"


def test_rejects_a_certificate_without_a_name(read, authority):
    """Clients ignore the common name."""
    assert rejection(read, authority.issue(common_name="localhost")) == (
        "server.pem: expected a certificate with a host name, IP address or SPIFFE id as subject alternative name, "
        "got none (CN=localhost)"
    )


def test_rejects_a_certificate_for_clients_only(read, authority):
    """Clients would reject it."""
    pair = authority.issue(*LOCAL_NAMES, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    assert rejection(read, pair) == (
        "server.pem: expected a certificate for server authentication, got one for other uses only"
    )
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    read(authority.issue(*LOCAL_NAMES, usages=both))


def test_checks_the_chain(read, authority):
    """Each certificate is followed by its issuer; the earliest expiry applies."""
    between = authority.delegate("between", not_after=HOUR / 2)
    pair = between.issue(*LOCAL_NAMES)
    assert read(pair).not_after < NOW + HOUR
    leaf, intermediate = x509.load_pem_x509_certificates(pair.certificate)
    assert leaf.issuer == intermediate.subject
    swapped = Pair(pair.certificate + authority.pem + between.pem, pair.key)
    assert rejection(read, swapped) == (
        "server.pem: expected each certificate to be followed by the one that signed it, "
        "got CN=between after CN=test authority"
    )
    assert "got one that expired" in rejection(read, pair, NOW + 0.75 * HOUR)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\x30\x82\x01\x0a", "a file that is not PEM"),
        (
            b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
            "malformed PEM labelled CERTIFICATE",
        ),
    ],
)
def test_rejects_other_content(read, authority, content, found):
    """Without quoting it."""
    pair = Pair(content, authority.issue(*LOCAL_NAMES).key)
    assert rejection(read, pair) == f"server.pem: expected certificates in PEM, got {found}"


def test_rejects_swapped_files(read, authority):
    """A key in place of the certificate, and the reverse."""
    pair = authority.issue(*LOCAL_NAMES)
    assert rejection(read, Pair(pair.key, pair.certificate)) == (
        "server.pem: expected certificates in PEM, got malformed PEM labelled PRIVATE KEY"
    )
    assert rejection(read, Pair(pair.certificate, pair.certificate)) == (
        "server.key: expected a private key in PEM, got malformed PEM labelled CERTIFICATE"
    )


def test_rejects_unreadable_files(tmp_path, authority):
    """A missing file, a folder, a device without end."""
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    for path, found in [
        (tmp_path / "none.pem", "expected a file that can be read, got: No such file or directory"),
        (tmp_path, "expected a file that can be read, got: Is a directory"),
        (type(tmp_path)("/dev/zero"), "expected a file that can be read, got: not a file but a device"),
    ]:
        with pytest.raises(BadFileError, match=rf"^{re.escape(str(path))}: {found}"):
            read_server_pair(path, files.key, NOW)


def test_repr_hides_the_key(read, authority):
    """In case the object is printed."""
    pair = authority.issue(*LOCAL_NAMES)
    assert pair.key.decode() not in repr(read(pair)).replace("\\n", "\n")


def test_reads_authorities(tmp_path, authority):
    """One valid certificate is enough: bundles contain expired ones."""
    old = Authority("old", not_after=HOUR)
    file = tmp_path / "ca.pem"
    file.write_bytes(old.pem + authority.pem)
    taken = read_authorities(file, NOW + 2 * HOUR)
    assert taken.pem == old.pem + authority.pem
    assert taken.not_after > NOW + 2 * HOUR
    file.write_bytes(old.pem)
    with pytest.raises(BadFileError, match="expected an authority that is valid now, got none: the last one expired"):
        read_authorities(file, NOW + 2 * HOUR)
    file.write_bytes(Authority(key=SMALL_RSA).pem)
    with pytest.raises(BadFileError, match="expected an RSA key of at least 2048 bits, got 1024"):
        read_authorities(file, NOW)


def test_accepts_any_strong_key_of_an_authority(tmp_path):
    """TLS libraries verify signatures of all of them."""
    for key in (ec.generate_private_key(ec.SECP521R1()), STRONG_RSA):
        assert read_authorities(Authority(key=key).save(tmp_path), NOW).not_after > NOW


def test_rejects_an_authority_that_is_not_a_ca(tmp_path, authority):
    """With a client's own certificate here, no client could connect."""
    file = authority.issue("spiffe://example/me").save(tmp_path, "me").certificate
    with pytest.raises(BadFileError, match=r"expected CA certificates, got one that is not a CA \(CN=test\)$"):
        read_authorities(file, NOW)
