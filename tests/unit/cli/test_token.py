"""``inferd token new``."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from inferd.security.authentication.bearer_tokens import TokenTable


def test_the_secret_is_shown_once_and_only_its_hash_is_kept(inferd, tmp_path):
    """It stands alone on stdout, for scripts."""
    file = tmp_path / "tokens.yaml"
    ended = inferd("token", "new", "alice", "--file", file, "--expires", "30d")
    secret = ended.out.strip()
    assert (ended.exit_code, re.fullmatch(r"inferd_[\w-]{43}", secret) is not None) == (0, True)
    assert secret not in ended.err + file.read_text()
    identity = TokenTable.read(file).verify(secret, 0)
    assert identity.principal == "token:alice"
    in_30_days = datetime.now(UTC) + timedelta(days=30)
    assert abs(identity.expires_at - in_30_days.timestamp()) < 60


def test_without_a_file_the_entry_is_shown(inferd):
    """For files that are made elsewhere, such as Secrets of Kubernetes."""
    ended = inferd("token", "new", "alice")
    entry = ended.err.partition("\n")[2]
    assert TokenTable.parse(entry, "entry").verify(ended.out.strip(), 0).principal == "token:alice"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["two words"], "name: expected 1 to 128 letters"),
        (["a", "--expires", "soon"], "--expires: expected a period such as 12h or 30d, got 'soon'"),
        (["a", "--expires", "0d"], "--expires: expected a period"),
    ],
)
def test_nonsense_is_refused(inferd, arguments, complaint):
    """As wrong usage, before anything is made."""
    ended = inferd("token", "new", *arguments)
    assert (ended.exit_code, ended.out) == (2, "")
    assert complaint in ended.err


def test_a_file_that_cannot_take_it_is_told(inferd, tmp_path):
    """No secret is shown that would not be let in."""
    ended = inferd("token", "new", "a", "--file", tmp_path / "none" / "tokens.yaml")
    assert (ended.exit_code, ended.out) == (1, "")
    assert "No such file" in ended.err
