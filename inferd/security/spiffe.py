"""Client certificates that carry a SPIFFE ID."""

from collections.abc import Mapping, Sequence

from inferd.security.identity import CredentialError, Identity

_SCHEME = "spiffe://"
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
        domain, _, path = spiffe_id.removeprefix(_SCHEME).partition("/")
        if not spiffe_id.startswith(_SCHEME) or domain not in self._trust_domains or not path:
            raise CredentialError(_REFUSED)
        return Identity(spiffe_id)

    def still_holds(self, identity: Identity) -> bool:
        """Whether ``identity`` is of a kind and domain that this takes."""
        return identity.principal.startswith(_SCHEME)
