"""Which settings of TLS go together."""

import pytest

from inferd.config import SettingsError
from inferd.config.tls import TlsSettings
from inferd.config.validation import validate


def _refused(**values):
    with pytest.raises(SettingsError) as error:
        validate(TlsSettings, values, origin_of=lambda _: "here")
    return str(error.value)


def test_off_by_default():
    """Nothing given, nothing done."""
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
            "client_ca_file: expected a file of authorities, as client_certificates is required, got none (here)",
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
def test_what_does_not_go_together(values, text):
    """Told by the name of what is missing or too much."""
    assert _refused(**values) == text
