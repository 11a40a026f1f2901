"""The options of commands that call a server, and the client that they make."""

import os

# Read by grpc when it is first imported. What goes wrong is said by the commands, in one line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.failures import CommandError, ExitCode
from inferd.client import TLS, Client, InferdError

_TOKEN_VARIABLE = "INFERD_TOKEN"  # noqa: S105 - the name of a variable, not a token

_option = partial(typer.Option, rich_help_panel="Connection")
_file = partial(_option, metavar="FILE")


@contextmanager
def open_client(
    *,
    address: Annotated[str, _option("--address", "-a", metavar="HOST:PORT", help="The server.")] = "127.0.0.1:8001",
    timeout_s: Annotated[
        float, _option("--timeout", metavar="SECONDS", help="How long to wait, retries included.")
    ] = 30.0,
    token_file: Annotated[
        Path | None,
        _file("--token-file", help=f"Holds the bearer token. Left out, the variable {_TOKEN_VARIABLE} does, if set."),
    ] = None,
    allow_insecure_token: Annotated[
        bool, _option("--allow-insecure-token", help="Send the token to another machine also without TLS.")
    ] = False,
    tls: Annotated[bool, _option("--tls", help="Use TLS, as each of the options below does.")] = False,
    ca: Annotated[Path | None, _file("--ca", help="Authorities to trust, by default gRPC's own list.")] = None,
    certificate: Annotated[Path | None, _file("--certificate", help="Client certificate for mutual TLS.")] = None,
    key: Annotated[Path | None, _file("--key", help="Key of the client certificate.")] = None,
) -> Iterator[Client]:
    """Make a client of the options, and end the command with one line if a call of it fails."""
    try:
        client = Client(
            address,
            token=_token(token_file),
            allow_insecure_token=allow_insecure_token,
            tls=TLS(ca=ca, certificate=certificate, key=key) if tls or ca or certificate or key else None,
            timeout_s=timeout_s,
        )
    except (OSError, ValueError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    try:
        with client:
            yield client
    except InferdError as error:
        hint = "" if error.retry_after_s is None else f" (try again in {error.retry_after_s:g} s)"
        raise CommandError(f"{error.status.name}: {error.message}{hint}") from None


def connects(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options of a connection, and call it with a client in their place."""
    connection = inspect.signature(open_client).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**options: object) -> None:
        mine = {parameter.name: options.pop(parameter.name) for parameter in own}
        with open_client(**options) as client:  # type: ignore[arg-type] # typer has checked them
            command(client, **mine)

    update_wrapper(run, command)
    # What typer makes the options of.
    run.__signature__ = inspect.Signature([*own, *connection.values()])  # type: ignore[attr-defined] # for inspect
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *connection.values())}
    return run


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    return file.read_text(encoding="utf-8").strip()
