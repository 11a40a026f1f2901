"""What chat templates may use: Jinja in a sandbox, with the functions that Hugging Face's tokenizers offer.

Imported only where there are templates, as not every server has Jinja.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import NoReturn

from jinja2 import Template, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class RefusedError(Exception):
    """A template does not take the messages. The text is the template's, for the caller."""


def compiled(source: str, now: Callable[[], datetime]) -> Template:
    """Return the template. Raises ``jinja2.TemplateSyntaxError``."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment.from_string(source)


class _Generation(Extension):
    """``{% generation %}`` marks for training what the model said; otherwise it has no effect."""

    tags = {"generation"}  # noqa: RUF012  (declared by the library)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what HTML would take for markup.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise RefusedError(str(message))
