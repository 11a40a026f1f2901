"""Fakes for the tests of security."""

import math
from datetime import UTC, datetime
from pathlib import Path

import grpc

from inferd.call_context import CallContext
from inferd.rpc.interfaces import Finisher
from inferd.security.authentication.bearer_tokens import StoredToken, TokenTable, hash_token
from tests.unit.finishing import Finishing

INFER = "/inferd.v1.InferenceService/Infer"
STREAM = "/inferd.v1.InferenceService/StreamInfer"
LIST = "/inferd.v1.InferenceService/ListModels"
CHECK = "/grpc.health.v1.Health/Check"
LIST_HEALTH = "/grpc.health.v1.Health/List"


class FakeCall(Finishing):
    """The part of a call that interceptors use."""

    def __init__(
        self, method: str = INFER, *metadata: tuple[str, str | bytes], auth_context: dict | None = None
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.deadline = math.inf
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self._auth_context = auth_context or {}
        self.ended: tuple[grpc.StatusCode, str] | None = None
        self.expects_small_message = False
        self.finishers: list[Finisher] = []

    def expect_small_message(self) -> None:
        self.expects_small_message = True

    def auth_context(self) -> dict:
        return self._auth_context

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> bool:
        self.ended = (code, details)
        return True

    def abort_paced(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> None:
        self.abort(code, details, trailing_metadata)


class WallClock:
    """A wall clock that the test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


def table(**tokens: str | tuple[str, float]) -> TokenTable:
    """Return a table of tokens by name; a tuple is a token and when it expires."""
    entries = []
    for name, token in tokens.items():
        secret, expires_at = token if isinstance(token, tuple) else (token, None)
        expires = "" if expires_at is None else f"\n  expires: {_time(expires_at)}"
        entries.append(f'- name: {name}\n  sha256: "{hash_token(secret)}"{expires}')
    return TokenTable.parse("\n".join(entries) or "[]", Path("tokens.yaml"))


def stored(name: str, token: str) -> StoredToken:
    return StoredToken(name=name, sha256=hash_token(token))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
