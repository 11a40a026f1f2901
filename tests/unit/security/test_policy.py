"""The policy file, patterns, and the permissions of principals."""

from pathlib import Path

import pytest

from inferd.errors import NotAllowedError
from inferd.security.authorization.methods import MethodKind
from inferd.security.authorization.policy import Permissions, Policy, matches, permissions_of, read_policy
from inferd.security.authorization.quota import QuotaStore
from inferd.security.files import BadFileError

RULES = """
rules:
  - {principals: ["token:ops"], methods: [admin]}
  - {principals: ["token:alice"], models: ["digits", "mini*"], methods: [infer], priority_ceiling: 2}
  - {principals: ["token:*"], models: ["digits"], quota: {rows_per_s: 5}}
  - {principals: ["spiffe://prod/**"], models: ["*"]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "policy.yaml").write_text(RULES)
    return read_policy(tmp_path / "policy.yaml")


def _permissions(policy: Policy, principal: str) -> Permissions:
    return permissions_of(principal, policy, QuotaStore(clock=lambda: 0.0))


@pytest.mark.parametrize(
    ("principal", "infer", "metadata", "admin"),
    [
        ("token:alice", {"digits", "minilm"}, {"digits"}, False),
        ("token:bob", {"digits"}, {"digits"}, False),
        ("token:ops", {"digits"}, {"digits"}, True),
        ("spiffe://prod/ns/a/sa/b", {"digits", "minilm", "other"}, {"digits", "minilm", "other"}, False),
        ("jwt:alice", set(), set(), False),
    ],
)
def test_denies_what_no_rule_allows(policy, principal, infer, metadata, admin) -> None:
    """By principal, model and kind of method."""
    permissions = _permissions(policy, principal)
    models = {"digits", "minilm", "other"}
    assert {model for model in models if permissions.allows(MethodKind.INFER, model)} == infer
    assert {model for model in models if permissions.allows(MethodKind.METADATA, model)} == metadata
    assert permissions.may_call(MethodKind.ADMIN) is admin
    assert permissions.may_call(MethodKind.INFER) is bool(infer)
    assert permissions.may_call(MethodKind.HEALTH)


def test_first_matching_rule_applies(policy: Policy) -> None:
    """Alice's own rule comes first, so she has its ceiling and no quota."""
    alice, bob = _permissions(policy, "token:alice"), _permissions(policy, "token:bob")
    grant = alice.require(MethodKind.INFER, "digits")
    assert (grant.rule.priority_ceiling, grant.quota) == (2, None)
    grant = bob.require(MethodKind.INFER, "digits")
    assert grant.rule.priority_ceiling == 1
    assert grant.quota is not None


def test_names_a_visible_model_that_may_not_be_called(policy: Policy) -> None:
    """The registry does not find a model that the caller may not see."""
    alice = _permissions(policy, "token:alice")
    assert alice.sees("minilm")
    assert not alice.sees("other")
    with pytest.raises(
        NotAllowedError, match='model "minilm": no rule allows this caller to call its metadata methods'
    ):
        alice.require(MethodKind.METADATA, "minilm")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a mapping with rules"),
        ("rules: []", "rules: .*at least 1 item"),
        ("rule: []", "rule: no such setting, did you mean rules"),
        ("rules: [{models: [a]}]", "rules.0: expected principals in it"),
        ("rules: [{principals: []}]", "rules.0.principals: .*at least 1 item"),
        ("rules: [{principals: [a], methods: [inferr]}]", "rules.0.methods.0: .*'infer', 'metadata' or 'admin'"),
        ("rules: [{principals: [a], priority_ceiling: 0}]", "priority_ceiling: .*greater than or equal to 1"),
        ("rules: [{principals: [a], quota: {rows_per_s: 1e-300}}]", "rows_per_s: .*greater than or equal to 0.001"),
        ("rules: [{principals: [a], quota: {rows: 1}}]", "quota.rows: no such setting"),
        (
            "rules:\n- principals: [a]\n- principals:\n  - a\n  - 5",
            r"rules.1.principals.1: .* \(.*policy.yaml line 5\)",
        ),
        ("rules: [", "line 1: expected YAML"),
        (
            "rules:\n- principals: [a]\n  methods: [infer]\n  principals: [b]",
            "line 4: expected principals once, .* line 2",
        ),
        ("rules: []\nrules: []", "line 2: expected rules once, got it on line 1 already"),
    ],
)
def test_rejects_bad_policies(tmp_path: Path, text: str, complaint: str) -> None:
    """With the file and the field. An empty file may be half written, and must not allow everything."""
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(BadFileError, match=complaint) as caught:
        read_policy(tmp_path / "policy.yaml")
    assert "policy.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("*", ["", "a", "a/b"], []),
        ("token:*", ["token:", "token:a"], ["token:a/b", "jwt:a", "xtoken:a"]),
        ("spiffe://prod/ns/*/sa/web", ["spiffe://prod/ns/a/sa/web"], ["spiffe://prod/ns/a/sa/x/sa/web"]),
        ("spiffe://prod/**", ["spiffe://prod/a/b"], ["spiffe://prod.evil/a", "spiffe://prod"]),
        ("a.c", ["a.c"], ["abc", "a.c\n"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], does_not: list[str]) -> None:
    """One star matches within a segment, two across segments; no other character is special."""
    assert all(matches(pattern, name) for name in fits)
    assert not any(matches(pattern, name) for name in does_not)


def test_quota_survives_a_reload() -> None:
    """If its limits are the same: rewriting the file resets no quota."""
    policy = Policy.model_validate({"rules": [{"principals": ["a"], "quota": {"rows_per_s": 5}}]})
    other = Policy.model_validate({"rules": [{"principals": ["a"], "quota": {"rows_per_s": 6}}]})
    quotas = QuotaStore(clock=lambda: 0.0)

    def quota(of: Policy) -> object:
        return permissions_of("a", of, quotas).require(MethodKind.INFER, "m").quota

    assert quota(policy) is quota(policy.model_copy())
    assert quota(policy) is not quota(other)
