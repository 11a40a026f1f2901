"""The authorization policy: rules read from a file, and the permissions that they give a principal."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inferd.config.section import Section
from inferd.config.validation import SettingsError, validate
from inferd.errors import NotAllowedError
from inferd.security.authorization.methods import MethodKind
from inferd.security.authorization.quota import Quota, QuotaLimits, QuotaStore
from inferd.security.files import BadFileError, parse_yaml, read_text

#: More than a server has models; callers may name others.
_CACHED_MODELS = 4096

_Pattern = Annotated[str, Field(min_length=1)]


class Rule(Section):
    """Allows ``methods`` of ``models`` to ``principals``; the latter two are patterns, see `matches`.

    ``priority_ceiling`` is the most urgent priority that requests get; 1, the default, is any; ``scavenger``
    makes all of them scavengers. Principals whose
    requests wait at the same priority share the model by ``weight``. ``quota`` applies to each principal separately.
    """

    principals: list[_Pattern] = Field(min_length=1)
    models: list[_Pattern] = Field(default=["*"], min_length=1)
    methods: list[Literal["infer", "metadata", "admin"]] = Field(default=["infer", "metadata"], min_length=1)
    priority_ceiling: Annotated[int, Field(ge=1, le=100)] | Literal["scavenger"] = 1
    weight: float = Field(default=1.0, ge=0.001, le=1000.0)
    quota: QuotaLimits | None = None


class Policy(Section):
    """Rules in order: the first that matches a principal, model and method kind applies; without one, access is denied.

    An empty list is rejected: it may be a half-written file.
    """

    rules: list[Rule] = Field(min_length=1)


_KEYS = frozenset((*Policy.model_fields, *Rule.model_fields, *QuotaLimits.model_fields))


def read_policy(path: Path) -> Policy:
    """Read the policy at ``path``. Raises `BadFileError` that lists every problem."""
    parsed = parse_yaml(read_text(path), path, _KEYS)
    if not isinstance(parsed.content, dict):
        raise BadFileError(f"{path}: expected a mapping with rules")
    try:
        return validate(Policy, parsed.content, origin_of=parsed.origin_of)
    except SettingsError as error:
        raise BadFileError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Grant:
    """The grant of one rule to one principal: ``quota`` is the principal's own, None if unlimited."""

    rule: Rule
    quota: Quota | None


class Permissions:
    """The grants of a policy to one principal.

    The grants of the models that were asked for last are cached, so the length of ``model`` must be bounded if it is a
    name that a caller sent. Any thread.
    """

    def __init__(self, grants: Sequence[Grant]) -> None:
        """``grants`` are in the order of their rules."""
        self._grants = tuple(grants)
        granted = {kind for grant in grants for kind in grant.rule.methods}
        # Every authenticated caller may check health, ask for reflection, and hear that a path does not exist.
        self._kinds = frozenset({*granted, MethodKind.HEALTH, MethodKind.REFLECTION, MethodKind.NOTHING})
        # Called several times for each request: a hit in this cache takes no Python call.
        self._grants_of = lru_cache(_CACHED_MODELS)(partial(_grants_for_model, self._grants))

    def may_call(self, kind: MethodKind) -> bool:
        """Return whether methods of ``kind`` are granted for any model."""
        return kind in self._kinds

    def sees(self, model: str) -> bool:
        """Return whether ``model`` exists as far as this caller can tell."""
        return bool(self._grants_of(model))

    def allows(self, kind: MethodKind, model: str) -> bool:
        """Return whether methods of ``kind`` are granted for ``model``."""
        return kind in self._grants_of(model)

    def require(self, kind: MethodKind, model: str) -> Grant:
        """Return the grant for methods of ``kind`` of ``model``. Raises `NotAllowedError` if there is none."""
        grant = self._grants_of(model).get(kind)
        if grant is None:
            raise NotAllowedError(f'model "{model}": no rule allows this caller to call its {kind} methods')
        return grant

    def quota(self, kind: MethodKind, model: str | None) -> Quota | None:
        """Return the quota to charge for a request of ``kind`` that runs no model, None if unlimited.

        ``model`` is None for a request that names no existing model. The first rule that grants ``kind`` for any model
        is then charged, as it is where no rule grants ``kind`` for ``model``.
        """
        grant = None if model is None else self._grants_of(model).get(kind)
        if grant is None:
            grant = next((each for each in self._grants if kind.value in each.rule.methods), None)
        return None if grant is None else grant.quota


def _grants_for_model(grants: Sequence[Grant], model: str) -> Mapping[str, Grant]:
    """Return the first of ``grants`` that applies to ``model``, by method kind."""
    first: dict[str, Grant] = {}
    for grant in grants:
        if any(matches(pattern, model) for pattern in grant.rule.models):
            for kind in grant.rule.methods:
                first.setdefault(kind, grant)
    return first


def permissions_of(principal: str, policy: Policy, quotas: QuotaStore) -> Permissions:
    """Return what ``policy`` grants ``principal``."""
    return Permissions(
        [
            Grant(rule, None if rule.quota is None else quotas.get(principal, index, rule.quota))
            for index, rule in enumerate(policy.rules)
            if any(matches(pattern, principal) for pattern in rule.principals)
        ]
    )


def denial(kind: MethodKind) -> str:
    """Return the error text for a caller that has no grant for methods of ``kind``."""
    return f"no rule allows this caller to call {kind} methods"


def matches(pattern: str, name: str) -> bool:
    """Return whether ``pattern`` matches the whole of ``name``.

    ``*`` matches any characters but ``/``, as in paths, so that ``spiffe://prod/ns/*/sa/web`` does not match a service
    account named ``a/sa/web``. ``**`` matches any characters. A pattern that is only ``*`` matches every name.
    """
    return pattern == "*" or _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a regular expression that matches in linear time: callers can choose names that would backtrack.

    Text between stars is matched lazily inside an atomic group, ``(?>...)``: what follows it is free, so the first
    match is as good as any and never needs to be reconsidered.
    """
    *others, last = pattern.split("**")
    if not others:
        return re.compile(_suffix(last))
    first, *between = others
    return re.compile(
        _prefix(first) + "".join(f"(?>.*?{_prefix(part)})" for part in between) + f".*{_suffix(last)}", re.DOTALL
    )


def _prefix(part: str) -> str:
    """Translate ``part``, which has single stars only, to match as little as possible."""
    first, *others = part.split("*")
    return re.escape(first) + "".join(f"(?>[^/]*?{re.escape(other)})" for other in others)


def _suffix(part: str) -> str:
    """Translate ``part``, which has single stars only, to match up to the end of the name."""
    first, star, last = part.rpartition("*")
    return _prefix(first) + ("[^/]*" if star else "") + re.escape(last)
