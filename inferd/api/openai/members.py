"""Read the members of JSON objects; unknown members and wrong types are errors."""

from collections.abc import Callable, Iterable
from typing import Any

from inferd.api.json_text import kind_of, shown
from inferd.api.oip.parameters import type_name
from inferd.api.openai.errors import invalid, unsupported
from inferd.plain_text import clipped, escaped

_MAX_INT64 = 2**63 - 1


class Members:
    """The members of the JSON object at ``path``; null counts as absent.

    Each is read once, by its type, and then `end` refuses the rest. All of these methods raise `InvalidInputError`.
    """

    def __init__(self, content: dict[str, Any], path: str = "") -> None:
        self._left = {name: value for name, value in content.items() if value is not None}
        self._path = path

    def path_of(self, name: str) -> str:
        """Return the path of member ``name``."""
        return f"{self._path}.{name}" if self._path else name

    def value(self, name: str) -> Any:  # noqa: ANN401  (whatever it is)
        """Return a member of any type; None if it is absent."""
        return self._left.pop(name, None)

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the members of ``names`` that are present."""
        return {name: value for name in names if (value := self.value(name)) is not None}

    def text(self, name: str) -> str | None:
        """Return a string; None if it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def boolean(self, name: str) -> bool:
        """Return a boolean; False if it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "a boolean", value)
        return value is True

    def integer(self, name: str) -> int | None:
        """Return an integer; None if it is absent."""
        value = self.value(name)
        return None if value is None else integer_of(value, self.path_of(name))

    def members(self, name: str) -> "Members | None":
        """Return the members of an object; None if it is absent."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return Members(value, self.path_of(name))

    def refuse(self, name: str, text: str, *, unless: Callable[[Any], bool]) -> None:
        """Refuse an unsupported member ``unless`` its value has no effect; ``text`` says what was expected."""
        value = self.value(name)
        if value is not None and not unless(value):
            raise unsupported(self.path_of(name), f"{text}; got {shown(value)}")

    def end(self) -> None:
        """Refuse members that have not been read."""
        unknown = next(iter(self._left), None)
        if unknown is not None:
            name = escaped(clipped(unknown)) or '""'
            raise unsupported(self.path_of(name), "expected only parameters that are known here")

    def _wrong(self, name: str, expected: str, value: object) -> Exception:
        return invalid(self.path_of(name), f"expected {expected}, got {kind_of(value)}")


def integer_of(value: object, path: str) -> int:
    """Return ``value`` as an integer. Raises `InvalidInputError` if it is not one, or beyond 64 bits."""
    if type(value) is not int:
        raise invalid(path, f"expected an integer, got {type_name(value)}")
    if abs(value) > _MAX_INT64:
        raise invalid(path, f"expected at most {_MAX_INT64}, got more")
    return value
