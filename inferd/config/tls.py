"""Settings of encrypted ports."""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import model_validator

from inferd.config.section import Section, refusal


class ClientCertificates(StrEnum):
    """Whether callers must show a certificate."""

    NONE = "none"
    REQUIRED = "required"


class TlsSettings(Section):
    """TLS of the gRPC port, and of the HTTP port too unless security.http_tls is false. Off without a cert_file."""

    cert_file: Path | None = None
    """The server's certificate in PEM, followed by those of the authorities between it and the root. This file and \
the two below are read again when they change."""
    key_file: Path | None = None
    """The certificate's private key in PEM, not encrypted."""
    client_ca_file: Path | None = None
    """The authorities in PEM whose client certificates are accepted."""
    client_certificates: ClientCertificates = ClientCertificates.NONE
    """none or required: whether callers must show a certificate that client_ca_file vouches for. /livez and /readyz \
are answered without one."""

    @property
    def enabled(self) -> bool:
        """Whether there is TLS at all."""
        return self.cert_file is not None

    @model_validator(mode="after")
    def _files_go_together(self) -> Self:
        if self.cert_file is None and self.key_file is not None:
            raise refusal("expected the certificate that belongs to key_file, got none", setting="cert_file")
        if self.cert_file is not None and self.key_file is None:
            raise refusal("expected the private key that belongs to cert_file, got none", setting="key_file")
        required = self.client_certificates is ClientCertificates.REQUIRED
        if required and not self.enabled:
            raise refusal("expected none without a cert_file, got required", setting="client_certificates")
        if required and self.client_ca_file is None:
            text = "expected a file of authorities, as client_certificates is required, got none"
            raise refusal(text, setting="client_ca_file")
        if not required and self.client_ca_file is not None:
            text = "expected required, as client_ca_file is given, got none"
            raise refusal(text, setting="client_certificates")
        return self
