"""Combinations of TLS settings."""

import pytest

from inferd.config.security import TlsSettings
from inferd.config.validation import SettingsError, validate


def _error(**values):
    with pytest.raises(SettingsError) as caught:
        validate(TlsSettings, values, origin_of=lambda _: "here")
    return str(caught.value)


def test_off_by_default():
    """TLS needs a certificate."""
    assert not TlsSettings().enabled


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"key_file": "k"}, "cert_file: expected the certificate that belongs to key_file, got none (here)"),
        ({"cert_file": "c"}, "key_file: expected the private key that belongs to cert_file, got none (here)"),
        (
            {"client_certificates": "required"},
            "client_certificates: expected none without a cert_file, got required (here)",
        ),
        (
            {"cert_file": "c", "key_file": "k", "client_certificates": "required"},
            "client_ca_file: expected a file of CA certificates, as client_certificates is required, got none (here)",
        ),
        (
            {"cert_file": "c", "key_file": "k", "client_ca_file": "a"},
            "client_certificates: expected required, as client_ca_file is given, got none (here)",
        ),
        (
            {"client_certificates": "optional"},
            "client_certificates: expected 'none' or 'required', got 'optional' (here)",
        ),
    ],
)
def test_rejects_invalid_combinations(values, text):
    """The error names the missing or superfluous setting."""
    assert _error(**values) == text
