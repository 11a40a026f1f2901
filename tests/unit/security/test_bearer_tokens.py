"""Verification of bearer tokens, and the format of the token file."""

from pathlib import Path

import pytest

from inferd.security.authentication.bearer_tokens import PREFIX, TokenTable, hash_token, new_token
from inferd.security.authentication.identity import CredentialError
from inferd.security.files import BadFileError
from tests.unit.security.fakes import table

HASH = hash_token("secret")
FILE = Path("tokens.yaml")


def test_verifies_tokens_until_they_expire() -> None:
    """Also those without an expiry; an unknown token is not an error."""
    tokens = table(alice="a", bob=("b", 1_800_000_000.0))
    assert tokens.verify("a", 0).principal == "token:alice"
    assert tokens.verify("b", 1_799_999_999.0).principal == "token:bob"
    assert tokens.verify("c", 0) is None
    with pytest.raises(CredentialError, match="has expired"):
        tokens.verify("b", 1_800_000_000.0)


def test_revalidates_the_identity_of_a_token() -> None:
    """With its new expiry; not if its name has another token now, nor if the token has another name."""
    identity = table(alice="a").verify("a", 0)
    assert table(alice="a", bob="b").revalidate(identity) == identity
    assert table(alice=("a", 2.0)).revalidate(identity).expires_at == 2.0
    for changed in (table(), table(alice="b"), table(bob="a")):
        assert changed.revalidate(identity) is None


def test_new_tokens_are_random() -> None:
    """256 bits each, with a prefix for secret scanners."""
    first, second = new_token(), new_token()
    assert first != second
    assert first.startswith(PREFIX)
    assert len(first) == len(PREFIX) + 43


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"expected a list of tokens, which may be \[\]"),
        ("tokens: []", "expected a list of tokens"),
        ("- {", "line 1: expected YAML"),
        ("- !!python/object/apply:os.getcwd []", "line 1: expected YAML"),
        pytest.param("[" * 3_000, "expected YAML", id="deep"),
        ("- PLANTED", "expected name, sha256 and optionally expires"),
        (f"- {{name: a, sha256: '{HASH}', PLANTED: 1}}", "expected name, sha256 and optionally expires"),
        ("- {name: a}", "expected name, sha256 and optionally expires"),
        ("- {name: a, sha256: PLANTED}", "sha256: expected the SHA-256 of a token"),
        (f"- {{name: 'PLANTED PLANTED', sha256: '{HASH}'}}", "name: expected 1 to 128 letters"),
        (f"- {{name: a, sha256: '{HASH}', expires: PLANTED}}", "expires: expected a time"),
        (f"- {{name: a, sha256: '{HASH}'}}\n- {{name: b}}", "line 2: expected name, sha256"),
        ("- name: a\n  sha256: PLANTED", r"tokens.0.sha256: .* \(.*tokens.yaml line 2\)"),
        (f"- {{name: a, sha256: '{HASH}'}}\n- {{name: b, sha256: '{HASH}'}}", "one of them twice"),
        (f"- name: a\n  sha256: '{HASH}'\n  name: PLANTED", "line 3: expected name once, got it on line 1 already"),
        ("- {PLANTED: 1, PLANTED: 2}", "line 1: expected a key once, got it on line 1 already"),
        (f"- {{name: a, sha256: '{HASH}', expires: 2030-13-45}}", "expected YAML|expected a time"),
    ],
)
def test_rejects_bad_files_without_quoting_them(text: str, complaint: str) -> None:
    """A value in the wrong place may be a secret."""
    with pytest.raises(BadFileError, match=complaint) as caught:
        TokenTable.parse(text, FILE)
    assert "PLANTED" not in str(caught.value)
    assert "tokens.yaml" in str(caught.value)


def test_times_without_a_zone_are_utc() -> None:
    """Plain dates too."""
    tokens = TokenTable.parse(f"- {{name: a, sha256: '{HASH}', expires: 2030-01-31}}", FILE)
    assert tokens.verify("secret", 0).expires_at == 1_896_048_000.0


def test_rejects_unreadable_files(tmp_path: Path) -> None:
    """Missing, or not text."""
    with pytest.raises(BadFileError, match="No such file"):
        TokenTable.read(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(BadFileError, match="expected UTF-8"):
        TokenTable.read(tmp_path / "bytes")
