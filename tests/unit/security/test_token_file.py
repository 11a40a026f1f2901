"""Appending tokens to a file."""

import threading
from pathlib import Path

import pytest

from inferd.security.authentication.bearer_tokens import TokenTable, append_token
from inferd.security.files import BadFileError
from tests.unit.security.fakes import stored


@pytest.mark.parametrize("before", [None, "", "# ours\n", "# ours\n[]\n", '- {name: z, sha256: "' + "0" * 64 + '"}'])
def test_appends_to_any_valid_file(tmp_path: Path, before: str | None) -> None:
    """Missing, empty, or without a final newline; comments are kept."""
    file = tmp_path / "tokens.yaml"
    if before is not None:
        file.write_text(before)
        file.chmod(0o640)
    append_token(file, stored("123", "a"))
    append_token(file, stored("bob", "b"))
    tokens = TokenTable.read(file)
    assert [tokens.verify(secret, 0).principal for secret in "ab"] == ["token:123", "token:bob"]
    assert file.read_text().startswith("# ours") == (before or "").startswith("# ours")
    assert file.stat().st_mode & 0o777 == (0o600 if before is None else 0o640), "the mode must not change"
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.yaml"]


def test_does_not_change_a_bad_file(tmp_path: Path) -> None:
    """Neither if the server rejects the file, nor if it would reject the result."""
    file = tmp_path / "tokens.yaml"
    for text in ("not: tokens\n", '[{name: a, sha256: "' + "0" * 64 + '"}]\n'):
        file.write_text(text)
        with pytest.raises(BadFileError, match="nothing was added"):
            append_token(file, stored("bob", "b"))
        assert file.read_text() == text


def test_keeps_the_owner_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may run as another user than the one who appends; without permission to chown, nothing is added."""
    file = tmp_path / "tokens.yaml"
    append_token(file, stored("a", "a"))
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("os.fchown", lambda _, user, group: given.append((user, group)))
    append_token(file, stored("b", "b"))
    assert given == [(file.stat().st_uid, file.stat().st_gid)]
    before = file.read_text()

    def reject(*_arguments: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("os.fchown", reject)
    with pytest.raises(PermissionError):
        append_token(file, stored("c", "c"))
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.yaml"]


def test_follows_symbolic_links(tmp_path: Path) -> None:
    """The target changes, the link stays."""
    (tmp_path / "link").symlink_to("real")
    append_token(tmp_path / "link", stored("a", "a"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").is_file()


def test_concurrent_appends_lose_nothing(tmp_path: Path) -> None:
    """They take turns."""
    file = tmp_path / "tokens.yaml"
    threads = [threading.Thread(target=append_token, args=(file, stored(f"t{n}", str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(TokenTable.read(file).verify(str(n), 0) for n in range(8))
