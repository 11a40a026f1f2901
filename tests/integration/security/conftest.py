"""A server with two models, credentials and rules, and callers with every kind of credential."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from inferd import demo
from inferd.security.bearer_tokens import StoredToken, hash_of
from inferd.security.token_file import entry_of
from tests.integration.security.calls import Metadata
from tests.server import ServerProcess, serving

#: Alice may use one of the two models, Bob may not infer, and the operator may do anything.
POLICY = """
rules:
  - {principals: ["*:alice", "spiffe://inferd.test/alice"], models: [digits], methods: [infer, metadata]}
  - {principals: ["*:bob", "spiffe://inferd.test/bob"], methods: [metadata]}
  - {principals: ["*:operator", "spiffe://inferd.test/operator"], methods: [infer, metadata, admin]}
  - {principals: ["*:limited"], models: [digits], methods: [infer], quota: {requests_per_s: 0.01}}
"""

NAMES = ("alice", "bob", "operator", "limited")


@dataclass
class Secured:
    """The server, and what is in its files."""

    server: ServerProcess
    folder: Path

    def bearer(self, token: str) -> Metadata:
        return (("authorization", f"Bearer {token}"),)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.server.grpc)

    def change(self, name: str, edit: Callable[[str], str]) -> None:
        """Put a changed file in the place of the one called ``name``."""
        file = self.folder / name
        (self.folder / "new").write_text(edit(file.read_text()))
        (self.folder / "new").replace(file)


def token_entry(name: str, token: str, expires: datetime | None = None) -> str:
    """Return the lines of the file of tokens for one."""
    return entry_of(StoredToken(name=name, sha256=hash_of(token), expires=expires))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secured")
    for name in ("digits", "secret-model"):
        shutil.copytree(demo.repository(), folder / "models" / name)
    (folder / "policy.yaml").write_text(POLICY)
    entries = [token_entry(name, f"inferd_{name}") for name in NAMES]
    expired = token_entry("alice", "inferd_expired", datetime(2020, 1, 1, tzinfo=UTC))
    (folder / "tokens.yaml").write_text("".join([*entries, expired]))
    return folder


@pytest.fixture(scope="session")
def secured(folder: Path) -> Iterator[Secured]:
    settings = {
        "security.tokens_file": folder / "tokens.yaml",
        "security.policy_file": folder / "policy.yaml",
        "server.channelz": "true",
    }
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with serving(folder / "models", *arguments) as server:
        yield Secured(server, folder)
