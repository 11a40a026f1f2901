"""Client certificates that carry a SPIFFE ID."""

import re
from collections.abc import Mapping, Sequence

from inferd.security.identity import CredentialError, Identity

_SCHEME = "spiffe://"

#: As the standard has it: a path without empty segments, dots that lead elsewhere, or anything encoded. So a pattern of
#: ours means the same as to whoever gave the name.
_ID = re.compile(_SCHEME + r"(?P<domain>[a-z0-9._-]+)(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+")

_REFUSED = "the client certificate has no SPIFFE ID that is accepted"

#: What gRPC tells of a connection whose client has proven to have the key of a certificate.
CERTIFICATE = "x509_pem_cert"
_SPIFFE_ID = "peer_spiffe_id"
_URIS = "peer_uri"


class SpiffeVerifier:
    """Takes identities of some trust domains. Immutable.

    That the certificate is good has been found out by TLS when the connection was opened, and holds as long as that is
    open: its client may have another certificate by then, and no way to show it but to connect anew.
    """

    def __init__(self, trust_domains: Sequence[str]) -> None:
        self._trust_domains = frozenset(trust_domains)

    def check(self, proven: Mapping[str, Sequence[bytes]]) -> Identity:
        """Return who is at the other end of a connection of which gRPC tells ``proven``. Raises `CredentialError`."""
        ids, uris = proven.get(_SPIFFE_ID, ()), proven.get(_URIS, ())
        # A certificate with several URIs might be taken for one of them by us and for another one by others.
        if len(ids) != 1 or len(uris) != 1 or ids[0] != uris[0]:
            raise CredentialError(_REFUSED)
        try:
            spiffe_id = ids[0].decode("ascii")
        except ValueError:
            raise CredentialError(_REFUSED) from None
        found = _ID.fullmatch(spiffe_id)
        if found is None or found["domain"] not in self._trust_domains:
            raise CredentialError(_REFUSED)
        return Identity(spiffe_id)

    def renewed(self, identity: Identity) -> Identity | None:
        """Return ``identity``, or None if it is of another kind."""
        return identity if identity.principal.startswith(_SCHEME) else None
