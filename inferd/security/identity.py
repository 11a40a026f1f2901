"""Who somebody has proven to be."""

import math
from dataclasses import dataclass


class CredentialError(Exception):
    """A credential that does not hold. The text is for the caller, and tells no more than is good for a stranger.

    ``lasting`` if the same credential can only hold once other credentials are in force.
    """

    def __init__(self, message: str, *, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's name and what it rests on.

    ``principal`` begins with the kind of credential. ``proof`` is what must still be in force for the identity to hold:
    a token's hash or the id of a key; no secret. ``expires_at`` is in seconds since the epoch.
    """

    principal: str
    proof: bytes = b""
    expires_at: float = math.inf
