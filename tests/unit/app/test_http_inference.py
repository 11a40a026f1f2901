"""What the settings mean for HTTP."""

from inferd.app.http_inference import connection_limits
from inferd.config.server import ConnectionSettings, HttpSettings, ServerSettings


def test_limits_of_connections() -> None:
    """Those of the section, and those that are for gRPC as well."""
    http = HttpSettings(max_connections=7, keep_alive_s=8.0, header_timeout_s=9.0)
    connections = ConnectionSettings(max_age_s=300.0)
    limits = connection_limits(ServerSettings(http=http, connections=connections, message_timeout_s=11.0))
    assert (limits.max_connections, limits.keep_alive_s, limits.header_timeout_s) == (7, 8.0, 9.0)
    assert (limits.max_age_s, limits.body_timeout_s) == (300.0, 11.0)
