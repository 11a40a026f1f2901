"""The result of translating a configuration: settings, ignored fields and differences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Translation:
    """A translated configuration."""

    #: As in a model.yaml.
    settings: Mapping[str, Any]
    #: Fields that have no meaning here, each as ``field`` or ``field (why)``.
    ignored: tuple[str, ...] = ()
    #: Fields that are honoured in another way than in Triton, a sentence each.
    differences: tuple[str, ...] = ()
    #: Where a setting comes from in the text: its line, if known, and its field.
    places: Mapping[tuple[str, ...], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """Collects a `Translation`."""

    settings: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def put(self, value: object, *path: str | int) -> None:
        """Set the setting at ``path``, a key for each level: names of tensors may have dots in them."""
        below: dict[Any, Any] = self.settings
        for key in path[:-1]:
            below = below.setdefault(key, {})
        below[path[-1]] = value

    def finish(self) -> Translation:
        """Return the translation, with each ignored field and difference once."""
        return Translation(
            settings=self.settings,
            ignored=tuple(dict.fromkeys(self.ignored)),
            differences=tuple(dict.fromkeys(self.differences)),
        )
