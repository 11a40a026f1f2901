"""The file of rules: who may call what, how urgently, and how much."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inferd.config.section import Section
from inferd.config.validation import SettingsError, validate
from inferd.security.files import BadFileError
from inferd.security.yaml_file import parse_yaml, read_text

_Pattern = Annotated[str, Field(min_length=1)]
#: Not so slow that when to come back would be a number without an end.
_Rate = Annotated[float, Field(ge=0.001, le=1e9)]


class QuotaRule(Section):
    """What each caller that a rule is for may ask for under it. Rates have a burst of one second."""

    requests_per_s: _Rate | None = None
    rows_per_s: _Rate | None = None
    concurrent_requests: int | None = Field(default=None, ge=1, le=1_000_000)


class Rule(Section):
    """Allows ``methods`` of ``models`` to ``principals``; the latter two are patterns (see `patterns`).

    ``priority_ceiling`` is the most urgent priority that requests get, 1 by default.
    """

    principals: list[_Pattern] = Field(min_length=1)
    models: list[_Pattern] = Field(default=["*"], min_length=1)
    methods: list[Literal["infer", "metadata", "admin"]] = Field(default=["infer", "metadata"], min_length=1)
    priority_ceiling: int = Field(default=1, ge=1, le=100)
    quota: QuotaRule | None = None


class Policy(Section):
    """Rules in their order: the first one for a caller, a model and a method is the one that counts.

    What no rule allows is forbidden. There is at least one: a file that is half written must not allow everything.
    """

    rules: list[Rule] = Field(min_length=1)


_KEYS = frozenset((*Policy.model_fields, *Rule.model_fields, *QuotaRule.model_fields))


def read_policy(path: Path) -> Policy:
    """Read a policy, or raise `BadFileError` with every problem that it has."""
    content = parse_yaml(read_text(path), path, _KEYS)
    if not isinstance(content, dict):
        raise BadFileError(f"{path}: expected a mapping with rules")
    try:
        return validate(Policy, content, origin_of=lambda _: str(path))
    except SettingsError as error:
        raise BadFileError(str(error)) from None
