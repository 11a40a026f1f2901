"""Where values come from: the command line, the environment and a YAML file."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from inferd.config.settings import Settings
from inferd.config.validation import Problem, SettingPath, SettingsError
from inferd.config.yaml_text import YamlError, read_yaml
from inferd.small_files import read_text

T = TypeVar("T")

PREFIX = "INFERD_"
DELIMITER = "__"

#: Variables that begin like settings but belong to the command line: the configuration file and the client's token.
NOT_SETTINGS = frozenset({"INFERD_CONFIG", "INFERD_TOKEN"})

_POSITIONAL = frozenset({"models"})

#: Settings that have a flag to themselves; the command line sets the others by ``--set NAME=VALUE``.
_OWN_FLAGS = frozenset({"server.host", "server.grpc_port", "server.http_port", "log.format"})

#: YAML's tag of plain text.
_NAME_TAG = "tag:yaml.org,2002:str"

#: What Kubernetes puts into every container of a namespace that has a Service called inferd or inferd-something.
_SERVICE_LINK = re.compile(r"INFERD(_[A-Z0-9]+)*_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")


class Source(Protocol):
    """Values from one place, as a tree of plain values."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that are set here."""
        ...

    def where(self, path: SettingPath) -> str:
        """Say where exactly the value at ``path`` stands."""
        ...

    def spell(self, name: str) -> str:
        """Write a dotted name as it is written here."""
        ...


class FlagSource:
    """Values from the command line by dotted name; None is a flag that was not given."""

    def __init__(self, flags: Mapping[str, object]) -> None:
        self.values: dict[str, Any] = {}
        for name, value in flags.items():
            if value is not None:
                _put(self.values, tuple(name.split(".")), value)

    def where(self, path: SettingPath) -> str:
        """Say which flag."""
        return "command line" if path[0] in _POSITIONAL else f"flag {self.spell('.'.join(path))}"

    def spell(self, name: str) -> str:
        """Write the flag of a setting: one of its own, which is the name without the section, or ``--set``."""
        return "--" + name.rpartition(".")[2].replace("_", "-") if name in _OWN_FLAGS else f"--set {name}"


class EnvironmentSource:
    """Values of the variables ``INFERD_SECTION__NAME``; empty ones count as not set."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = _Decoder(_Variables)()
        self._variables = {
            tuple(variable.upper().removeprefix(PREFIX).lower().split(DELIMITER)): variable
            for variable, value in os.environ.items()
            if value and _is_setting(variable.upper(), value)
        }
        for path, variable in self._variables.items():
            if path[0] not in Settings.model_fields:
                _put(self.values, path, os.environ[variable])

    def where(self, path: SettingPath) -> str:
        """Say which variable; it may be that of a whole section in JSON."""
        return f"environment variable {_longest_match(self._variables, path)}"

    def spell(self, name: str) -> str:
        """Write the variable of a setting."""
        return variable_of(name)


class FileSource:
    """Values of a YAML file. Raises `SettingsError` with the line where the file is not what YAML or we expect."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[SettingPath, int] = {}
        try:
            self.values = self._read(read_text(path))
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise self._refusal(f"cannot be read: {cause}") from None
        except YamlError as error:
            raise self._refusal(str(error), error.line) from None

    def where(self, path: SettingPath) -> str:
        """Say which line."""
        line = _longest_match(self._lines, path)
        return f"{self._path} line {line}" if line else str(self._path)

    def spell(self, name: str) -> str:
        """Write the dotted name."""
        return name

    def _read(self, text: str) -> dict[str, Any]:
        node, content = read_yaml(text)
        if node is None or content is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise self._refusal(f"expected sections with settings, got {found}", node.start_mark.line + 1)
        self._note_lines(node, ())
        return dict(content)

    def _note_lines(self, node: yaml.MappingNode, above: SettingPath) -> None:
        for key, value in node.value:
            path = (*above, str(key.value))
            line = key.start_mark.line + 1
            if key.tag != _NAME_TAG:
                raise self._refusal(f"expected a name, got {key.value}", line)
            self._lines[path] = line
            # Deeper than this there are no settings, and an alias may lead in circles.
            if isinstance(value, yaml.MappingNode) and len(path) < 4:
                self._note_lines(value, path)

    def _refusal(self, text: str, line: int = 0) -> SettingsError:
        origin = f"{self._path} line {line}" if line else str(self._path)
        return SettingsError([Problem(name="", text=text, origin=origin)])


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + name.replace(".", DELIMITER).upper()


class _Variables(Settings, BaseSettings):
    """What `EnvSettingsSource` wants to know of the settings; never made an instance of."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, env_ignore_empty=True)


class _Decoder(EnvSettingsSource):
    """Takes lists and sections as JSON, and lists also as ``one,two``; leaves it to validation to refuse the rest."""

    def decode_complex_value(
        self,
        field_name: str,  # noqa: ARG002 (the base class passes it)
        field: FieldInfo | None,
        value: str,
    ) -> Any:  # noqa: ANN401 (whatever the JSON holds)
        """Decode the variable of a list, a mapping or a section."""
        if value.lstrip().startswith(("[", "{")):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        takes_list = field is not None and "list" in str(field.annotation) and value != field.default
        return [part.strip() for part in value.split(",")] if takes_list else value


def _is_setting(variable: str, value: str) -> bool:
    if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
        return False
    if not _SERVICE_LINK.fullmatch(variable):
        return True
    # INFERD_PORT of a Service holds a URL. Without one this is a setting that is spelt with too few underscores.
    return "_SERVICE_" not in variable and not re.search(r"_PORT_\d+_", variable) and "://" not in value


def _put(values: dict[str, Any], path: SettingPath, value: object) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        values = inner
    values[path[-1]] = value


def _longest_match(known: Mapping[SettingPath, T], path: SettingPath) -> T | None:
    return next((known[path[:length]] for length in range(len(path), 0, -1) if path[:length] in known), None)
