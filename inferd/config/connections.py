"""Settings that bound what one connection, and all of them, may take."""

from pydantic import Field

from inferd.config.section import Section


class ConnectionSettings(Section):
    """Connections of the gRPC port: how many, for how long, and what is not put up with."""

    max_open: int = Field(default=4096, ge=1, le=1_000_000)
    """Connections that may be open at a time, those that are being opened too; further ones are closed at once."""
    handshake_timeout_s: float = Field(default=10.0, ge=0.1, le=600.0)
    """How long a new connection may take to agree on TLS and HTTP/2 before it is closed."""
    max_idle_s: float = Field(default=0.0, ge=0.0, le=1_000_000.0)
    """Close connections that had no call for so long. Clients open another one by themselves, but a call that sets \
out just then may fail with UNAVAILABLE. 0 is never."""
    max_age_s: float = Field(default=0.0, ge=0.0, le=1_000_000.0)
    """Have clients open another connection after so long, some sooner and some later by a tenth: for load balancers \
that spread connections, and so that certificates are checked again. 0 is never."""
    max_age_grace_s: float = Field(default=300.0, ge=0.1, le=1_000_000.0)
    """How long calls, streams too, may go on after max_age_s before they are cut off."""
    keepalive_s: float = Field(default=120.0, ge=1.0, le=1_000_000.0)
    """Ask after clients that have been silent for so long; those that do not answer within 20 s are gone. Less than \
what load balancers keep silent connections for, which is 240 s or more."""
    min_ping_interval_s: float = Field(default=5.0, ge=0.0, le=1_000_000.0)
    """How often clients may ask after the server, with and without calls. Clients set to 10 s are well within the \
default, however late their pings come."""
    max_ping_strikes: int = Field(default=2, ge=0, le=1_000_000)
    """How many pings may come too early before the connection is closed; 0 is any number."""
