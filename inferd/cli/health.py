"""``inferd health``: a probe that is quick to start, because orchestrators start it again and again."""

from typing import Annotated

import typer

from inferd.arguments import checked_timeout
from inferd.cli import connection_options as options
from inferd.cli.failures import CommandError
from inferd.endpoint import Endpoint
from inferd.health_check import METHOD, HealthStatus, question, status_of
from inferd.plain_text import escaped

# After the options, which set what gRPC reads when it is imported.
import grpc  # isort: skip

EXAMPLES = (
    "inferd health",
    "inferd health --service liveness --timeout 1",
    "inferd health --address inferd:8001 --ca ca.pem --server-name inferd",
)


def health(
    *,
    service: Annotated[
        str,
        typer.Option(
            "--service",
            "-s",
            metavar="NAME",
            help="startup, readiness, liveness or the full name of a service. Left out: the server as a whole.",
            show_default=False,
        ),
    ] = "",
    address: options.Address = options.DEFAULT_ADDRESS,
    timeout_s: Annotated[float, options.timeout("How long to wait for the answer.")] = 3.0,
    token_file: options.TokenFile = None,
    allow_insecure_token: options.AllowInsecureToken = False,
    tls: options.Tls = False,
    ca: options.Ca = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    server_name: options.ServerName = None,
) -> None:
    """Ask a server for its health: exit code 0 if it says SERVING, 1 if it says anything else or nothing.

    Any server with the standard health service can be asked.
    """
    with options.usage_errors():
        endpoint = Endpoint(
            address=address,
            token=options.token(token_file),
            allow_insecure_token=allow_insecure_token,
            tls=options.tls(tls, ca=ca, certificate=certificate, key=key, server_name=server_name),
        )
        channel = _channel(endpoint)
        limit_s = checked_timeout(timeout_s)
    with channel:
        status = _ask(channel, endpoint, service, limit_s)
    if status is not HealthStatus.SERVING:
        raise CommandError(f"{address}: {status.name}")
    print(status.name)


def _channel(endpoint: Endpoint) -> grpc.Channel:
    own = tuple(endpoint.options().items())
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.address, own)
    return grpc.secure_channel(endpoint.address, endpoint.tls.credentials(), own)


def _ask(channel: grpc.Channel, endpoint: Endpoint, service: str, timeout_s: float | None) -> HealthStatus:
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD, None, None)
    try:
        return status_of(check(question(service), timeout=timeout_s, metadata=endpoint.metadata()))
    except grpc.RpcError as error:
        unknown = error.code() is grpc.StatusCode.NOT_FOUND
        told = f"it knows no service {service!r}" if unknown else escaped(error.details() or "")
        raise CommandError(f"{endpoint.address}: {error.code().name}: {told}") from None
