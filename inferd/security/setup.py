"""Build authentication and authorization for one server."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inferd.config.security import SecuritySettings
from inferd.periodic_thread import PeriodicThread
from inferd.rpc import CallInterceptor
from inferd.security.authentication.bearer_tokens import TokenTable
from inferd.security.authentication.credentials import SnapshotStore
from inferd.security.authentication.interceptor import AuthenticationInterceptor
from inferd.security.authentication.json_web_tokens import JwksFetcher, JwtVerifier, KeySet
from inferd.security.authentication.spiffe import SpiffeVerifier
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.policy import read_policy
from inferd.security.authorization.quota import QuotaStore
from inferd.security.files import FileWatcher, chosen_by

#: How soon a stream ends after its credential expired; changed files are noticed later by the watcher's period.
_STREAM_CHECK_PERIOD_S = 0.5


def _do_nothing() -> None:
    """Called for unknown keys where keys come from a file: the watcher notices new ones."""


class Security:
    """Authentication and authorization of one server.

    Call ``start`` before the server accepts calls and ``stop`` after it has stopped, once each. ``files`` watches the
    files of credentials and the policy; others may have theirs watched by it too.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self.files = FileWatcher()
        self._settings = settings
        self._snapshots = SnapshotStore()
        self._quotas = QuotaStore()
        url = settings.jwt.jwks_url
        self._jwks = None if url is None else JwksFetcher(url, period_s=settings.jwt.refresh_s, on_keys=self._use_keys)
        self._streams = StreamRevoker(self._snapshots, self._quotas)
        self._stream_checks = PeriodicThread(
            "inferd-stream-revoker", period_s=_STREAM_CHECK_PERIOD_S, action=self._streams.check
        )
        #: Empty if callers need no credential.
        self.interceptors: Sequence[CallInterceptor] = (
            (AuthenticationInterceptor(settings, self._snapshots, self._quotas, self._streams),)
            if settings.authenticates
            else ()
        )

    def start(self) -> None:
        """Read all files and start to watch them. Raises `BadFileError` for a file that cannot be used."""
        settings = self._settings
        if settings.tokens_file is not None:
            self._load_and_watch("tokens", "tokens_file", settings.tokens_file, self._read_tokens)
        if settings.policy_file is not None:
            self._load_and_watch("policy", "policy_file", settings.policy_file, self._read_policy)
        if settings.spiffe.trust_domains:
            self._snapshots.update(spiffe=SpiffeVerifier(settings.spiffe.trust_domains))
        if settings.jwt.jwks_file is not None:
            self._load_and_watch("jwks", "jwt.jwks_file", settings.jwt.jwks_file, self._read_keys)
        if self._jwks is not None:
            # Even if the URL cannot be reached yet: a token with an unknown key then causes another fetch.
            self._use_keys(KeySet({}))
            self._jwks.start()
        self.files.start()
        if self.interceptors:
            self._stream_checks.start()

    def stop(self) -> None:
        """Stop the threads."""
        self._stream_checks.stop()
        self.files.stop()
        if self._jwks is not None:
            self._jwks.stop()

    def jwks_age_s(self) -> float | None:
        """Return the seconds since keys were last fetched, or since construction; None without a URL."""
        return None if self._jwks is None else self._jwks.age_s()

    def failures(self) -> Mapping[str, int]:
        """Return the number of failed reloads and fetches by what they are for."""
        failures = self.files.failures
        return failures if self._jwks is None else {**failures, "jwks_url": self._jwks.failures}

    def quota_rejections(self) -> Mapping[str, int]:
        """Return the number of requests over a quota, by limit."""
        return self._quotas.rejections.by_limit

    def _load_and_watch(self, name: str, setting: str, path: Path, read: Callable[[Path], None]) -> None:
        self.files.watch(name, [path], lambda: read(path))
        with chosen_by(f"security.{setting}"):
            read(path)

    def _read_tokens(self, path: Path) -> None:
        self._snapshots.update(tokens=TokenTable.read(path))

    def _read_keys(self, path: Path) -> None:
        self._use_keys(KeySet.read(path))

    def _use_keys(self, keys: KeySet) -> None:
        on_unknown_key = _do_nothing if self._jwks is None else self._jwks.request
        self._snapshots.update(jwt=JwtVerifier(self._settings.jwt, keys, on_unknown_key))

    def _read_policy(self, path: Path) -> None:
        self._snapshots.update(policy=read_policy(path))
