"""The client of commands that call a server."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Annotated

from inferd.cli import connection_options as options
from inferd.cli.failures import CommandError
from inferd.client import Client, InferdError
from inferd.plain_text import escaped


@contextmanager
def open_client(
    *,
    address: options.Address = options.DEFAULT_ADDRESS,
    timeout_s: Annotated[float, options.timeout("How long to wait, retries included.")] = 30.0,
    token_file: options.TokenFile = None,
    allow_insecure_token: options.AllowInsecureToken = False,
    tls: options.Tls = False,
    ca: options.Ca = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    server_name: options.ServerName = None,
) -> Iterator[Client]:
    """Make a client of the options, and end the command with one line if a call of it fails."""
    with options.usage_errors():
        client = Client(
            address,
            token=options.token(token_file),
            allow_insecure_token=allow_insecure_token,
            tls=options.tls(tls, ca=ca, certificate=certificate, key=key, server_name=server_name),
            timeout_s=timeout_s,
        )
    try:
        with client:
            yield client
    except InferdError as error:
        hint = "" if error.retry_after_s is None else f" (try again in {error.retry_after_s:g} s)"
        known_as = f" (request {escaped(error.request_id)})" if error.request_id else ""
        raise CommandError(f"{error.status.name}: {escaped(error.message)}{hint}{known_as}") from None


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
