"""The sources of settings: command line, environment and YAML file."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from inferd.config.settings import Settings
from inferd.config.validation import Problem, SettingPath, SettingsError
from inferd.config.yaml_text import YamlError, keys_of, line_of, lines_of, longest_match, read_yaml
from inferd.small_files import read_text

PREFIX = "INFERD_"
DELIMITER = "__"

#: Variables with the prefix that are no settings: the path of the configuration file and the client's token.
NOT_SETTINGS = frozenset({"INFERD_CONFIG", "INFERD_TOKEN"})

_POSITIONAL = frozenset({"models"})

#: Settings with a flag of their own; the others are set with ``--set NAME=VALUE``.
_OWN_FLAGS = {
    "server.host": "--host",
    "server.grpc_port": "--grpc-port",
    "server.http_port": "--http-port",
    "server.metrics_port": "--metrics-port",
    "log.format": "--log-format",
    "repository.mode": "--model-control-mode",
    "repository.load": "--load-model",
    "repository.poll_interval_s": "--repository-poll-secs",
    "repository.config_name": "--model-config-name",
    "repository.readiness": "--strict-readiness",
    "repository.exit_on_error": "--exit-on-error",
}

#: YAML's tags of strings and whole numbers.
_STRING_TAG, _NUMBER_TAG = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"

#: Variables that Kubernetes sets in every container of a namespace with a Service called inferd or inferd-NAME.
_SERVICE_LINK = re.compile(r"INFERD(_[A-Z0-9]+)*_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")


class Source(Protocol):
    """One source of settings, as a tree of plain values."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that this source sets."""
        ...

    def where(self, path: SettingPath) -> str:
        """Return the origin of the value at ``path``, for error messages."""
        ...

    def spell(self, name: str) -> str:
        """Return a dotted name in the notation of this source."""
        ...


class FlagSource:
    """Values from the command line by dotted name, of flags that were given."""

    def __init__(self, flags: Mapping[str, object]) -> None:
        self.values: dict[str, Any] = {}
        for name, value in flags.items():
            _put(self.values, tuple(name.split(".")), value)

    def where(self, path: SettingPath) -> str:
        """Return the flag."""
        return "command line" if path[0] in _POSITIONAL else f"flag {self.spell('.'.join(path))}"

    def spell(self, name: str) -> str:
        """Return the flag of a setting: its own, or ``--set``."""
        return _OWN_FLAGS.get(name, f"--set {name}")


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
        """Return the variable, which may hold a whole section as JSON."""
        return f"environment variable {longest_match(self._variables, path)}"

    def spell(self, name: str) -> str:
        """Return the variable of a setting."""
        return variable_of(name)


class FileSource:
    """Values of a YAML file. Raises `SettingsError` with the line of what is invalid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[SettingPath, int] = {}
        try:
            self.values = self._read(read_text(path))
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise self._error(f"cannot be read: {cause}") from None
        except YamlError as error:
            raise self._error(str(error), error.line) from None

    def where(self, path: SettingPath) -> str:
        """Return the line."""
        line = longest_match(self._lines, path)
        return f"{self._path} line {line}" if line else str(self._path)

    def spell(self, name: str) -> str:
        """Return the dotted name."""
        return name

    def _read(self, text: str) -> dict[str, Any]:
        node, content = read_yaml(text)
        if node is None or content is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise self._error(f"expected sections with settings, got {kind}", node.start_mark.line + 1)
        for path, key in keys_of(node):
            # Below a setting, keys may be numbers, such as those of priorities.
            if key.tag != _STRING_TAG and not (key.tag == _NUMBER_TAG and len(path) > 2):
                raise self._error(f"expected a name, got {key.value}", line_of(key))
        self._lines = lines_of(node)
        return dict(content)

    def _error(self, text: str, line: int = 0) -> SettingsError:
        origin = f"{self._path} line {line}" if line else str(self._path)
        return SettingsError([Problem(name="", text=text, origin=origin)])


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + name.replace(".", DELIMITER).upper()


class _Variables(Settings, BaseSettings):
    """Describes the settings to `EnvSettingsSource`; never instantiated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, env_ignore_empty=True)


class _Decoder(EnvSettingsSource):
    """Decodes lists and sections from JSON, and lists also from ``one,two``; validation rejects the rest."""

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
    # INFERD_PORT of a Service is a URL. Any other value means a setting that lacks an underscore.
    return "_SERVICE_" not in variable and not re.search(r"_PORT_\d+_", variable) and "://" not in value


def _put(values: dict[str, Any], path: SettingPath, value: object) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        values = inner
    values[path[-1]] = value
