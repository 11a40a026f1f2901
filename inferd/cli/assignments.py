"""The values of ``--set NAME=VALUE``."""

from collections.abc import Sequence

from inferd.cli.failures import CommandError, ExitCode
from inferd.config.yaml_text import YamlError, read_yaml


def parse_assignments(assignments: Sequence[str]) -> dict[str, object]:
    """Return the settings by their dotted names. Values are YAML. Raises `CommandError`."""
    flags: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise CommandError(f"--set: expected NAME=VALUE, got {assignment!r}", ExitCode.USAGE)
        try:
            _, flags[name] = read_yaml(value)
        except YamlError as error:
            raise CommandError(f"--set {name}: {value!r} {error}", ExitCode.USAGE) from error
    return flags
