"""``inferd token new``."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from inferd.security.authentication.bearer_tokens import TokenTable


def test_stores_only_the_hash(inferd, tmp_path):
    """The token alone is on stdout, for scripts."""
    file = tmp_path / "tokens.yaml"
    before = datetime.now(UTC)
    result = inferd("token", "new", "alice", "--file", file, "--expires", "30d")
    after = datetime.now(UTC)
    secret = result.out.strip()
    assert (result.exit_code, re.fullmatch(r"inferd_[\w-]{43}", secret) is not None) == (0, True)
    assert secret not in result.err + file.read_text()
    identity = TokenTable.read(file).verify(secret, 0)
    assert identity.principal == "token:alice"
    # In whole seconds.
    earliest, latest = (moment + timedelta(days=30) for moment in (before - timedelta(seconds=1), after))
    assert earliest.timestamp() <= identity.expires_at <= latest.timestamp() + 1


def test_prints_the_entry_without_a_file(inferd):
    """For files made elsewhere, such as Kubernetes Secrets."""
    result = inferd("token", "new", "alice")
    entry = result.err.partition("\n")[2]
    assert TokenTable.parse(entry, "entry").verify(result.out.strip(), 0).principal == "token:alice"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two words"], "name: expected 1 to 128 letters"),
        (["a", "--expires", "soon"], "--expires: expected a period such as 12h or 30d, got 'soon'"),
        (["a", "--expires", "0d"], "--expires: expected a period"),
    ],
)
def test_invalid_arguments(inferd, arguments, message):
    """Usage errors, before a token is created."""
    result = inferd("token", "new", *arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert message in result.err


def test_unwritable_file(inferd, tmp_path):
    """A token that was not stored is not printed."""
    result = inferd("token", "new", "a", "--file", tmp_path / "none" / "tokens.yaml")
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == f"inferd: --file {tmp_path}/none/tokens.yaml: cannot be written: No such file or directory\n"
