"""Addresses of callers."""

from functools import lru_cache
from urllib.parse import unquote


@lru_cache(maxsize=1024)
def readable(peer: bytes) -> str:
    """Return an address as gRPC's core writes it without its percent-encoding; a connection has many calls."""
    return unquote(peer.decode())
