"""Puts this package together for one server."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inferd.config.security import SecuritySettings
from inferd.rpc import CallInterceptor
from inferd.security.authentication import AuthenticationInterceptor
from inferd.security.authorization.policy import read_policy
from inferd.security.authorization.quota import QuotaStore
from inferd.security.bearer_tokens import TokenTable
from inferd.security.files import FileWatcher
from inferd.security.json_web_tokens import JwtVerifier
from inferd.security.jwks import KeySet
from inferd.security.jwks_url import JwksUrl
from inferd.security.periodic import PeriodicThread
from inferd.security.snapshot import InForce
from inferd.security.spiffe import SpiffeVerifier
from inferd.security.stream_guard import StreamGuard

#: How soon after its credential a stream ends, beside the time in which changed files are noticed.
_SWEEP_PERIOD_S = 0.5


def _ignore() -> None:
    """Keys in a file come when the file changes."""


class Security:
    """Who may call one server. ``start`` before the server takes calls, ``stop`` when it has stopped; once each.

    ``files`` is the watcher of the files of credentials, for others to have theirs watched by it.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self.files = FileWatcher()
        self._settings = settings
        self._in_force = InForce()
        self._quotas = QuotaStore()
        url = settings.jwt.jwks_url
        self._jwks_url = None if url is None else JwksUrl(url, period_s=settings.jwt.refresh_s, on_keys=self._use_keys)
        self._streams = StreamGuard(self._in_force, self._quotas)
        self._sweeps = PeriodicThread("inferd-stream-guard", period_s=_SWEEP_PERIOD_S, action=self._streams.sweep)
        #: What shows every call to this package; none if nobody has to say who they are.
        self.interceptors: Sequence[CallInterceptor] = (
            (AuthenticationInterceptor(settings, self._in_force, self._quotas, self._streams),)
            if settings.authenticates
            else ()
        )

    def start(self) -> None:
        """Read every file, and watch them from now on. Raises `BadFileError` for one that cannot be used."""
        settings = self._settings
        if settings.tokens_file is not None:
            self._follow("tokens", settings.tokens_file, self._read_tokens)
        if settings.policy_file is not None:
            self._follow("policy", settings.policy_file, self._read_policy)
        if settings.spiffe.trust_domains:
            self._in_force.update(spiffe=SpiffeVerifier(settings.spiffe.trust_domains))
        if settings.jwt.jwks_file is not None:
            self._follow("jwks", settings.jwt.jwks_file, self._read_keys)
        if self._jwks_url is not None:
            # From the first token on, also if the URL cannot be reached yet: tokens with unknown keys have it tried.
            self._use_keys(KeySet({}))
            self._jwks_url.start()
        self.files.start()
        if self.interceptors:
            self._sweeps.start()

    def stop(self) -> None:
        """End the threads."""
        self._sweeps.stop()
        self.files.stop()
        if self._jwks_url is not None:
            self._jwks_url.stop()

    def jwks_age_s(self) -> float | None:
        """Return how long ago good keys came from the URL, or the server was made if none did; None without a URL."""
        return None if self._jwks_url is None else self._jwks_url.age_s()

    def failures(self) -> Mapping[str, int]:
        """How often new content was refused or could not be had, by what it is for."""
        failures = self.files.failures
        return failures if self._jwks_url is None else {**failures, "jwks_url": self._jwks_url.failures}

    def quota_rejections(self) -> Mapping[str, int]:
        """How many requests were over a quota, by the limit."""
        return self._quotas.rejections.by_limit

    def _follow(self, name: str, path: Path, read: Callable[[Path], None]) -> None:
        self.files.watch(name, [path], lambda: read(path))
        read(path)

    def _read_tokens(self, path: Path) -> None:
        self._in_force.update(tokens=TokenTable.read(path))

    def _read_keys(self, path: Path) -> None:
        self._use_keys(KeySet.read(path))

    def _use_keys(self, keys: KeySet) -> None:
        unknown_key = _ignore if self._jwks_url is None else self._jwks_url.unknown_key
        self._in_force.update(jwt=JwtVerifier(self._settings.jwt, keys, unknown_key))

    def _read_policy(self, path: Path) -> None:
        self._in_force.update(policy=read_policy(path))
