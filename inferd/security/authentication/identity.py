"""The outcome of verifying a credential: an identity, or an error for the caller."""

import math
from dataclasses import dataclass

#: Texts of errors that several verifiers raise.
INVALID = "the bearer token is not valid"
EXPIRED = "the bearer token has expired"


class CredentialError(Exception):
    """A rejected credential. The caller gets the text, so it says nothing that helps to guess a valid one.

    ``cacheable`` is False if the same credential may become valid without a reload, as one that is not valid yet.
    """

    def __init__(self, message: str, *, cacheable: bool = True) -> None:
        super().__init__(message)
        self.cacheable = cacheable


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated principal.

    ``principal`` starts with the kind of credential. ``proof`` identifies what was verified, to check later whether it
    is still accepted: a token's hash or a key's; not a secret. ``expires_at`` is in seconds since the epoch.
    """

    principal: str
    proof: bytes = b""
    expires_at: float = math.inf
