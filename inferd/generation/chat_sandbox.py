"""The sandbox of chat templates: Jinja with the functions that Hugging Face's tokenizers offer.

Imported only for models with templates, as not every server has Jinja.
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
    """A template rejects the messages. The text is the template's own, for the caller."""


def compile_template(source: str, now: Callable[[], datetime]) -> Template:
    """Compile a chat template. Raises ``jinja2.TemplateSyntaxError``.

    ``now`` returns the time for ``strftime_now``.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment.from_string(source)


class _Generation(Extension):
    """The tag ``{% generation %}``, which marks answers for training; here it has no effect."""

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
    # Jinja's own filter escapes characters of HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise RefusedError(str(message))
