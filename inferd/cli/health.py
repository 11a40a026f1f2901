"""``inferd health``: a health check that starts quickly, as orchestrators run it over and over."""

from typing import TYPE_CHECKING, Annotated

import typer

from inferd.arguments import Metadata, checked_timeout
from inferd.cli.connection import Connection, usage_errors, with_connection
from inferd.cli.failures import CommandError
from inferd.cli.rest.errors import RestError
from inferd.endpoint import Endpoint
from inferd.health_check import METHOD, HealthStatus, decode_status, encode_check
from inferd.plain_text import escaped

if TYPE_CHECKING:
    import grpc

EXAMPLES = (
    "inferd health",
    "inferd health --service liveness --timeout 1",
    "inferd health --address inferd:8001 --ca ca.pem --server-name inferd",
    "inferd health --address http://127.0.0.1:8000 --service digits",
)

#: What is asked for over HTTP, by the names of gRPC's health service; any other name is one of a model.
_HTTP_PATHS = {"": ("health", "ready"), "readiness": ("health", "ready"), "liveness": ("health", "live")}

#: The answer of a server or model that is not ready: the first of Triton, the second of others.
_NOT_READY = (400, 503)


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

    Works with any server that has the standard health service, and over HTTP with any that has the Open Inference
    Protocol.
    """
    status = _http_status(connection, service) if connection.is_http else _grpc_status(connection, service)
    if status is not HealthStatus.SERVING:
        raise CommandError(f"{connection.address}: {status.name}")
    print(status.name)


def _http_status(connection: Connection, service: str) -> HealthStatus:
    # Not for checks over gRPC, which would wait for it.
    from inferd.cli.rest.transport import Transport  # noqa: PLC0415

    model, _, version = service.partition("/")
    of_model = ("models", model, *(("versions", version) if version else ()), "ready")
    with usage_errors():
        if service == "startup":
            msg = "--service startup: over gRPC only; expected readiness, liveness or a model over HTTP"
            raise ValueError(msg)
        timeout_s = checked_timeout(connection.timeout_s)
        transport = Transport(connection.http_address())
    try:
        with transport:
            transport.request("GET", ("v2", *_HTTP_PATHS.get(service, of_model)), timeout_s=timeout_s)
    except RestError as error:
        if error.http_status in _NOT_READY and not error.is_protocol_error:
            return HealthStatus.NOT_SERVING
        raise _failed(connection, service, error.status, error.message) from None
    return HealthStatus.SERVING


def _grpc_status(connection: Connection, service: str) -> HealthStatus:
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
        return _check(channel, connection, service, endpoint.metadata(), timeout_s)


def _channel(endpoint: Endpoint) -> "grpc.Channel":
    import grpc  # noqa: PLC0415

    options = tuple(endpoint.options().items())
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.address, options)
    return grpc.secure_channel(endpoint.address, endpoint.tls.credentials(), options)


def _check(
    channel: "grpc.Channel", connection: Connection, service: str, metadata: Metadata, timeout_s: float | None
) -> HealthStatus:
    import grpc  # noqa: PLC0415

    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD, None, None)
    try:
        return decode_status(check(encode_check(service), timeout=timeout_s, metadata=metadata))
    except grpc.RpcError as error:
        raise _failed(connection, service, error.code().name, error.details() or "") from None


def _failed(connection: Connection, service: str, status: str, text: str) -> CommandError:
    reason = f"unknown service {service!r}" if status == "NOT_FOUND" else escaped(text)
    return CommandError(f"{connection.address}: {status}: {reason}")
