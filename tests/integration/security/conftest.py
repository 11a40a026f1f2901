"""Servers with two models, every kind of credential, and a policy."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from inferd import demo
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.certificates import LOCAL_NAMES, Authority
from tests.integration.security.calls import Metadata
from tests.issuer import AUDIENCE, Issuer, jwks
from tests.issuer import NAME as ISSUER_NAME
from tests.server import ServerProcess, serving

#: Alice may use one of the two models, Bob may run none, the operator may call everything, and the keeper may load and
#: unload one of the models.
POLICY = """
rules:
  - {principals: ["*:alice", "spiffe://inferd.test/alice"], models: [digits], methods: [infer, metadata]}
  - {principals: ["*:bob", "spiffe://inferd.test/bob"], methods: [metadata]}
  - {principals: ["*:operator", "spiffe://inferd.test/operator"], methods: [infer, metadata, admin]}
  - {principals: ["*:keeper", "spiffe://inferd.test/keeper"], models: [digits], methods: [admin]}
  - {principals: ["*:limited"], models: [digits], methods: [infer], quota: {requests_per_s: 0.01}}
  - {principals: ["*:busy"], models: [digits], quota: {requests_per_s: 10}}
"""

NAMES = ("alice", "bob", "operator", "keeper", "limited", "busy", "somebody")


@dataclass
class Secured:
    """A server and the folder of its files."""

    server: ServerProcess
    folder: Path

    def bearer(self, token: str) -> Metadata:
        return (("authorization", f"Bearer {token}"),)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.server.grpc)

    def change(self, name: str, edit: Callable[[str], str]) -> None:
        """Atomically replace the file ``name`` by an edited one."""
        file = self.folder / name
        (self.folder / "new").write_text(edit(file.read_text()))
        (self.folder / "new").replace(file)


def token_entry(name: str, token: str, expires: datetime | None = None) -> str:
    """Return the lines of the token file for one token."""
    return format_entry(StoredToken(name=name, sha256=hash_token(token), expires=expires))


@pytest.fixture(scope="module")
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
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def secured(folder: Path, issuer: Issuer) -> Iterator[Secured]:
    """A server that accepts bearer tokens and JSON Web Tokens, without TLS.

    One for each file of tests, as they use up quotas and read the log.
    """
    (folder / "keys.json").write_text(jwks(issuer.jwk()))
    with _serving(
        folder,
        {
            "security.tokens_file": folder / "tokens.yaml",
            "security.jwt.jwks_file": folder / "keys.json",
            "security.jwt.issuer": ISSUER_NAME,
            "security.jwt.audience": f"[{AUDIENCE}]",
            "security.jwt.leeway_s": 0,
        },
    ) as server:
        yield Secured(server, folder)


@pytest.fixture(scope="module")
def mutual(folder: Path, authority: Authority) -> Iterator[Secured]:
    """A server that accepts client certificates, with a policy file of its own."""
    own = folder / "mutual"
    own.mkdir()
    shutil.copy(folder / "policy.yaml", own)
    files = authority.issue(*LOCAL_NAMES).save(own)
    with _serving(
        folder,
        {
            "security.policy_file": own / "policy.yaml",
            "security.spiffe.trust_domains": "[inferd.test]",
            "security.tls.cert_file": files.certificate,
            "security.tls.key_file": files.key,
            "security.tls.client_ca_file": authority.save(own),
            "security.tls.client_certificates": "required",
        },
    ) as server:
        yield Secured(server, own)


@contextmanager
def _serving(folder: Path, settings: Mapping[str, object]) -> Iterator[ServerProcess]:
    every = {"security.policy_file": folder / "policy.yaml", "server.channelz": "true", **settings}
    every |= {"repository.mode": "explicit", "repository.load": '["*"]'}
    arguments = [part for name, value in every.items() for part in ("--set", f"{name}={value}")]
    with serving(folder / "models", *arguments) as server:
        yield server
