"""The gRPC core's arguments for a server, from its settings."""

from inferd.config.server import ServerSettings
from inferd.rpc.core import MOST_MESSAGE_BYTES

#: As many as sixteen connections may have open.
_MAX_PENDING_CALLS = 2048

_KEEPALIVE_TIMEOUT_MS = 20_000
_NEVER_MS = 2**31 - 1


def channel_options(server: ServerSettings) -> list[tuple[str, int]]:
    """Return the channel arguments that enforce the limits of ``server``."""
    connections = server.connections
    return [
        ("grpc.max_receive_message_length", server.max_message_bytes),
        # A response may be larger than its request, and rejecting it after it was computed saves nothing.
        ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
        # The core would inflate messages whatever their ratio; inferd.rpc.inflating does it instead.
        ("grpc.per_message_decompression", 0),
        # Between the two limits the core rejects calls at random.
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
        # Ping clients without calls too, and let them ping as often as clients with calls.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(connections.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", connections.max_ping_strikes),
        # Beyond this many unaccepted calls the core drops some at random. Well-behaved callers stay below it and are
        # rejected with a reason; without it, callers that cancel faster than calls can be accepted have no limit.
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_PENDING_CALLS),
        # Clients honour the limit of concurrent streams. The core's own protection also counts calls that have ended
        # and are not yet freed, and so rejects calls of clients that do honour it.
        ("grpc.http.overload_protection", 0),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
