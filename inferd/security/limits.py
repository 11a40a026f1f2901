"""What callers may take of the server, in the terms of gRPC's core."""

from inferd.config.settings import ServerSettings

#: Sets of the core's compression algorithms, which it counts from "none".
_UNCOMPRESSED = 1 << 0
_GZIP = 1 << 2

#: As many as sixteen connections may have open.
_MAX_PENDING_CALLS = 2048

_KEEPALIVE_TIMEOUT_MS = 20_000
_NEVER_MS = 2**31 - 1
_UNLIMITED = -1


def channel_options(server: ServerSettings) -> list[tuple[str, int]]:
    """Return the arguments of a server that keeps to the limits of ``server``."""
    connections = server.connections
    return [
        ("grpc.max_receive_message_length", server.max_message_bytes),
        # An answer may be larger than its request, and refusing it once it has been computed saves nothing.
        ("grpc.max_send_message_length", _UNLIMITED),
        # What callers compress in other ways is answered with UNIMPLEMENTED before it is inflated.
        ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED | (_GZIP if server.compressed_requests else 0)),
        # The core would inflate without regard for the ratio; inferd.rpc.inflating does it instead.
        ("grpc.per_message_decompression", 0),
        # Between the two limits the core refuses some by chance.
        ("grpc.max_metadata_size", server.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", server.max_metadata_bytes),
        ("grpc.max_concurrent_streams", server.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", connections.max_open),
        ("grpc.server_handshake_timeout_ms", _ms(connections.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(connections.max_idle_s) or _NEVER_MS),
        ("grpc.max_connection_age_ms", _ms(connections.max_age_s) or _NEVER_MS),
        ("grpc.max_connection_age_grace_ms", _ms(connections.max_age_grace_s)),
        ("grpc.keepalive_time_ms", _ms(connections.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Ask after clients without calls too, and let them ask as often as those with calls.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(connections.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", connections.max_ping_strikes),
        # Of calls that wait to be accepted, the core drops some at random from here on. Those of well-behaved callers
        # are fewer, and are refused with a reason; callers that cancel faster than their calls can be accepted would
        # otherwise have no bound.
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_PENDING_CALLS),
        # A client keeps to the limit by itself. The core's own protection also counts calls that have ended but are not
        # yet freed, and so refuses some of a client that does keep to it.
        ("grpc.http.overload_protection", 0),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
