"""``inferd token``."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.entry import HELP_OPTIONS
from inferd.cli.failures import CommandError, UsageError
from inferd.config.validation import SettingsError, validate
from inferd.security.authentication.bearer_tokens import StoredToken, append_token, format_entry, hash_token, new_token
from inferd.security.files import BadFileError

EXAMPLES = (
    "inferd token new alice --file tokens.yaml",
    "inferd token new ci --file tokens.yaml --expires 30d",
    "inferd serve --set security.tokens_file=tokens.yaml",
)

app = typer.Typer(add_completion=False, no_args_is_help=True)

_PERIOD = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.callback()
def _token() -> None:
    """Create bearer tokens."""


@app.command(context_settings=HELP_OPTIONS)
def new(
    name: Annotated[str, typer.Argument(help="Name of its owner; the principal is token:NAME.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Option(help="File of tokens to add it to: the server's security.tokens_file.", show_default=False),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="Lifetime: 90m, 12h, 30d or 8w.", show_default="unlimited"),
    ] = None,
) -> None:
    """Create a token and print it once: only its hash is stored.

    Without a file, the entry to add to your file of tokens is printed on stderr.
    """
    secret = new_token()
    token = _stored_token(name, secret, None if expires is None else datetime.now(UTC) + _period(expires))
    if file is None:
        print(f"add to your file of tokens:\n{format_entry(token)}", file=sys.stderr)
    else:
        try:
            append_token(file, token)
        except BadFileError as error:
            raise CommandError(f"--file {error}") from None
        except OSError as error:
            raise CommandError(f"--file {file}: cannot be written: {error.strerror}") from None
        print(f"added {name} to {file}; the token is not shown again", file=sys.stderr)
    print(secret)


def _stored_token(name: str, secret: str, expires: datetime | None) -> StoredToken:
    try:
        entry = {"name": name, "sha256": hash_token(secret), "expires": expires}
        return validate(StoredToken, entry, origin_of=lambda _: "command line")
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _period(text: str) -> timedelta:
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise UsageError(f"--expires: expected a period such as 12h or 30d, got {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
