"""The file of tokens: what it may hold, and whose a token is."""

from pathlib import Path

import pytest

from inferd.security.bearer_tokens import PREFIX, TokenTable, hash_of, new_token
from inferd.security.files import BadFileError
from inferd.security.identity import CredentialError
from tests.unit.security.fakes import table

HASH = hash_of("secret")
FILE = Path("tokens.yaml")


def test_a_token_is_its_owners_until_it_expires() -> None:
    """Names may have several tokens, so that one can replace another."""
    tokens = table(alice="a", bob=("b", 1_800_000_000.0))
    assert tokens.check("a", 0).principal == "token:alice"
    assert tokens.check("b", 1_799_999_999.0).principal == "token:bob"
    assert tokens.check("c", 0) is None
    with pytest.raises(CredentialError, match="has expired"):
        tokens.check("b", 1_800_000_000.0)


def test_an_identity_holds_as_long_as_its_very_token_does() -> None:
    """Not if the name has another one now, nor if the token went to somebody else. It may last for another time."""
    identity = table(alice="a").check("a", 0)
    assert table(alice="a", bob="b").renewed(identity) == identity
    assert table(alice=("a", 2.0)).renewed(identity).expires_at == 2.0
    for changed in (table(), table(alice="b"), table(bob="a")):
        assert changed.renewed(identity) is None


def test_new_tokens_cannot_be_guessed() -> None:
    """They differ, carry 256 bits, and scanners know them."""
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
        pytest.param("[" * 10_000, "expected YAML", id="deep"),
        ("- PLANTED", "expected of each token its name"),
        (f"- {{name: a, sha256: '{HASH}', PLANTED: 1}}", "expected of each token its name"),
        ("- {name: a}", "expected of each token its name"),
        ("- {name: a, sha256: PLANTED}", "sha256: expected the SHA-256 of a token"),
        (f"- {{name: 'PLANTED PLANTED', sha256: '{HASH}'}}", "name: expected 1 to 128 letters"),
        (f"- {{name: a, sha256: '{HASH}', expires: PLANTED}}", "expires: expected a time"),
        (f"- {{name: a, sha256: '{HASH}'}}\n- {{name: b, sha256: '{HASH}'}}", "one of them twice"),
        (f"- name: a\n  sha256: '{HASH}'\n  name: PLANTED", "line 3: expected name once, got it on line 1 already"),
        ("- {PLANTED: 1, PLANTED: 2}", "line 1: expected a key once, got it on line 1 already"),
        (f"- {{name: a, sha256: '{HASH}', expires: 2030-13-45}}", "expected YAML|expected a time"),
    ],
)
def test_bad_files_are_refused_without_quoting_them(text: str, complaint: str) -> None:
    """What stands in the wrong place may be the secret itself."""
    with pytest.raises(BadFileError, match=complaint) as caught:
        TokenTable.parse(text, FILE)
    assert "PLANTED" not in str(caught.value)
    assert "tokens.yaml" in str(caught.value)


def test_times_without_a_zone_are_utc() -> None:
    """Also plain dates."""
    tokens = TokenTable.parse(f"- {{name: a, sha256: '{HASH}', expires: 2030-01-31}}", FILE)
    assert tokens.check("secret", 0).expires_at == 1_896_048_000.0


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    """They may be missing or no text."""
    with pytest.raises(BadFileError, match="No such file"):
        TokenTable.read(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(BadFileError, match="expected UTF-8"):
        TokenTable.read(tmp_path / "bytes")
