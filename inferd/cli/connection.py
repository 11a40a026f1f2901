"""The connection of commands that call a server: its options, and the client."""

import os

# Read by grpc when it is first imported. The commands report errors themselves, in one line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.failures import CommandError, UsageError
from inferd.cli.rest.address import HttpAddress, is_url
from inferd.cli.rest.errors import RestError
from inferd.endpoint import TLS
from inferd.plain_text import escaped
from inferd.small_files import read_text

if TYPE_CHECKING:
    from inferd.cli.rest.client import RestClient
    from inferd.client import Client

_TOKEN_VARIABLE = "INFERD_TOKEN"  # noqa: S105 - the name of a variable, not a token

_TIMEOUT_S = 30.0

_option = partial(typer.Option, rich_help_panel="Connection")
_file = partial(_option, metavar="FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The options of a connection, with the files of secrets read."""

    address: str
    timeout_s: float
    token: str | None
    allow_insecure_token: bool
    tls: TLS | None

    @property
    def is_http(self) -> bool:
        """Whether the address is a URL: the commands speak REST then, instead of gRPC."""
        return is_url(self.address)

    def http_address(self) -> HttpAddress:
        """Return the address of a URL. Raises `ValueError` for an invalid one."""
        return HttpAddress(
            url=self.address, tls=self.tls, token=self.token, allow_insecure_token=self.allow_insecure_token
        )


def with_connection(
    *,
    timeout_s: float | None = _TIMEOUT_S,
    timeout_help: str = "Time limit of the call, retries included.",
    address_argument: bool = False,
    address_option: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the connection options to a command, which gets a `Connection` as its first argument.

    With ``address_argument`` the address is the command's first argument instead of ``--address``, empty if not given.
    With ``address_option`` the option is called like that, and has no default: the address is empty if not given.
    With ``timeout_s`` None there is no ``--timeout``: the command has time limits of its own.
    """
    shared = dict(inspect.signature(_connection).parameters)
    if timeout_s is None:
        del shared["timeout_s"]
    else:
        option = _option("--timeout", metavar="SECONDS", help=timeout_help)
        shared["timeout_s"] = shared["timeout_s"].replace(default=timeout_s, annotation=Annotated[float, option])
    if address_argument:
        argument = typer.Argument(metavar="ADDRESS", help="Address of the server, HOST:PORT or unix:PATH.")
        shared["address"] = shared["address"].replace(default="", annotation=Annotated[str, argument])
    if address_option:
        text = "Address of the server that has the model: HOST:PORT or unix:PATH."
        option = _option(address_option, metavar="HOST:PORT|unix:PATH", help=text, show_default=False)
        shared["address"] = shared["address"].replace(default="", annotation=Annotated[str, option])

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        def run(**values: object) -> None:
            mine = {parameter.name: values.pop(parameter.name) for parameter in own}
            command(_connection(**values), **mine)  # type: ignore[arg-type] # typer has checked the types

        update_wrapper(run, command)
        # Typer derives the options from these.
        address, *others = shared.values()
        parameters = [address, *own, *others] if address_argument else [*own, *shared.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # for inspect
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


@contextmanager
def open_client(connection: Connection) -> "Iterator[Client | RestClient]":
    """Open a client for gRPC or HTTP. Failed calls raise `CommandError`, with the server's status in one line."""
    with usage_errors():
        client = _rest_client(connection) if connection.is_http else _grpc_client(connection)
    with call_errors(), client:
        yield client


def _grpc_client(connection: Connection) -> "Client":
    # `inferd health` shares this module and does without the client, which takes longer to import.
    from inferd.client import Client  # noqa: PLC0415

    return Client(
        connection.address,
        token=connection.token,
        allow_insecure_token=connection.allow_insecure_token,
        tls=connection.tls,
        timeout_s=connection.timeout_s,
    )


def _rest_client(connection: Connection) -> "RestClient":
    from inferd.cli.rest.client import RestClient  # noqa: PLC0415  (as above)

    return RestClient(connection.http_address(), timeout_s=connection.timeout_s)


@contextmanager
def call_errors() -> Iterator[None]:
    """Turn failed calls into `CommandError`, with the server's status in one line."""
    from inferd.client import InferdError  # noqa: PLC0415  (as above)

    try:
        yield
    except InferdError as error:
        raise _call_error(error.status.name, error.message, error.retry_after_s, error.request_id) from None
    except RestError as error:
        raise _call_error(error.status, error.message, error.retry_after_s, error.request_id) from None


def _call_error(status: str, message: str, retry_after_s: float | None, request_id: str) -> CommandError:
    hint = "" if retry_after_s is None else f" (retry after {retry_after_s:g} s)"
    shown_id = f" (request {escaped(request_id)})" if request_id else ""
    return CommandError(f"{status}: {escaped(message)}{hint}{shown_id}")


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors from invalid options and unreadable files into `CommandError`."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        raise UsageError(f"{error.filename}: {error.strerror}" if named else str(error)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _connection(
    *,
    address: Annotated[
        str,
        _option(
            "--address",
            "-a",
            metavar="HOST:PORT|unix:PATH|URL",
            help="Address of the server: of gRPC, or a URL, http://HOST:PORT or https://HOST:PORT.",
        ),
    ] = "127.0.0.1:8001",
    timeout_s: float = _TIMEOUT_S,
    token_file: Annotated[
        Path | None,
        _file("--token-file", help=f"File with the bearer token. Defaults to the token in {_TOKEN_VARIABLE}, if set."),
    ] = None,
    allow_insecure_token: Annotated[
        bool, _option("--allow-insecure-token", help="Send the token to other machines even without TLS.")
    ] = False,
    tls: Annotated[
        bool, _option("--tls", help="Use TLS. Implied by each of the options below, and by https://.")
    ] = False,
    ca: Annotated[
        Path | None,
        _file(
            "--ca", help="Trusted CA certificates in PEM. Defaults to gRPC's own list, for https:// to the system's."
        ),
    ] = None,
    certificate: Annotated[Path | None, _file("--certificate", help="Client certificate for mutual TLS.")] = None,
    key: Annotated[Path | None, _file("--key", help="Private key of the client certificate.")] = None,
    server_name: Annotated[
        str | None,
        _option(
            "--server-name",
            metavar="NAME",
            help="Expected name in the server's certificate, if it differs from the address.",
        ),
    ] = None,
) -> Connection:
    # Not a number is no less than another.
    if not timeout_s >= 0:
        raise UsageError(f"--timeout: expected at least 0 seconds, got {timeout_s:g}")
    with usage_errors():
        uses_tls = tls or ca or certificate or key or server_name
        return Connection(
            address=address,
            timeout_s=timeout_s,
            token=_token(token_file),
            allow_insecure_token=allow_insecure_token,
            tls=TLS(ca=ca, certificate=certificate, key=key, server_name=server_name) if uses_tls else None,
        )


def _token(file: Path | None) -> str | None:
    """Return the token in ``file``, or else the environment's."""
    if file is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    try:
        token = read_text(file).strip()
    except OSError as error:
        raise UsageError(f"--token-file {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--token-file {file}: expected a token, got no text in UTF-8") from None
    if not token:
        raise UsageError(f"--token-file {file}: expected a token, got an empty file")
    return token
