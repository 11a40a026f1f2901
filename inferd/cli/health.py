"""``inferd health``: a health check that starts quickly, as orchestrators run it over and over."""

from typing import Annotated

import typer

from inferd.arguments import checked_timeout
from inferd.cli.connection import Connection, usage_errors, with_connection
from inferd.cli.failures import CommandError
from inferd.endpoint import Endpoint
from inferd.health_check import METHOD, HealthStatus, question, status_of
from inferd.plain_text import escaped

# After the connection, which sets variables that gRPC reads when it is imported.
import grpc  # isort: skip

EXAMPLES = (
    "inferd health",
    "inferd health --service liveness --timeout 1",
    "inferd health --address inferd:8001 --ca ca.pem --server-name inferd",
)


@with_connection(timeout_s=3.0, timeout_help="Time limit of the call.")
def health(
    connection: Connection,
    *,
    service: Annotated[
        str,
        typer.Option(
            "--service",
            "-s",
            metavar="NAME",
            help="startup, readiness, liveness, a model, MODEL/VERSION or the full name of a service. Defaults to the "
            "whole server.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Check the health of a server: exit code 0 if it is SERVING, 1 for any other status or no response.

    Works with any server that has the standard health service.
    """
    with usage_errors():
        endpoint = Endpoint(
            address=connection.address,
            token=connection.token,
            allow_insecure_token=connection.allow_insecure_token,
            tls=connection.tls,
        )
        channel = _channel(endpoint)
        timeout_s = checked_timeout(connection.timeout_s)
    with channel:
        status = _check(channel, endpoint, service, timeout_s)
    if status is not HealthStatus.SERVING:
        raise CommandError(f"{endpoint.address}: {status.name}")
    print(status.name)


def _channel(endpoint: Endpoint) -> grpc.Channel:
    options = tuple(endpoint.options().items())
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.address, options)
    return grpc.secure_channel(endpoint.address, endpoint.tls.credentials(), options)


def _check(channel: grpc.Channel, endpoint: Endpoint, service: str, timeout_s: float | None) -> HealthStatus:
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD, None, None)
    try:
        return status_of(check(question(service), timeout=timeout_s, metadata=endpoint.metadata()))
    except grpc.RpcError as error:
        not_found = error.code() is grpc.StatusCode.NOT_FOUND
        reason = f"unknown service {service!r}" if not_found else escaped(error.details() or "")
        raise CommandError(f"{endpoint.address}: {error.code().name}: {reason}") from None
