"""Verify client certificates that carry a SPIFFE ID."""

import re
from collections.abc import Mapping, Sequence

from inferd.security.authentication.identity import CredentialError, Identity

_SCHEME = "spiffe://"

#: As in the SPIFFE standard: no empty path segments, no dot segments and no percent-encoding, so that a pattern in a
#: policy matches exactly the IDs that it seems to.
_ID = re.compile(_SCHEME + r"(?P<domain>[a-z0-9._-]+)(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+")

_REJECTED = "the client certificate has no SPIFFE ID that is accepted"

#: Keys of gRPC's authentication context; they are set once the client has proven to hold the certificate's key.
CERTIFICATE = "x509_pem_cert"
_SPIFFE_ID = "peer_spiffe_id"
_URIS = "peer_uri"


class SpiffeVerifier:
    """Accepts the SPIFFE IDs of some trust domains. Immutable.

    TLS verified the certificate when the connection was opened, and it is accepted for as long as the connection is
    open: a client with a renewed certificate cannot present it without reconnecting.
    """

    def __init__(self, trust_domains: Sequence[str]) -> None:
        self._trust_domains = frozenset(trust_domains)

    def verify(self, auth_context: Mapping[str, Sequence[bytes]]) -> Identity:
        """Return the identity of a connection with this ``auth_context``. Raises `CredentialError`."""
        ids, uris = auth_context.get(_SPIFFE_ID, ()), auth_context.get(_URIS, ())
        # Of several URIs in a certificate, other software might trust a different one.
        if len(ids) != 1 or len(uris) != 1 or ids[0] != uris[0]:
            raise CredentialError(_REJECTED)
        try:
            spiffe_id = ids[0].decode("ascii")
        except ValueError:
            raise CredentialError(_REJECTED) from None
        match = _ID.fullmatch(spiffe_id)
        if match is None or match["domain"] not in self._trust_domains:
            raise CredentialError(_REJECTED)
        return Identity(spiffe_id)

    def revalidate(self, identity: Identity) -> Identity | None:
        """Return ``identity``, or None if it is not a SPIFFE ID."""
        return identity if identity.principal.startswith(_SCHEME) else None
