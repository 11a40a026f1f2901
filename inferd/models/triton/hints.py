"""Explain where and why the text of a configuration does not parse, and the likely fix."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor

from inferd._generated.inference import model_config_pb2 as pb

#: Placeholders of templates, in the notation of shells and of Jinja.
_PLACEHOLDER = re.compile(r"\$\{[^}\n]*\}|\{\{[^}\n]*\}\}")
_COMMENT_OR_STRING = re.compile(r"#[^\n]*|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'")
_COMMENT = re.compile(r"(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')|#[^\n]*")

#: Triton's names of types, by their names elsewhere.
_TYPES = {
    "BYTES": "STRING",
    "STR": "STRING",
    "FLOAT": "FP32",
    "FLOAT32": "FP32",
    "FLOAT16": "FP16",
    "HALF": "FP16",
    "FLOAT64": "FP64",
    "DOUBLE": "FP64",
    "BFLOAT16": "BF16",
    "INT": "INT32",
    "LONG": "INT64",
    "BOOLEAN": "BOOL",
    "CUDA": "GPU",
}

#: Maximum distance between a value and the name of its field.
_MAX_FIELD_CHARACTERS = 200

#: Maximum number of field names in a hint.
_MAX_NAMES = 10

_CLOSING = {"{": "}", "[": "]"}


class Fault(NamedTuple):
    """An error in a line, from 1, and its fix."""

    line: int
    text: str


def unfilled_template(text: str) -> Fault | None:
    """Return the first placeholder of a template in ``text``, comments left out."""
    # Comments become blanks, so that positions stay.
    bare = _COMMENT.sub(lambda match: match[1] or " " * len(match[0]), text)
    found = _PLACEHOLDER.search(bare)
    if found is None:
        return None
    return Fault(line_at(text, found.start()), f"this is a template: replace {found[0]} with its value")


def likely_fix(error: text_format.ParseError, text: str) -> Fault:
    """Return the line that is wrong, what is wrong with it, and the likely fix."""
    place = _Place(text, error.GetLine() or 1, error.GetColumn() or 1)
    message = str(error)
    for pattern, explain in _EXPLANATIONS:
        match = pattern.search(message)
        if match:
            return explain(place, *match.groups())
    # Without the position and the line, which the message starts with.
    return Fault(place.line, message.rpartition(": ")[2].rstrip("."))


class _Place:
    """The place where the parser stopped: the start of the token that it rejected."""

    def __init__(self, text: str, line: int, column: int) -> None:
        lines = text.split("\n")
        self.text = text
        self.line = line
        self._position = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
        self.token = _first_token(text[self._position :])
        bare = _COMMENT.sub(lambda match: match[1] or "", text[: self._position])
        self._before = bare.rstrip()

    @property
    def line_before(self) -> int:
        """The line of the last token before this place."""
        blanks = _COMMENT.sub(lambda match: match[1] or " " * len(match[0]), self.text[: self._position])
        return line_at(blanks, len(blanks.rstrip()))

    @property
    def last_character(self) -> str:
        """The last character before this place."""
        return self._before[-1:]

    @property
    def field(self) -> str:
        """The name of the field that precedes this place."""
        names = re.findall(r"(\w+)\s*[:=]?\s*\[?[^\[\]{}:=]*$", self._before[-_MAX_FIELD_CHARACTERS:])
        return names[-1] if names else ""


def _first_token(text: str) -> str:
    match = re.match(r"\"[^\"\n]*\"?|'[^'\n]*'?|[\w.+-]+|\S", text.lstrip())
    return match[0] if match else ""


def line_at(text: str, position: int) -> int:
    """Return the line of ``position`` in ``text``, from 1."""
    return text.count("\n", 0, position) + 1


def without_comments_and_texts(text: str) -> str:
    """Return ``text`` with blanks in place of comments and quoted texts, so that positions stay."""
    return _COMMENT_OR_STRING.sub(lambda match: " " * len(match[0]), text)


def _unbalanced(text: str) -> Fault | None:
    """Return the first bracket without a partner."""
    open_brackets: list[tuple[str, int]] = []
    for bracket, line in _brackets(text):
        if bracket in _CLOSING:
            open_brackets.append((bracket, line))
        elif not open_brackets:
            return Fault(line, f"{bracket} closes nothing: remove it")
        else:
            opening, opened = open_brackets.pop()
            if _CLOSING[opening] != bracket:
                return Fault(
                    line, f"{_CLOSING[opening]} is missing before {bracket}, for the {opening} in line {opened}"
                )
    if not open_brackets:
        return None
    opening, opened = open_brackets[-1]
    return Fault(opened, f"{opening} is never closed: {_CLOSING[opening]} is missing")


def _brackets(text: str) -> Iterator[tuple[str, int]]:
    for match in re.finditer(r"[][{}]", without_comments_and_texts(text)):
        yield match[0], line_at(text, match.start())


def _number(place: _Place) -> Fault:
    token = place.token
    if token[:1] in ("'", '"'):
        return Fault(place.line, f"{place.field}: expected a number, got {token}: remove the quotes")
    if re.fullmatch(r"[+-]?\d+\.\d*", token):
        return Fault(place.line, f"{place.field}: expected a whole number, got {token}")
    if re.fullmatch(r"[+-]?\d+", token):
        return Fault(place.line, f"{place.field}: {token} is out of range")
    if place.last_character == ",":
        return Fault(place.line_before, f"{place.field}: a number is missing after the last comma: remove the comma")
    if re.match(r"\w", token) and place.line_before == place.line:
        return Fault(place.line, f"{place.field}: expected a number, got {token}")
    return Fault(place.line_before, f"{place.field}: a number is missing before {_shown(token)}")


def _enum(place: _Place, enum: str, name: str) -> Fault:
    known = list(descriptor_pool.Default().FindEnumTypeByName(enum).values_by_name)
    token = name.strip("\"'")
    if token in known:
        return Fault(place.line, f"{token} is a name and not a text: remove the quotes")
    prefix = known[0].partition("_")[0] + "_"
    short = token.upper().removeprefix(prefix)
    close = [name for name in (f"{prefix}{_TYPES.get(short, short)}",) if name in known]
    close = close or get_close_matches(token.upper(), known, n=1) or get_close_matches(f"{prefix}{short}", known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
    return Fault(place.line, f"there is no {token}, {hint}")


def _field(place: _Place, message: str, name: str) -> Fault:
    if name.isdecimal():
        return Fault(place.line, f"{place.field}: several numbers stand in brackets, [ … ], and {name} does not")
    fields = descriptor_pool.Default().FindMessageTypeByName(message).fields_by_name
    shown = "in a model configuration" if message == pb.ModelConfig.DESCRIPTOR.full_name else f"in {_path_of(message)}"
    near = get_close_matches(name, fields, n=1, cutoff=0.7)
    elsewhere = [path for path, field in _all_fields(pb.ModelConfig.DESCRIPTOR) if field == name]
    hint = f", expected one of {', '.join(fields)}" if len(fields) <= _MAX_NAMES else ""
    if near:
        hint = f", did you mean {near[0]}?"
    elif elsewhere:
        hint = f": it belongs into {elsewhere[0]}" if elsewhere[0] else ": it belongs outside of these brackets"
    return Fault(place.line, f"there is no field {name} {shown}{hint}")


def _path_of(message: str) -> str:
    return next((path for path, _ in _all_fields(pb.ModelConfig.DESCRIPTOR) if _type_at(path) == message), message)


def _type_at(path: str) -> str:
    descriptor: Descriptor | None = pb.ModelConfig.DESCRIPTOR
    for name in filter(None, path.split(".")):
        descriptor = descriptor.fields_by_name[name].message_type if descriptor else None
    return descriptor.full_name if descriptor else ""


def _all_fields(message: Descriptor, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of the message and the name of each field, those of the outermost messages first."""
    for field in message.fields:
        yield path, field.name
    for field in message.fields:
        if field.message_type is not None:
            yield from _all_fields(field.message_type, f"{path}.{field.name}" if path else field.name)


def _structure(place: _Place, expected: str | None) -> Fault:
    """Explain a token that does not continue the text."""
    if place.text.lstrip().startswith("{"):
        return Fault(1, "this looks like JSON: expected fields as in max_batch_size: 8, without braces around them")
    unbalanced = _unbalanced(place.text)
    if unbalanced is not None:
        return unbalanced
    if place.last_character == "," and place.token in ("]", "}"):
        return Fault(place.line_before, f"remove the comma before {place.token}")
    return _between(place, expected)


def _between(place: _Place, expected: str | None) -> Fault:
    found = place.token
    if expected == ",":
        return Fault(place.line_before, f"a comma is missing before {_shown(found)}")
    if found == "/":
        return Fault(place.line, "a comment begins with #")
    if found == "=":
        return Fault(place.line, f"{place.field}: write a colon for =")
    if expected == ":":
        return Fault(place.line_before, f"a colon is missing before {_shown(found)}")
    if expected == "{":
        return Fault(place.line, f"{place.field}: expected fields in braces, {{ … }}, got {_shown(found)}")
    return Fault(place.line, f"expected the name of a field, got {_shown(found)}")


def _string(place: _Place) -> Fault:
    # Typographic quotes: initial or final ones.
    if place.token and unicodedata.category(place.token[0]) in ("Pi", "Pf"):
        return Fault(place.line, f'{place.field}: write plain quotes, like "text"')
    if place.token[:1] in ("]", "}", ",") or place.line_before < place.line:
        return Fault(place.line_before, f"{place.field}: a text is missing before {_shown(place.token)}")
    return Fault(place.line, f'{place.field}: put quotes around the text, "{place.token}"')


def _shown(token: str) -> str:
    return token or "the end of the file"


#: The messages of protobuf's parser, and what explains them.
_EXPLANATIONS: Sequence[tuple[re.Pattern[str], Callable[..., Fault]]] = (
    (re.compile(r"Couldn't parse (?:integer|float)|Value out of range"), _number),
    (re.compile(r'Enum type "(\S+)" has no value named (.+?)\.?$'), _enum),
    (re.compile(r'Message type "(\S+)" has no field named "(.+?)"'), _field),
    (
        re.compile(r'should not have multiple "(\S+)" fields'),
        lambda place, field: Fault(place.line, f"{field} is given twice: keep one"),
    ),
    (
        re.compile(r'Field "(\S+)" is specified along with field "(\S+)"'),
        lambda place, *fields: Fault(place.line, f"{' and '.join(fields)} exclude each other: keep one"),
    ),
    (
        re.compile("String missing ending quote"),
        lambda place: Fault(place.line, f"{place.field}: the closing quote is missing"),
    ),
    (re.compile("Expected string but found"), _string),
    (
        re.compile('Expected "true" or "false"'),
        lambda place: Fault(place.line, f"{place.field}: expected true or false, got {_shown(place.token)}"),
    ),
    (re.compile(r'Expected "(.)"|Expected identifier or number'), _structure),
)
