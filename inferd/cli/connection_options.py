"""The options of commands that connect to a server, and what they come to."""

import os

# Read by grpc when it is first imported. What goes wrong is said by the commands, in one line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from inferd.cli.failures import CommandError, ExitCode
from inferd.endpoint import TLS
from inferd.small_files import read_text

DEFAULT_ADDRESS = "127.0.0.1:8001"

_TOKEN_VARIABLE = "INFERD_TOKEN"  # noqa: S105 - the name of a variable, not a token

_option = partial(typer.Option, rich_help_panel="Connection")
_file = partial(_option, metavar="FILE")


def timeout(text: str) -> Any:  # noqa: ANN401 - typer's own type for options
    """Describe the timeout, whose meaning is the command's."""
    return _option("--timeout", metavar="SECONDS", help=text)


Address = Annotated[str, _option("--address", "-a", metavar="HOST:PORT|unix:PATH", help="The server.")]
TokenFile = Annotated[
    Path | None,
    _file("--token-file", help=f"Holds the bearer token. Left out, the variable {_TOKEN_VARIABLE} does, if set."),
]
AllowInsecureToken = Annotated[
    bool, _option("--allow-insecure-token", help="Send the token to another machine also without TLS.")
]
Tls = Annotated[bool, _option("--tls", help="Use TLS, as each of the options below does.")]
Ca = Annotated[Path | None, _file("--ca", help="Authorities to trust, by default gRPC's own list.")]
Certificate = Annotated[Path | None, _file("--certificate", help="Client certificate for mutual TLS.")]
Key = Annotated[Path | None, _file("--key", help="Key of the client certificate.")]
ServerName = Annotated[
    str | None,
    _option("--server-name", metavar="NAME", help="Name in the server's certificate, where it is not the address's."),
]


def token(file: Path | None) -> str | None:
    """Return the token in ``file``, or else the environment's. Raises `OSError` if the file cannot be read."""
    if file is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    return read_text(file).strip()


def tls(
    wanted: bool, *, ca: Path | None, certificate: Path | None, key: Path | None, server_name: str | None
) -> TLS | None:
    """Return what the options say of TLS; each of them turns it on. Raises `ValueError` if one lacks another."""
    if wanted or ca or certificate or key or server_name:
        return TLS(ca=ca, certificate=certificate, key=key, server_name=server_name)
    return None


@contextmanager
def usage_errors() -> Iterator[None]:
    """End the command with one line if options name files that cannot be read, or cannot be meant."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
